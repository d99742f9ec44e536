// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/waypoint.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tunnel/state/captured.h"

namespace weft::state {
namespace {

/// What a GatewayAddress names: one of the two, or nothing that is known.
struct Gateway {
  ServicePtr service;
  WorkloadPtr workload;
};

Gateway look_up(const State& state, const GatewayAddress& gateway) {
  if (const auto* name = std::get_if<NamespacedHostname>(&gateway.destination)) {
    return {state.service_by_key(name->to_string()), nullptr};
  }
  const auto& at = std::get<NetworkAddress>(gateway.destination);
  // As for a connection to that address.
  if (auto workload = state.workload_by_address(at.network, at.address)) return {nullptr, std::move(workload)};
  return {state.service_by_vip(at.network, at.address), nullptr};
}

bool is_endpoint(const State& state, const GatewayAddress& gateway, const Workload& workload) {
  const Gateway at = look_up(state, gateway);
  if (at.workload) return at.workload->uid == workload.uid;
  return at.service && std::ranges::any_of(state.endpoints(at.service->key()),
                                           [&](const auto& e) { return e.workload->uid == workload.uid; });
}

WaypointTarget target_of(const State& state, const Workload& waypoint, const ServicePtr& service) {
  if (!service || !is_waypoint_of(state, waypoint, *service)) return {};
  return {true, service};
}

IpAddress address_like(const GatewayAddress& gateway, const IpAddress& dialled) {
  const auto* at = std::get_if<NetworkAddress>(&gateway.destination);
  return at != nullptr ? at->address : dialled;
}

/// A workload that is a waypoint by its address.
Choice choose_workload(const Workload& source, const WorkloadPtr& workload, const GatewayAddress& waypoint,
                       const Workload* avoid) {
  const std::string what = "waypoint " + to_string(waypoint) + ", workload " + workload->uid + ", ";
  if (workload->network != source.network) {
    return {nullptr, {}, what + "is on network \"" + workload->network + "\" (network gateways are not supported yet)"};
  }
  if (avoid != nullptr && avoid->uid == workload->uid) return {nullptr, {}, what + "has just failed"};
  return {workload, {std::get<NetworkAddress>(waypoint.destination).address, waypoint.hbone_mtls_port}, {}};
}

/// The endpoints that an outcome of route() chooses among, once its waypoint is known.
Choices endpoints_behind(const State& state, const Workload& source, const GatewayAddress& waypoint,
                         const IpAddress& dialled) {
  const Gateway at = look_up(state, waypoint);
  if (!at.service) return {};
  return possible_endpoints(state, source, *at.service, {address_like(waypoint, dialled), waypoint.hbone_mtls_port},
                            TargetPort::kOrSame);
}

std::vector<RouteChoice> one_by_one(const Choices& choices) {
  std::vector<RouteChoice> out;
  std::uint64_t number = 0;
  for (const auto& endpoint : choices.endpoints) {
    out.push_back({number, endpoint.weight});
    number += endpoint.weight;
  }
  if (out.empty()) out.emplace_back();
  return out;
}

/// Shares of several waypoints, each with endpoints of its own, in thousandths.
std::uint64_t thousandths(std::uint64_t weight, std::uint64_t all, std::uint64_t inner, std::uint64_t all_inner) {
  const double share = static_cast<double>(weight) / static_cast<double>(all) * static_cast<double>(inner) /
                       static_cast<double>(all_inner);
  return static_cast<std::uint64_t>(std::max(1L, std::lround(share * 1000)));
}

std::vector<RouteChoice> through(const State& state, const Workload& source,
                                 const std::vector<WeightedWaypoint>& waypoints, const IpAddress& dialled) {
  std::uint64_t all = 0, first = 0;
  for (const auto& one : waypoints) all += one.weight;
  std::vector<RouteChoice> out;
  for (const auto& [waypoint, weight] : waypoints) {
    const auto inner = one_by_one(endpoints_behind(state, source, waypoint, dialled));
    const auto sum = [](std::uint64_t total, const RouteChoice& c) { return total + c.weight; };
    const std::uint64_t all_inner = std::accumulate(inner.begin(), inner.end(), std::uint64_t{0}, sum);
    for (const auto& choice : inner) {
      const bool alone = waypoints.size() == 1;
      out.push_back(
          {first + all * choice.random, alone ? choice.weight : thousandths(weight, all, choice.weight, all_inner)});
    }
    first += weight;
  }
  return out;
}

}  // namespace

std::vector<WeightedWaypoint> waypoints_of(const Service& service) {
  std::vector<WeightedWaypoint> out = service.weighted_waypoints;
  std::erase_if(out, [](const auto& one) { return one.weight == 0; });
  if (out.empty() && service.waypoint) out.push_back({*service.waypoint, 1});
  return out;
}

bool is_waypoint_of(const State& state, const Workload& workload, const Service& service) {
  if (service.waypoint && is_endpoint(state, *service.waypoint, workload)) return true;
  return std::ranges::any_of(service.weighted_waypoints,
                             [&](const auto& one) { return is_endpoint(state, one.waypoint, workload); });
}

bool is_waypoint_of(const State& state, const Workload& workload, const Workload& other) {
  return other.waypoint && is_endpoint(state, *other.waypoint, workload);
}

WaypointTarget waypoint_target(const State& state, const Workload& waypoint, const IpAddress& address) {
  if (auto target = target_of(state, waypoint, state.service_by_vip(waypoint.network, address)); target.found) {
    return target;
  }
  const auto workload = state.workload_by_address(waypoint.network, address);
  return {workload && is_waypoint_of(state, waypoint, *workload), nullptr};
}

WaypointTarget waypoint_target(const State& state, const Workload& waypoint, std::string_view hostname) {
  const auto rank = [&](const Service& service) { return hostname_rank(service, waypoint.namespace_name); };
  WaypointTarget best;
  for (const auto& service : state.services_by_hostname(hostname)) {
    auto target = target_of(state, waypoint, service);
    if (target.found && (!best.found || rank(*service) > rank(*best.service))) best = std::move(target);
  }
  return best;
}

WaypointChoice choose_waypoint(const State& state, const Workload& source, const GatewayAddress& waypoint,
                               const IpAddress& like, std::uint64_t random, const Workload* avoid) {
  const Gateway at = look_up(state, waypoint);
  const std::string what = "waypoint " + to_string(waypoint) + ": ";
  WaypointChoice out;
  if (at.workload) {
    out.choice = choose_workload(source, at.workload, waypoint, avoid);
  } else if (at.service) {
    out.service = at.service;
    out.choice = choose_endpoint(state, source, *at.service, {address_like(waypoint, like), waypoint.hbone_mtls_port},
                                 random, avoid, TargetPort::kOrSame);
    if (!out.choice.workload) out.choice.reason = what + out.choice.reason;
  } else {
    out.choice.reason = what + (std::holds_alternative<NetworkAddress>(waypoint.destination)
                                    ? "no workload and no service has that address"
                                    : "there is no such service");
  }
  return out;
}

std::vector<RouteChoice> possible_routes(const State& state, const Workload& source, const Endpoint& original) {
  const Destination first = state.route(source, original, 0);
  if (first.waypoint) {
    const std::vector<WeightedWaypoint> own{{*first.waypoint, 1}};
    return through(state, source, first.service ? waypoints_of(*first.service) : own, original.address);
  }
  if (!first.service || !first.workload) return {{}};
  return one_by_one(possible_endpoints(state, source, *first.service, original));
}

}  // namespace weft::state
