// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"
#include "tunnel/state/state.h"

namespace weft::control {

/// The largest text that is read at all.
inline constexpr std::size_t kMaxConfigBytes = 64U << 20;

/// Reads ztunnel's local configuration (YAML, of which JSON is a subset): `workloads`, `services` and `policies`,
/// fields in camelCase. Unknown fields, duplicate keys and bad values are errors. `path` only names the file in the
/// texts, which read `FILE:LINE: FIELD: "VALUE": expected …`, one a line, the first ten of them. Pure and bounded: text
/// that is too large, too deep, or too much once its aliases are followed is refused. Errors: kInvalid.
Result<state::StateInput> parse_local_config(const std::string& path, std::string_view text);

}  // namespace weft::control
