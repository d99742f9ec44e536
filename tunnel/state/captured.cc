// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/captured.h"

#include <algorithm>

#include "tunnel/base/sort_unique.h"

namespace weft::state {
namespace {

/// Kubernetes balances a Service's ClusterIP by itself, evenly over all its endpoints. Nothing but this tunnel answers
/// for the VIP of any other service (a ServiceEntry's), or knows of localities.
bool balancing_needs_us(const Service& service) {
  if (service.load_balancer && service.load_balancer->mode != LoadBalancerMode::kStandard) return true;
  return !service.hostname.starts_with(service.name + "." + service.namespace_name + ".svc.");
}

}  // namespace

bool speaks_hbone(const Workload& workload) {
  return workload.protocol == TunnelProtocol::kHbone || workload.native_tunnel;
}

bool is_captured(const Workload& workload) {
  // The address of a hostNetwork workload is the node's: capturing it would capture what goes to the node itself.
  return workload.network_mode != NetworkMode::kHostNetwork &&
         (speaks_hbone(workload) || workload.waypoint.has_value());
}

bool has_waypoint(const Service& service) {
  return service.waypoint.has_value() || !service.weighted_waypoints.empty();
}

bool is_captured(const State& state, const Service& service) {
  // Also where its endpoints are plain: the waypoint holds the policy.
  if (has_waypoint(service)) return true;
  // Its original destination is dialled as it is.
  if (service.load_balancer && service.load_balancer->mode == LoadBalancerMode::kPassthrough) return false;
  return balancing_needs_us(service) ||
         std::ranges::any_of(state.endpoints(service.key()), [](const auto& e) { return speaks_hbone(*e.workload); });
}

bool is_captured(const State& state, const Service& service, const NetworkAddress& vip) {
  if (!is_captured(state, service)) return false;
  // A plain workload whose own address serves as the VIP (a ServiceEntry of one machine) is dialled at just that
  // address.
  const auto workload = state.workload_by_address(vip.network, vip.address);
  return !workload || is_captured(*workload) || has_waypoint(service);
}

bool State::Addresses::contains(const IpAddress& address) const {
  return std::ranges::binary_search(addresses, address) ||
         std::ranges::any_of(cidrs, [&](const Cidr& range) { return range.contains(address); });
}

State::Addresses State::named_addresses() const {
  Addresses out;
  for (const auto& workload : workloads()) {
    out.addresses.insert(out.addresses.end(), workload->addresses.begin(), workload->addresses.end());
  }
  for (const auto& service : services()) {
    for (const auto& vip : service->vips) out.addresses.push_back(vip.address);
    for (const auto& range : service->cidr_vips) out.cidrs.push_back(range.cidr);
  }
  sort_unique(out.addresses);
  sort_unique(out.cidrs);
  return out;
}

}  // namespace weft::state
