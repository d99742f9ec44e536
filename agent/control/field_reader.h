// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/control/yaml_tree.h"

namespace weft::control {

/// Collects what is wrong with one file while it is read on.
class Problems {
 public:
  explicit Problems(std::string file) : file_(std::move(file)) {}

  /// One line `FILE:LINE: FIELD: WHAT`; after the tenth they are only counted.
  void add(int line, const std::string& field, const std::string& what);
  /// Counts the work that looking at a node makes; false, once and for all, where following aliases makes too much.
  bool step(const YamlNode& at, std::size_t cost = 1);
  [[nodiscard]] bool none() const { return count_ == 0; }
  [[nodiscard]] bool exhausted() const { return steps_ > kMaxSteps; }
  /// All of them, one a line.
  [[nodiscard]] std::string text() const;

 private:
  static constexpr std::size_t kMaxSteps = 4'000'000;
  static constexpr std::size_t kMaxListed = 10;
  std::string file_;
  std::string text_;
  std::size_t count_ = 0;
  std::size_t steps_ = 0;
};

/// A node with its name in the file ("workloads[2].protocol"). The readers below report what is wrong to `problems` and
/// give a default back, so that one pass finds all there is.
struct Field {
  YamlNodePtr node;
  std::string name;
};

/// `"VALUE": expected WHAT` about the field.
void expected(Problems& problems, const Field& field, const std::string& what);

std::string read_string(Problems& problems, const Field& field);
/// A decimal number of at most `max`, at least `min`; `what` names it in the text.
std::uint32_t read_number(Problems& problems, const Field& field, std::uint32_t min, std::uint32_t max);
std::uint16_t read_port(Problems& problems, const Field& field, std::uint16_t min = 1);
bool read_bool(Problems& problems, const Field& field);
/// The items of a list.
std::vector<Field> read_list(Problems& problems, const Field& field);
/// The entries of a map whose keys are data: key field (as a plain scalar, whatever its quotes), value field.
std::vector<std::pair<Field, Field>> read_map(Problems& problems, const Field& field);

/// One of several words, each with what it means.
template <class Enum>
Enum read_word(Problems& problems, const Field& field, std::initializer_list<std::pair<std::string_view, Enum>> words) {
  if (field.node->kind == YamlNode::Kind::kScalar) {
    for (const auto& [word, value] : words) {
      if (field.node->scalar == word) return value;
    }
  }
  std::string names;
  std::size_t left = words.size();
  for (const auto& [word, value] : words) {
    names += word;
    if (--left > 0) names += left == 1 ? " or " : ", ";
  }
  expected(problems, field, names);
  return words.begin()->second;
}

/// The fields of one object. Each is asked for by name; done() reports those that nobody asked for. A field that is
/// null counts as absent.
class ObjectReader {
 public:
  ObjectReader(Problems& problems, const Field& field);

  /// The field, or nothing where it is absent.
  std::optional<Field> find(std::string_view name);
  /// The field; its absence is a problem.
  std::optional<Field> require(std::string_view name);
  /// A string, "" where it is absent.
  std::string text(std::string_view name);
  /// A string that must be there and not be empty.
  std::string required_text(std::string_view name);
  /// The items of a list, none where it is absent.
  std::vector<Field> list(std::string_view name);
  /// Says of an unknown field what is wrong with it, or nothing.
  using Hint = std::string (*)(std::string_view field);
  /// Reports fields that are unknown, with the hint where there is one; the last call.
  void done(Hint hint = nullptr);

  /// False where the field is something else, which was reported, or where too much was read already.
  [[nodiscard]] bool is_object() const { return is_object_; }
  /// The object as a whole, for problems that concern more than one field.
  [[nodiscard]] const Field& self() const { return self_; }
  [[nodiscard]] Problems& problems() { return problems_; }

 private:
  [[nodiscard]] std::string name_of(std::string_view field) const;

  Problems& problems_;
  Field self_;
  bool is_object_ = true;
  std::vector<std::string> asked_;
};

}  // namespace weft::control
