// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/json.h"

#include <algorithm>

namespace weft::cni {
namespace {

/// The deepest nesting of brackets outside strings; exact for valid JSON, which is all that is printed again.
int depth_of(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
  if (depth_of(text) > kMaxDepth) {
    return fail(ErrorCode::kInvalid, "the document is nested more than " + std::to_string(kMaxDepth) + " deep");
  }
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) {
    return fail(ErrorCode::kInvalid, text.empty() ? "the document is empty" : "not valid JSON (cut off?)");
  }
  return value;
}

std::string to_text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string shown(const Json& value) {
  // In ASCII, so that a cut cannot leave half a character.
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 80) {
    text.resize(77);
    text += "...";
  }
  return text;
}

const Json* member(const Json& value, const char* key) {
  if (!value.is_object()) return nullptr;
  const auto it = value.find(key);
  return it == value.end() || it->is_null() ? nullptr : &*it;
}

std::string text_member(const Json& value, const char* key) {
  const Json* found = member(value, key);
  const auto* text = found == nullptr ? nullptr : found->get_ptr<const Json::string_t*>();
  return text == nullptr ? std::string() : *text;
}

}  // namespace weft::cni
