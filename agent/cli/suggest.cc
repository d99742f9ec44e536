// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/suggest.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <numeric>

namespace weft::cli {
namespace {

/// Letters to insert, delete or replace.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

std::string with_nearest(std::string text, const std::string& word, const std::vector<std::string>& known) {
  text += " \"" + word + "\"";
  if (const auto meant = nearest(word, known)) return text + ": did you mean \"" + *meant + "\"?";
  return text;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

}  // namespace

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& known) {
  // A third of the letters wrong is no slip any more.
  const std::size_t most = std::max<std::size_t>(1, word.size() / 3);
  const std::string* best = nullptr;
  std::size_t best_distance = most + 1;
  for (const auto& candidate : known) {
    const bool begun = word.size() > 1 && candidate.starts_with(word);
    const std::size_t off = begun ? 0 : distance(word, candidate);
    if (off >= best_distance) continue;
    best = &candidate;
    best_distance = off;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string unknown_word(const CLI::App& app, const std::vector<std::string>& arguments) {
  const CLI::App* current = &app;
  for (const auto& argument : arguments) {
    if (argument.starts_with("--") && argument.size() > 2) {
      const std::string name = argument.substr(0, argument.find('='));
      const auto known = option_names(*current);
      if (std::ranges::find(known, name) == known.end()) return with_nearest("unknown option", name, known);
      continue;
    }
    const auto below = current->get_subcommands([](const CLI::App*) { return true; });
    if (argument.starts_with('-') || below.empty()) continue;
    std::vector<std::string> names;
    for (const auto* child : below) names.push_back(child->get_name());
    const auto chosen = std::ranges::find(names, argument);
    if (chosen == names.end()) return with_nearest("unknown command", argument, names);
    current = below[static_cast<std::size_t>(chosen - names.begin())];
  }
  return "";
}

}  // namespace weft::cli
