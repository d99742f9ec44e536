// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tunnel/base/error.h"

namespace weft::cli {

/// An explanation for people: who, whereto, captured or not, the endpoints as a table, the result, notes. Errors:
/// kInvalid where the answer is not what this version expects.
Result<std::string> explanation_text(const nlohmann::json& explanation);

}  // namespace weft::cli
