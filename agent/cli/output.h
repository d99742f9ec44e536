// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tunnel/base/error.h"

namespace weft::cli {

/// Columns padded with blanks to their widest cell, two blanks between, no blanks at the end of a line.
[[nodiscard]] std::string table(const std::vector<std::string>& header,
                                const std::vector<std::vector<std::string>>& rows);

/// 1536 as "1.5K"; exact below 1024.
[[nodiscard]] std::string human_bytes(double bytes);

/// Seconds as "42s", "5m", "3h", "2d".
[[nodiscard]] std::string human_age(double seconds);

// Members of JSON objects as cells. They throw nlohmann's exceptions, which understood() catches.
[[nodiscard]] std::string or_dash(const std::string& text);
[[nodiscard]] std::string text_of(const nlohmann::json& object, const char* key);
[[nodiscard]] std::string number_of(const nlohmann::json& object, const char* key);
/// The texts of a list, "-" where it has none.
[[nodiscard]] std::string join(const nlohmann::json& list, const char* separator);

/// What `make` gives. Errors: kInvalid where the answer about `what` lacks something: nlohmann's exceptions end here.
template <class Make>
Result<std::string> understood(const char* what, Make make) {
  try {
    return make();
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorCode::kInvalid, std::string("the agent's answer about ") + what + ": " + e.what() +
                                         " (are weftctl and weft-agent of different versions?)");
  }
}

/// The tables of what the admin API answers. Errors: kInvalid where the answer is not what this version expects.
Result<std::string> status_table(const nlohmann::json& status);
Result<std::string> pods_table(const nlohmann::json& pods);
Result<std::string> connections_table(const nlohmann::json& connections);
Result<std::string> plaintext_table(const nlohmann::json& connections);
/// Only counters of verdict "drop" with packets, the largest first.
Result<std::string> drops_table(const nlohmann::json& counters);
/// The counters that drops_table shows, for -o json.
[[nodiscard]] nlohmann::json drops_of(const nlohmann::json& counters);

}  // namespace weft::cli
