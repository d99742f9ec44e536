// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"

namespace weft::cni {

/// Keeps the order of keys: a chained plugin hands prevResult on as it came.
using Json = nlohmann::ordered_json;

/// Parses one JSON document without exceptions. Errors: kInvalid for what is no JSON, and for documents nested more
/// than kMaxDepth deep (printing them again would be recursive).
inline constexpr int kMaxDepth = 64;
Result<Json> parse_json(std::string_view text);

/// The document on one line. Bytes that are not UTF-8 are replaced, so this never fails.
[[nodiscard]] std::string to_text(const Json& value);

/// A value as an error text shows it: on one line, in printable ASCII, shortened to 80 bytes.
[[nodiscard]] std::string shown(const Json& value);

/// A member of an object, or nullptr when it is missing, null, or `value` is no object.
[[nodiscard]] const Json* member(const Json& value, const char* key);

/// A member that is a string; empty for anything else.
[[nodiscard]] std::string text_member(const Json& value, const char* key);

}  // namespace weft::cni
