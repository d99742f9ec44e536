// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound_target.h"

#include <algorithm>

#include "tunnel/state/waypoint.h"

namespace weft::proxy {
namespace {

using state::ApplicationTunnel;
using Refusal = tl::unexpected<InboundRefusal>;

bool is_own(const PodContext& pod, const IpAddress& address) {
  return std::ranges::find(pod.addresses, address) != pod.addresses.end();
}

/// A VIP of the service in the workload's network, of the family of `like` where it has one.
IpAddress vip_of(const state::Service& service, const std::string& network, const IpAddress& like) {
  IpAddress best;
  for (const auto& vip : service.vips) {
    if (vip.network != network) continue;
    if (vip.address.is_v4() == like.is_v4()) return vip.address;
    if (!best.valid()) best = vip.address;
  }
  return best;
}

IpAddress loopback(const IpAddress& like) { return IpAddress::parse(like.is_v4() ? "127.0.0.1" : "::1").value(); }

/// Says what `asked` leads to in the pod; the rest is filled in.
void find_application(const state::Workload* own, const IpAddress& at, InboundTarget& target) {
  target.application = {at, target.asked.port};
  if (own != nullptr && own->application_tunnel) {
    const ApplicationTunnel& tunnel = *own->application_tunnel;
    target.application.port = tunnel.port.value_or(target.asked.port);
    target.proxy_header = tunnel.protocol == ApplicationTunnel::Protocol::kProxy;
  }
  target.dialled = target.application;
  if (target.proxy_header) target.dialled.address = loopback(at);
}

}  // namespace

tl::expected<InboundTarget, InboundRefusal> inbound_target(const state::State* state, const state::Workload* own,
                                                           const PodContext& pod, const IpAddress& at,
                                                           const std::string& authority) {
  const auto asked = hbone::parse_authority(authority);
  if (!asked) return Refusal({400, asked.error().message()});
  const bool known = state != nullptr && own != nullptr;
  const bool may_change = known && own->application_tunnel.has_value();
  InboundTarget target;
  if (asked->address) {
    target.asked = {*asked->address, asked->port};
    if (is_own(pod, *asked->address)) {
      find_application(own, *asked->address, target);
    } else {
      const auto behind = known ? state::waypoint_target(*state, *own, *asked->address) : state::WaypointTarget();
      if (!behind.found) {
        return Refusal(
            {400,
             "authority " + authority + " is not an address of this pod, and of nothing that has it as its waypoint",
             may_change});
      }
      target.service = behind.service;
      find_application(own, at, target);
    }
  } else {
    const auto behind = known ? state::waypoint_target(*state, *own, asked->host) : state::WaypointTarget();
    if (!behind.found) {
      return Refusal({503, "authority " + authority + ": a hostname that no workload here answers to", may_change});
    }
    target.service = behind.service;
    target.asked = {vip_of(*behind.service, own->network, at), asked->port};
    if (!target.asked.address.valid()) {
      return Refusal({503, "authority " + authority + ": service " + behind.service->key() +
                               " has no VIP that could stand for it"});
    }
    find_application(own, at, target);
  }
  for (const auto port : {target.asked.port, target.application.port}) {
    if (state::is_proxy_port(port))
      return Refusal({400, "authority " + authority + " names a port of the proxy itself"});
  }
  return target;
}

}  // namespace weft::proxy
