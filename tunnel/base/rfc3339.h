// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/clock.h"

namespace weft {

/// "2026-11-24T23:05:00Z": of UTC, in whole seconds. RFC 3339.
[[nodiscard]] std::string rfc3339(WallTime time);

}  // namespace weft
