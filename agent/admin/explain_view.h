// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "agent/explain/explain.h"

namespace weft::admin {

/// What GET /explain answers. What does not exist (a tunnel, a policy, a service) is left out.
[[nodiscard]] nlohmann::json to_json(const agent::Explanation& explanation);

}  // namespace weft::admin
