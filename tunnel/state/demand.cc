// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/demand.h"

#include <algorithm>

#include "tunnel/state/captured.h"

namespace weft::state {
namespace {

void add_address(const State& state, const NetworkAddress& at, std::vector<std::string>& names) {
  const auto workload = state.workload_by_address(at.network, at.address);
  const auto service = state.service_by_vip(at.network, at.address);
  // It may have endpoints that nobody has told of.
  if (service) names.push_back(service->key());
  // The control plane tells of the workload alone where a service has the address too.
  if (workload && !is_captured(*workload)) {
    for (const auto& [key, ports] : workload->services) names.push_back(key);
  }
  // In a service's range there may be others.
  const bool is_vip = service && std::ranges::find(service->vips, at) != service->vips.end();
  if (!workload && !is_vip) names.push_back(to_string(GatewayAddress{at}));
}

void add_waypoint(const State& state, const GatewayAddress& waypoint, std::vector<std::string>& names) {
  const auto* at = std::get_if<NetworkAddress>(&waypoint.destination);
  if (at == nullptr) return names.push_back(to_string(waypoint));
  add_address(state, *at, names);
}

}  // namespace

std::vector<std::string> names_to_ask(const State& state, const Workload& source, const IpAddress& address) {
  std::vector<std::string> names;
  if (address.is_loopback() || address.is_unspecified()) return names;
  add_address(state, {source.network, address}, names);
  const auto workload = state.workload_by_address(source.network, address);
  if (workload && workload->waypoint && workload->uid != source.uid) add_waypoint(state, *workload->waypoint, names);
  if (const auto service = state.service_by_vip(source.network, address)) {
    if (service->waypoint) add_waypoint(state, *service->waypoint, names);
    for (const auto& one : service->weighted_waypoints) add_waypoint(state, one.waypoint, names);
  }
  return names;
}

}  // namespace weft::state
