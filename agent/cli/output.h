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

/// The tables of what the admin API answers. Errors: kInvalid where the answer is not what this version expects.
Result<std::string> status_table(const nlohmann::json& status);
Result<std::string> pods_table(const nlohmann::json& pods);
Result<std::string> connections_table(const nlohmann::json& connections);
/// Only counters of verdict "drop" with packets, the largest first.
Result<std::string> drops_table(const nlohmann::json& counters);
/// The counters that drops_table shows, for -o json.
[[nodiscard]] nlohmann::json drops_of(const nlohmann::json& counters);

}  // namespace weft::cli
