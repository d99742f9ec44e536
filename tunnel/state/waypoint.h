// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tunnel/state/balance.h"
#include "tunnel/state/state.h"

/// Waypoints: proxies that connections to a service, or to a workload's own addresses, must pass. All of it is pure.
namespace weft::state {

/// What a connection to the service chooses its waypoint from: the weighted ones, without those of weight 0, or else
/// its one waypoint, with weight 1. Empty where it has none, or none that gets traffic (see has_waypoint).
[[nodiscard]] std::vector<WeightedWaypoint> waypoints_of(const Service& service);

/// `workload` is an endpoint of a waypoint of the service, or of the other workload, healthy or not, whatever its
/// weight: what it sends there goes past the waypoint. Its identity alone does not count: whoever shares a service
/// account with a waypoint is none.
[[nodiscard]] bool is_waypoint_of(const State& state, const Workload& workload, const Service& service);
[[nodiscard]] bool is_waypoint_of(const State& state, const Workload& workload, const Workload& other);

/// What of the mesh has a waypoint, and the workload as one of its endpoints.
struct WaypointTarget {
  bool found = false;
  ServicePtr service;  ///< null where it is a workload
};
/// By address, a service's VIP or a workload's own, in the waypoint's network.
[[nodiscard]] WaypointTarget waypoint_target(const State& state, const Workload& waypoint, const IpAddress& address);
/// By a service's hostname: the one of the waypoint's own namespace goes first, then a canonical one.
[[nodiscard]] WaypointTarget waypoint_target(const State& state, const Workload& waypoint, std::string_view hostname);

/// The workload of the waypoint to dial, and its HBONE port there. `like` is what the client dialled: an address of its
/// family goes first. Without a workload `reason` says why.
struct WaypointChoice {
  Choice choice;
  ServicePtr service;  ///< that it was chosen from; null where the waypoint is a workload
};
[[nodiscard]] WaypointChoice choose_waypoint(const State& state, const Workload& source, const GatewayAddress& waypoint,
                                             const IpAddress& like, std::uint64_t random, const Workload* avoid);

/// Every outcome that route() may have for a connection, for people: `random` has it, with this share among them.
struct RouteChoice {
  std::uint64_t random = 0;
  std::uint64_t weight = 1;
};
[[nodiscard]] std::vector<RouteChoice> possible_routes(const State& state, const Workload& source,
                                                       const Endpoint& original);

}  // namespace weft::state
