// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tunnel/base/error.h"

namespace weft::cli {

/// The tables of what the mesh is made of. Errors: kInvalid where the answer is not what this version expects.
Result<std::string> workloads_table(const nlohmann::json& workloads);
Result<std::string> services_table(const nlohmann::json& services);
Result<std::string> policies_table(const nlohmann::json& policies);
Result<std::string> certificates_table(const nlohmann::json& certificates);

}  // namespace weft::cli
