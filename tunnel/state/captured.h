// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tunnel/state/state.h"

namespace weft::state {

/// The workload is reached through HBONE, by us or by itself.
[[nodiscard]] bool speaks_hbone(const Workload& workload);

/// Connections to the workload's own addresses must be captured: it speaks HBONE, or a waypoint holds its policy.
[[nodiscard]] bool is_captured(const Workload& workload);

/// Connections to `vip` of the service must be captured. This and route() must agree: whatever is captured is refused
/// or leads somewhere else than to the captured address in the clear, which the host's guard would drop.
[[nodiscard]] bool is_captured(const State& state, const Service& service, const NetworkAddress& vip);
[[nodiscard]] bool is_captured(const State& state, const Service& service);

[[nodiscard]] bool has_waypoint(const Service& service);

}  // namespace weft::state
