// SPDX-License-Identifier: Apache-2.0
#include "agent/control/field_reader.h"

#include <algorithm>
#include <charconv>
#include <unordered_set>

#include "tunnel/base/log.h"

namespace weft::control {
namespace {

using Kind = YamlNode::Kind;

constexpr std::size_t kMaxShown = 80;

/// What stands in the file, for a text: long values are cut.
std::string shown(const YamlNode& node) {
  switch (node.kind) {
    case Kind::kNull:
      return "null";
    case Kind::kSequence:
      return "a list";
    case Kind::kMap:
      return "an object";
    case Kind::kScalar:
      break;
  }
  return log::quote(node.scalar.size() > kMaxShown ? node.scalar.substr(0, kMaxShown) + "..." : node.scalar);
}

/// A problem as it is told. Whoever reads it may take each line for one, and values are as long as they like.
std::string one_line(std::string text) {
  constexpr std::size_t kMaxProblem = 500;
  if (text.size() > kMaxProblem) text = text.substr(0, kMaxProblem) + "...";
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < ' ' || c == 0x7f; }, '?');
  return text;
}

/// Whether a key can stand in a text as it is.
bool is_name(std::string_view key) {
  return key.size() <= kMaxShown && std::ranges::all_of(key, [](unsigned char c) { return c > 0x20 && c != 0x7f; });
}

/// Reports keys that occur twice and those that are no scalars.
void check_keys(Problems& problems, const Field& field) {
  std::unordered_set<std::string_view> seen;
  for (const auto& [key, value] : field.node->entries) {
    if (key->kind != Kind::kScalar) {
      problems.add(key->line, field.name, "a key that is " + shown(*key) + ": expected a name");
    } else if (!seen.insert(key->scalar).second) {
      problems.add(key->line, field.name, "the key " + shown(*key) + " occurs twice");
    }
  }
}

}  // namespace

void Problems::add(int line, const std::string& field, const std::string& what) {
  if (++count_ > kMaxListed) return;
  if (!text_.empty()) text_ += '\n';
  text_ += file_ + ":" + std::to_string(line) + ": " + one_line((field.empty() ? "" : field + ": ") + what);
}

bool Problems::step(const YamlNode& at, std::size_t cost) {
  if (exhausted()) return false;
  constexpr std::size_t kBytesAStep = 64;
  steps_ += cost + at.entries.size() + at.scalar.size() / kBytesAStep;
  if (steps_ <= kMaxSteps) return true;
  add(at.line, "", "too much to read once its aliases are followed");
  return false;
}

std::string Problems::text() const {
  if (count_ <= kMaxListed) return text_;
  return text_ + "\n" + file_ + ": and " + std::to_string(count_ - kMaxListed) + " more";
}

void expected(Problems& problems, const Field& field, const std::string& what) {
  problems.add(field.node->line, field.name, shown(*field.node) + ": expected " + what);
}

std::string read_string(Problems& problems, const Field& field) {
  if (field.node->kind == Kind::kScalar) return field.node->scalar;
  expected(problems, field, "a string");
  return {};
}

std::uint32_t read_number(Problems& problems, const Field& field, std::uint32_t min, std::uint32_t max) {
  const std::string& text = field.node->scalar;
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (field.node->kind == Kind::kScalar && field.node->plain && error == std::errc() &&
      end == text.data() + text.size() && value >= min && value <= max) {
    return value;
  }
  expected(problems, field, "a number from " + std::to_string(min) + " to " + std::to_string(max));
  return min;
}

std::uint16_t read_port(Problems& problems, const Field& field, std::uint16_t min) {
  return static_cast<std::uint16_t>(read_number(problems, field, min, 65535));
}

bool read_bool(Problems& problems, const Field& field) {
  if (field.node->kind == Kind::kScalar && field.node->plain) {
    if (field.node->scalar == "true") return true;
    if (field.node->scalar == "false") return false;
  }
  expected(problems, field, "true or false");
  return false;
}

std::vector<Field> read_list(Problems& problems, const Field& field) {
  std::vector<Field> out;
  if (field.node->kind != Kind::kSequence) {
    expected(problems, field, "a list");
    return out;
  }
  for (const auto& item : field.node->items) {
    if (!problems.step(*item)) break;
    out.push_back({item, field.name + "[" + std::to_string(out.size()) + "]"});
  }
  return out;
}

std::vector<std::pair<Field, Field>> read_map(Problems& problems, const Field& field) {
  std::vector<std::pair<Field, Field>> out;
  if (field.node->kind != Kind::kMap) {
    expected(problems, field, "an object");
    return out;
  }
  check_keys(problems, field);
  for (const auto& [key, value] : field.node->entries) {
    if (!problems.step(*key) || !problems.step(*value)) break;
    if (key->kind != Kind::kScalar) continue;
    const std::string name = field.name + "[" + shown(*key) + "]";
    // JSON can only write keys in quotes, so they say nothing of what is meant.
    auto unquoted = std::make_shared<YamlNode>(*key);
    unquoted->plain = true;
    out.push_back({{std::move(unquoted), name}, {value, name}});
  }
  return out;
}

ObjectReader::ObjectReader(Problems& problems, const Field& field) : problems_(problems), self_(field) {
  // An object costs what its type has fields to look for, however few are there.
  constexpr std::size_t kObjectCost = 16;
  is_object_ = problems_.step(*field.node, kObjectCost) && field.node->kind == Kind::kMap;
  if (field.node->kind != Kind::kMap) expected(problems_, field, "an object");
  if (is_object_) check_keys(problems_, field);
}

std::string ObjectReader::name_of(std::string_view field) const {
  return self_.name.empty() ? std::string(field) : self_.name + "." + std::string(field);
}

std::optional<Field> ObjectReader::find(std::string_view name) {
  asked_.emplace_back(name);
  if (!is_object_) return std::nullopt;
  for (const auto& [key, value] : self_.node->entries) {
    if (key->kind != Kind::kScalar || key->scalar != name || value->kind == Kind::kNull) continue;
    if (!problems_.step(*value)) return std::nullopt;
    return Field{value, name_of(name)};
  }
  return std::nullopt;
}

std::optional<Field> ObjectReader::require(std::string_view name) {
  auto found = find(name);
  if (!found && is_object_ && !problems_.exhausted()) problems_.add(self_.node->line, name_of(name), "missing");
  return found;
}

std::string ObjectReader::text(std::string_view name) {
  const auto found = find(name);
  return found ? read_string(problems_, *found) : std::string();
}

std::string ObjectReader::required_text(std::string_view name) {
  const auto found = require(name);
  if (!found) return {};
  std::string value = read_string(problems_, *found);
  if (value.empty() && found->node->kind == Kind::kScalar) expected(problems_, *found, "a name");
  return value;
}

std::vector<Field> ObjectReader::list(std::string_view name) {
  const auto found = find(name);
  return found ? read_list(problems_, *found) : std::vector<Field>();
}

void ObjectReader::done(Hint hint) {
  if (!is_object_) return;
  for (const auto& [key, value] : self_.node->entries) {
    if (key->kind != Kind::kScalar || std::ranges::find(asked_, key->scalar) != asked_.end()) continue;
    const std::string name = name_of(is_name(key->scalar) ? key->scalar : shown(*key));
    if (const std::string said = hint != nullptr ? hint(key->scalar) : ""; !said.empty()) {
      problems_.add(key->line, name, said);
      continue;
    }
    std::string names;
    for (const auto& known : asked_) names += (names.empty() ? "" : ", ") + known;
    problems_.add(key->line, name, "unknown field: expected one of " + names);
  }
}

}  // namespace weft::control
