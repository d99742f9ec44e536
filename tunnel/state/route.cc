// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/balance.h"
#include "tunnel/state/captured.h"
#include "tunnel/state/state.h"
#include "tunnel/state/waypoint.h"

namespace weft::state {
namespace {

Destination refused(Destination destination, std::string reason) {
  destination.kind = Destination::Kind::kRefused;
  destination.reason = std::move(reason);
  return destination;
}

/// By one of these, chosen by weight. Where it cannot be, the connection fails: neither past the waypoint nor by
/// another one.
Destination through_waypoint(const State& state, Destination destination, const Workload& source,
                             const std::vector<WeightedWaypoint>& waypoints, std::uint64_t random,
                             const Workload* avoid) {
  const auto weight = [](const WeightedWaypoint& one) { return std::uint64_t{one.weight}; };
  const auto [chosen, rest] = by_weight(waypoints, random, weight);
  destination.waypoint = chosen.waypoint;
  WaypointChoice found = choose_waypoint(state, source, *destination.waypoint, destination.target.address, rest, avoid);
  if (!found.choice.workload) return refused(std::move(destination), std::move(found.choice.reason));
  const Workload& workload = *found.choice.workload;
  destination.workload = found.choice.workload;
  if (found.choice.target.port != kHbonePort && is_captured(workload)) {
    std::string why = "waypoint " + to_string(*destination.waypoint) + " takes HBONE on port " +
                      std::to_string(found.choice.target.port) + " of " + workload.uid +
                      ", a workload with HBONE: the nodes let port 15008 alone to its addresses (give its entry the "
                      "protocol TCP, or the waypoint that port)";
    return refused(std::move(destination), std::move(why));
  }
  if (is_name(workload)) destination.hostname = workload.hostname;
  destination.kind = Destination::Kind::kHbone;
  destination.hbone = found.choice.target;
  destination.expected_identities = {workload.identity()};
  if (found.service) destination.expected_sans = found.service->subject_alt_names;
  return destination;
}

/// Finishes a destination whose workload and target are chosen.
Destination to_workload(Destination destination, const Workload& source) {
  const Workload& workload = *destination.workload;
  // A connection that leads back to its own pod never meets the pod's interface: there is nothing to tunnel through.
  const bool is_self = workload.uid == source.uid;
  if (is_name(workload)) destination.hostname = workload.hostname;
  if (is_self || !speaks_hbone(workload)) {
    destination.kind = Destination::Kind::kDirect;
    return destination;
  }
  destination.kind = Destination::Kind::kHbone;
  destination.hbone = {destination.target.address, kHbonePort};
  destination.expected_identities = {workload.identity()};
  if (destination.service) destination.expected_sans = destination.service->subject_alt_names;
  return destination;
}

Destination to_service(const State& state, Destination destination, const Workload& source, const Endpoint& original,
                       std::uint64_t random, const Workload* avoid) {
  const Service& service = *destination.service;
  if (service.visibility == Visibility::kNamespace && service.namespace_name != source.namespace_name) {
    return refused(
        std::move(destination),
        "service " + service.key() + " is visible in its own namespace only, not in " + source.namespace_name);
  }
  const bool passes_through = service.load_balancer && service.load_balancer->mode == LoadBalancerMode::kPassthrough;
  if (has_waypoint(service) && !is_waypoint_of(state, source, service)) {
    const auto waypoints = waypoints_of(service);
    if (!waypoints.empty()) {
      return through_waypoint(state, std::move(destination), source, waypoints, random, avoid);
    }
    return refused(std::move(destination), "the waypoints of service " + service.key() + " all have weight 0");
  }
  if (passes_through && has_waypoint(service)) {
    return refused(std::move(destination), "service " + service.key() +
                                               " is PASSTHROUGH and has a waypoint, so its addresses are captured: a "
                                               "waypoint that is in the mesh itself cannot go on to them in plaintext");
  }
  if (passes_through) return destination;
  if (!service.ports.contains(original.port)) {
    return refused(std::move(destination),
                   "service " + service.key() + " has no port " + std::to_string(original.port));
  }
  Choice choice = choose_endpoint(state, source, service, original, random, avoid);
  if (!choice.workload) return refused(std::move(destination), std::move(choice.reason));
  destination.workload = std::move(choice.workload);
  destination.target = choice.target;
  return to_workload(std::move(destination), source);
}

}  // namespace

Destination State::elsewhere(Destination destination, const Workload& source, const Endpoint& original) const {
  const auto of_network = [&](const std::string& what, const std::string& network) {
    return what + " is on network \"" + network + "\", not on the source's \"" + source.network +
           "\" (network gateways are not supported yet)";
  };
  for (const auto& [network, workloads] : by_address_) {
    const auto* found = workloads.find(original.address);
    if (network == source.network || found == nullptr || !is_captured(*found->holder())) continue;
    destination.workload = found->holder();
    return refused(std::move(destination), of_network("workload " + found->holder()->uid, network));
  }
  for (const auto& [network, services] : by_vip_) {
    const auto* found = services.find(original.address);
    if (network == source.network || found == nullptr) continue;
    if (!is_captured(*this, *found->holder(), {network, original.address})) continue;
    destination.service = found->holder();
    return refused(std::move(destination), of_network("service " + found->holder()->key(), network));
  }
  return destination;
}

Destination State::route(const Workload& source, const Endpoint& original, std::uint64_t random,
                         const Workload* avoid) const {
  Destination destination;
  destination.target = original;
  if (original.address.is_loopback() && is_proxy_port(original.port)) {
    return refused(std::move(destination),
                   "port " + std::to_string(original.port) + " of loopback is the tunnel's own");
  }
  destination.service = service_by_vip(source.network, original.address);
  const WorkloadPtr workload = workload_by_address(source.network, original.address);
  // A workload's own address goes before a VIP, save where the VIP's waypoint would be passed by.
  if (workload && (is_captured(*workload) || !destination.service || !has_waypoint(*destination.service))) {
    destination.service = nullptr;
    destination.workload = workload;
    // A workload's waypoint is for what is addressed to it, not for what reaches it through a service.
    if (workload->waypoint && workload->uid != source.uid && !is_waypoint_of(*this, source, *workload)) {
      return through_waypoint(*this, std::move(destination), source, {{*workload->waypoint, 1}}, random, avoid);
    }
    return to_workload(std::move(destination), source);
  }
  if (destination.service) return to_service(*this, std::move(destination), source, original, random, avoid);
  return elsewhere(std::move(destination), source, original);
}

Destination State::resolved(const Workload& source, Destination named, const IpAddress& address,
                            std::uint64_t random) const {
  const std::string what = "resolve " + named.hostname + ": " + address.to_string();
  named.hostname.clear();
  if (named.waypoint) {
    named.hbone.address = address;
    return named;
  }
  named.target.address = address;
  if (named.kind == Destination::Kind::kHbone) named.hbone.address = address;
  Destination at = route(source, named.target, random);
  if (at.kind == Destination::Kind::kUnknown) return named;
  if (!at.hostname.empty()) {
    return refused(std::move(named), what + " is of service " + at.service->key() +
                                         ", whose endpoint is a name again (one name alone is followed)");
  }
  if (at.kind == Destination::Kind::kRefused) at.reason = what + ": " + at.reason;
  at.service = named.service;
  return at;
}

}  // namespace weft::state
