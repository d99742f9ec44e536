// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/balance.h"

#include <algorithm>
#include <optional>

namespace weft::state {
namespace {

struct Candidate {
  const ServiceEndpoint* endpoint;
  Endpoint target;
};

/// How many endpoints were left out, and for what: for the reason given when none is left.
struct LeftOut {
  int avoided = 0, other_network = 0, no_address = 0, no_port = 0, unhealthy = 0, no_capacity = 0, wrong_locality = 0;
  const Workload* in_other_network = nullptr;
};

/// The port to dial: the endpoint's own word goes before the service's. A service that leaves the port to the workload
/// (0, a named port) cannot use an endpoint that names its ports but not this one.
std::optional<std::uint16_t> target_port(const Service& service, const ServiceEndpoint& endpoint, std::uint16_t port,
                                         TargetPort otherwise) {
  if (const auto own = endpoint.ports->find(port); own != endpoint.ports->end() && own->second != 0) return own->second;
  if (const auto at = service.ports.find(port); at != service.ports.end() && at->second != 0) return at->second;
  if (!endpoint.ports->empty() && otherwise == TargetPort::kNamed) return std::nullopt;
  return port;
}

bool same(LoadBalancerScope scope, const Workload& a, const Workload& b) {
  switch (scope) {
    case LoadBalancerScope::kRegion:
      return a.locality.region == b.locality.region;
    case LoadBalancerScope::kZone:
      return a.locality.zone == b.locality.zone;
    case LoadBalancerScope::kSubzone:
      return a.locality.subzone == b.locality.subzone;
    case LoadBalancerScope::kNode:
      return a.node == b.node;
    case LoadBalancerScope::kCluster:
      return a.cluster_id == b.cluster_id;
    case LoadBalancerScope::kNetwork:
      return a.network == b.network;
  }
  return false;
}

/// How many of the preferences an endpoint meets, from the first on without a gap.
std::size_t rank(const std::vector<LoadBalancerScope>& preferences, const Workload& source, const Workload& endpoint) {
  const auto miss = std::ranges::find_if(preferences, [&](auto scope) { return !same(scope, source, endpoint); });
  return static_cast<std::size_t>(miss - preferences.begin());
}

std::vector<Candidate> usable(const State& state, const Workload& source, const Service& service,
                              const Endpoint& original, const Workload* avoid, TargetPort target, LeftOut& left_out) {
  const bool any_health = service.load_balancer && service.load_balancer->health_policy == HealthPolicy::kAllowAll;
  std::vector<Candidate> out;
  for (const auto& endpoint : state.endpoints(service.key())) {
    const Workload& workload = *endpoint.workload;
    if (avoid != nullptr && workload.uid == avoid->uid) {
      ++left_out.avoided;
      continue;
    }
    if (workload.network != source.network) {
      ++left_out.other_network;
      left_out.in_other_network = &workload;
      continue;
    }
    const IpAddress address = address_of(workload, original.address, service.ip_families.value_or(IpFamilies::kDual));
    const auto port = target_port(service, endpoint, original.port, target);
    if (!address.valid() && !is_name(workload)) {
      ++left_out.no_address;
    } else if (!port) {
      ++left_out.no_port;
    } else if (workload.status == HealthStatus::kUnhealthy && !any_health) {
      ++left_out.unhealthy;
    } else if (workload.capacity == 0) {
      ++left_out.no_capacity;
    } else {
      out.push_back({&endpoint, {address, *port}});
    }
  }
  return out;
}

/// Keeps what the locality rules prefer: STRICT only full matches, FAILOVER the best there are.
void prefer_near(std::vector<Candidate>& candidates, const Workload& source, const LoadBalancer& rules,
                 LeftOut& left_out) {
  const auto rank_of = [&](const Candidate& c) {
    return rank(rules.routing_preferences, source, *c.endpoint->workload);
  };
  std::size_t needed = 0;
  if (rules.mode == LoadBalancerMode::kStrict) {
    needed = rules.routing_preferences.size();
  } else {
    for (const auto& candidate : candidates) needed = std::max(needed, rank_of(candidate));
  }
  left_out.wrong_locality =
      static_cast<int>(std::erase_if(candidates, [&](const auto& c) { return rank_of(c) < needed; }));
}

std::string why_none(const Service& service, const LeftOut& left_out) {
  std::string text = "service " + service.key() + " has no usable endpoint";
  const char* separator = ": ";
  const auto add = [&](int count, const std::string& why) {
    if (count == 0) return;
    text += separator + std::to_string(count) + " " + why;
    separator = ", ";
  };
  add(left_out.avoided, "that has just failed");
  add(left_out.unhealthy, "unhealthy");
  add(left_out.no_capacity, "with capacity 0");
  add(left_out.no_port, "without the port");
  add(left_out.no_address, "without an address of its family");
  add(left_out.wrong_locality, "outside the locality that the service demands");
  if (left_out.in_other_network != nullptr) {
    add(left_out.other_network, "on other networks, such as " + left_out.in_other_network->uid + " on network \"" +
                                    left_out.in_other_network->network + "\" (network gateways are not supported yet)");
  }
  return separator[0] == ':' ? text + ": it has none at all" : text;
}

/// Among these the number decides.
std::vector<Candidate> candidates_of(const State& state, const Workload& source, const Service& service,
                                     const Endpoint& original, const Workload* avoid, TargetPort target,
                                     LeftOut& left_out) {
  std::vector<Candidate> candidates = usable(state, source, service, original, avoid, target, left_out);
  if (service.load_balancer && service.load_balancer->mode != LoadBalancerMode::kStandard) {
    prefer_near(candidates, source, *service.load_balancer, left_out);
  }
  return candidates;
}

}  // namespace

bool accepts(IpFamilies families, const IpAddress& address) {
  return families == IpFamilies::kDual || address.is_v4() == (families == IpFamilies::kIpv4);
}

bool is_name(const Workload& workload) { return workload.addresses.empty() && !workload.hostname.empty(); }

IpAddress address_of(const Workload& workload, const IpAddress& like, IpFamilies families) {
  IpAddress first;
  for (const auto& address : workload.addresses) {
    if (!accepts(families, address)) continue;
    if (address.is_v4() == like.is_v4()) return address;
    if (!first.valid()) first = address;
  }
  return first;
}

Choice choose_endpoint(const State& state, const Workload& source, const Service& service, const Endpoint& original,
                       std::uint64_t random, const Workload* avoid, TargetPort target) {
  LeftOut left_out;
  const std::vector<Candidate> candidates = candidates_of(state, source, service, original, avoid, target, left_out);
  if (candidates.empty()) return {nullptr, {}, why_none(service, left_out)};
  const auto capacity = [](const Candidate& c) { return std::uint64_t{c.endpoint->workload->capacity}; };
  const Candidate& chosen = by_weight(candidates, random, capacity).first;
  return {chosen.endpoint->workload, chosen.target, {}};
}

Choices possible_endpoints(const State& state, const Workload& source, const Service& service, const Endpoint& original,
                           TargetPort target) {
  LeftOut left_out;
  Choices out;
  for (const auto& candidate : candidates_of(state, source, service, original, nullptr, target, left_out)) {
    const auto& workload = candidate.endpoint->workload;
    out.endpoints.push_back({workload, candidate.target, workload->capacity});
  }
  if (out.endpoints.empty()) out.reason = why_none(service, left_out);
  return out;
}

}  // namespace weft::state
