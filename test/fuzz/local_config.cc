// SPDX-License-Identifier: Apache-2.0
/// The mesh's configuration from a file. What is read is shown by /config_dump and read again.
#include "agent/control/local_config.h"

#include <algorithm>

#include "agent/admin/config_dump.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using nlohmann::json;

constexpr const char* kFile = "mesh.yaml";
/// Ten problems, and how many more there are.
constexpr std::ptrdiff_t kMaxLines = 11;
/// YAML's end for keys that are not marked as such.
constexpr std::size_t kMaxKey = 1024;

void check_error(const std::string& text) {
  require(std::ranges::count(text, '\n') < kMaxLines, "problems are limited", text);
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = take_line(rest);
    require(line.starts_with("mesh.yaml:"), "a problem names the file", line);
    require_text(line);
  }
}

/// As /config_dump has it.
json dumped(const state::State& state) {
  json all = admin::config_dump(&state, {}, {}, {});
  json file;
  for (const char* kind : {"workloads", "services", "policies"}) file[kind] = std::move(all[kind]);
  return file;
}

/// Whether JSON can hold the names, and YAML the keys that are made of them.
bool is_writable(const json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return text.size() < kMaxKey / 2 && text.find('\0') == std::string::npos && text.find('\x04') == std::string::npos;
  }
  if (!value.is_structured()) return true;
  return std::ranges::all_of(value.items(), [](const auto& item) {
    return item.key().size() < kMaxKey / 2 && is_writable(json(item.key())) && is_writable(item.value());
  });
}

void written_again(const state::State& state) {
  const json file = dumped(state);
  std::string text;
  try {
    text = file.dump();
  } catch (const json::exception&) {
    return;  // names that are not UTF-8
  }
  if (!is_writable(file)) return;
  auto again = control::parse_local_config(kFile, text);
  require(again.has_value(), "what is shown can be read", again ? text : again.error().message() + "\n" + text);
  auto built = state::State::build(std::move(*again));
  require(built.has_value(), "what is shown is consistent", text);
  const json second = dumped(**built);
  require(second == file, "what is shown and read again is the same", json::diff(file, second).dump() + "\n" + text);
}

}  // namespace

void one_input(std::string_view input) {
  auto read = control::parse_local_config(kFile, input);
  if (!read) return check_error(read.error().message());
  auto state = state::State::build(std::move(*read));
  if (!state) return require_error(state.error());
  written_again(**state);
}

}  // namespace weft::fuzz
