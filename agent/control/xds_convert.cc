// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_convert.h"

#include <algorithm>
#include <limits>
#include <span>

#include "tunnel/state/names.h"

namespace weft::control {
namespace {

namespace wds = istio::workload;

constexpr std::uint32_t kPortMax = std::numeric_limits<std::uint16_t>::max();

/// An enumerator that this version does not know: what it means cannot be guessed.
Failure unknown(const std::string& field, int value) {
  return bad_field(field, std::to_string(value) + " is unknown to this version of the agent");
}

Result<std::uint16_t> to_port(const std::string& field, std::uint32_t value, std::uint32_t least) {
  if (value < least || value > kPortMax)
    return bad_field(field, std::to_string(value) + ": expected a port, " + std::to_string(least) + " to 65535");
  return static_cast<std::uint16_t>(value);
}

using Ports = std::map<std::uint16_t, std::uint16_t>;

template <class WirePorts>
Result<Ports> to_ports(const std::string& field, const WirePorts& ports, std::uint32_t least_target) {
  Ports out;
  for (const auto& port : ports) {
    const auto service = to_port(field + ".service_port", port.service_port(), 1);
    if (!service) return Failure(service.error());
    const auto target = to_port(field + ".target_port", port.target_port(), least_target);
    if (!target) return Failure(target.error());
    out[*service] = *target;
  }
  return out;
}

/// A name that is part of keys.
Result<std::string> to_name(const std::string& field, const std::string& value) {
  if (value.empty()) return bad_field(field, "missing");
  if (value.find('/') != std::string::npos)
    return bad_field(field, in_quotes(value) + ": expected a name without a slash");
  return value;
}

Result<state::NetworkAddress> to_network_address(const std::string& field, const wds::NetworkAddress& from) {
  auto address = to_ip(from.address());
  if (!address) return bad_field(field, address.error().context);
  return state::NetworkAddress{from.network(), *address};
}

Result<state::GatewayAddress> to_gateway(const std::string& field, const wds::GatewayAddress& from) {
  state::GatewayAddress out;
  switch (from.destination_case()) {
    case wds::GatewayAddress::kHostname: {
      const auto name = to_name(field + ".hostname", from.hostname().hostname());
      if (!name) return Failure(name.error());
      const auto in = to_name(field + ".hostname.namespace", from.hostname().namespace_());
      if (!in) return Failure(in.error());
      out.destination = state::NamespacedHostname{*in, *name};
      break;
    }
    case wds::GatewayAddress::kAddress: {
      const auto address = to_network_address(field + ".address", from.address());
      if (!address) return Failure(address.error());
      out.destination = *address;
      break;
    }
    default:
      return bad_field(field, "expected an address or a hostname");
  }
  if (from.hbone_mtls_port() != 0) {
    const auto port = to_port(field + ".hbone_mtls_port", from.hbone_mtls_port(), 1);
    if (!port) return Failure(port.error());
    out.hbone_mtls_port = *port;
  }
  return out;
}

Result<void> read_enums(const wds::Workload& from, state::Workload& out) {
  switch (from.tunnel_protocol()) {
    case wds::TUNNEL_HBONE:
      out.protocol = state::TunnelProtocol::kHbone;
      break;
    case wds::TUNNEL_NONE:
    case wds::TUNNEL_SIDECAR_MTLS:  // no tunnel can speak for a sidecar, which takes plaintext unless it is told not
                                    // to
      out.protocol = state::TunnelProtocol::kTcp;
      break;
    default:
      return unknown("tunnel_protocol", from.tunnel_protocol());
  }
  switch (from.network_mode()) {
    case wds::MODE_STANDARD:
      break;
    case wds::MODE_HOST_NETWORK:
      out.network_mode = state::NetworkMode::kHostNetwork;
      break;
    default:
      return unknown("network_mode", from.network_mode());
  }
  switch (from.status()) {
    case wds::STATUS_HEALTHY:
      break;
    case wds::STATUS_UNHEALTHY:
      out.status = state::HealthStatus::kUnhealthy;
      break;
    default:
      return unknown("status", from.status());
  }
  switch (from.workload_type()) {
    case wds::TYPE_DEPLOYMENT:
      out.workload_type = "deployment";
      break;
    case wds::TYPE_CRONJOB:
      out.workload_type = "cronjob";
      break;
    case wds::TYPE_JOB:
      out.workload_type = "job";
      break;
    default:  // for people alone, so not worth losing a workload
      out.workload_type = "pod";
  }
  return {};
}

Result<void> read_application_tunnel(const wds::Workload& from, state::Workload& out) {
  if (!from.has_application_tunnel()) return {};
  state::ApplicationTunnel tunnel;
  switch (from.application_tunnel().protocol()) {
    case wds::ApplicationTunnel::PROTOCOL_NONE:
      break;
    case wds::ApplicationTunnel::PROTOCOL_PROXY:
      tunnel.protocol = state::ApplicationTunnel::Protocol::kProxy;
      break;
    default:
      return unknown("application_tunnel.protocol", from.application_tunnel().protocol());
  }
  const auto port = to_port("application_tunnel.port", from.application_tunnel().port(), 0);
  if (!port) return Failure(port.error());
  if (*port != 0) tunnel.port = *port;
  out.application_tunnel = tunnel;
  return {};
}

Result<void> read_addresses(const wds::Workload& from, state::Workload& out) {
  for (const auto& bytes : from.addresses()) {
    auto address = to_ip(bytes);
    if (!address) return bad_field("addresses", address.error().context);
    if (std::ranges::find(out.addresses, *address) == out.addresses.end()) out.addresses.push_back(*address);
  }
  // Where there are addresses it is not looked up, and may be any text.
  if (out.addresses.empty() && !out.hostname.empty() && !state::is_host_name(out.hostname))
    return bad_field("hostname", in_quotes(out.hostname) + ": expected a name that DNS can be asked for");
  return {};
}

Result<void> read_identity(const wds::Workload& from, state::Workload& out) {
  if (from.uid().empty()) return bad_field("uid", "missing");
  auto in = to_name("namespace", from.namespace_());
  if (!in) return Failure(in.error());
  out.uid = from.uid();
  out.name = from.name();
  out.namespace_name = std::move(*in);
  if (!from.trust_domain().empty()) out.trust_domain = from.trust_domain();
  if (!from.service_account().empty()) out.service_account = from.service_account();
  if (!from.cluster_id().empty()) out.cluster_id = from.cluster_id();
  // A value that cannot stand in a URI would never match a certificate.
  if (const auto uri = out.identity().to_uri(); !state::Identity::parse(uri))
    return bad_field("trust_domain, namespace and service_account", "they make no identity: " + in_quotes(uri));
  return {};
}

Result<void> read_gateways(const wds::Workload& from, state::Workload& out) {
  if (from.has_waypoint()) {
    auto waypoint = to_gateway("waypoint", from.waypoint());
    if (!waypoint) return Failure(waypoint.error());
    out.waypoint = std::move(*waypoint);
  }
  if (from.has_network_gateway()) {
    auto gateway = to_gateway("network_gateway", from.network_gateway());
    if (!gateway) return Failure(gateway.error());
    out.network_gateway = std::move(*gateway);
  }
  return {};
}

Result<void> read_memberships(const wds::Workload& from, state::Workload& out) {
  for (const auto& [key, ports] : from.services()) {
    if (!state::NamespacedHostname::parse(key))
      return bad_field("services", in_quotes(key) + ": expected namespace/hostname");
    auto read = to_ports("services", ports.ports(), 1);
    if (!read) return Failure(read.error());
    out.services.emplace(key, std::move(*read));
  }
  // One that is misspelt is kept: it is known to nobody, and denies.
  out.authorization_policies.assign(from.authorization_policies().begin(), from.authorization_policies().end());
  return {};
}

void read_texts(const wds::Workload& from, state::Workload& out) {
  out.network = from.network();
  out.node = from.node();
  out.hostname = from.hostname();
  out.native_tunnel = from.native_tunnel();
  out.locality = {from.locality().region(), from.locality().zone(), from.locality().subzone()};
  if (from.has_capacity()) out.capacity = from.capacity().value();
  out.workload_name = from.workload_name().empty() ? from.name() : from.workload_name();
  out.canonical_name = from.canonical_name().empty() ? out.workload_name : from.canonical_name();
  out.canonical_revision = from.canonical_revision().empty() ? "latest" : from.canonical_revision();
}

Result<state::LoadBalancerScope> to_scope(int scope) {
  switch (scope) {
    case wds::LoadBalancing::SCOPE_REGION:
      return state::LoadBalancerScope::kRegion;
    case wds::LoadBalancing::SCOPE_ZONE:
      return state::LoadBalancerScope::kZone;
    case wds::LoadBalancing::SCOPE_SUBZONE:
      return state::LoadBalancerScope::kSubzone;
    case wds::LoadBalancing::SCOPE_NODE:
      return state::LoadBalancerScope::kNode;
    case wds::LoadBalancing::SCOPE_CLUSTER:
      return state::LoadBalancerScope::kCluster;
    case wds::LoadBalancing::SCOPE_NETWORK:
      return state::LoadBalancerScope::kNetwork;
    default:
      return unknown("load_balancing.routing_preference", scope);
  }
}

Result<state::LoadBalancer> to_load_balancer(const wds::LoadBalancing& from) {
  state::LoadBalancer out;
  switch (from.mode()) {
    case wds::LoadBalancing::MODE_UNSPECIFIED:
      break;
    case wds::LoadBalancing::MODE_STRICT:
      out.mode = state::LoadBalancerMode::kStrict;
      break;
    case wds::LoadBalancing::MODE_FAILOVER:
      out.mode = state::LoadBalancerMode::kFailover;
      break;
    case wds::LoadBalancing::MODE_PASSTHROUGH:
      out.mode = state::LoadBalancerMode::kPassthrough;
      break;
    default:
      return unknown("load_balancing.mode", from.mode());
  }
  for (const auto value : from.routing_preference()) {
    const auto scope = to_scope(value);
    if (!scope) return Failure(scope.error());
    out.routing_preferences.push_back(*scope);
  }
  switch (from.health_policy()) {
    case wds::LoadBalancing::HEALTH_ONLY_HEALTHY:
      break;
    case wds::LoadBalancing::HEALTH_ALLOW_ALL:
      out.health_policy = state::HealthPolicy::kAllowAll;
      break;
    default:
      return unknown("load_balancing.health_policy", from.health_policy());
  }
  return out;
}

Result<void> read_vips(const wds::Service& from, state::Service& out) {
  for (const auto& vip : from.addresses()) {
    auto address = to_network_address("addresses", vip);
    if (!address) return Failure(address.error());
    const std::uint32_t whole = address->address.is_v4() ? 32 : 128;
    const std::uint32_t length = vip.has_length() ? vip.length() : whole;
    if (length > whole)
      return bad_field("addresses.length", std::to_string(length) + ": expected at most " + std::to_string(whole));
    if (length == whole) {
      out.vips.push_back(std::move(*address));
    } else {
      out.cidr_vips.push_back({address->network, Cidr::of(address->address, static_cast<std::uint8_t>(length))});
    }
  }
  return {};
}

Result<void> read_waypoints(const wds::Service& from, state::Service& out) {
  if (from.has_waypoint()) {
    auto waypoint = to_gateway("waypoint", from.waypoint());
    if (!waypoint) return Failure(waypoint.error());
    out.waypoint = std::move(*waypoint);
  }
  for (const auto& weighted : from.weighted_waypoints()) {
    auto waypoint = to_gateway("weighted_waypoints.destination", weighted.destination());
    if (!waypoint) return Failure(waypoint.error());
    out.weighted_waypoints.push_back({std::move(*waypoint), weighted.weight()});
  }
  return {};
}

Result<void> read_enums(const wds::Service& from, state::Service& out) {
  switch (from.ip_families()) {
    case wds::FAMILIES_AUTOMATIC:
      break;
    case wds::FAMILIES_IPV4:
      out.ip_families = state::IpFamilies::kIpv4;
      break;
    case wds::FAMILIES_IPV6:
      out.ip_families = state::IpFamilies::kIpv6;
      break;
    case wds::FAMILIES_DUAL:
      out.ip_families = state::IpFamilies::kDual;
      break;
    default:
      return unknown("ip_families", from.ip_families());
  }
  switch (from.visibility()) {
    case wds::VISIBILITY_PUBLIC:
      break;
    case wds::VISIBILITY_NAMESPACE:
      out.visibility = state::Visibility::kNamespace;
      break;
    default:
      return unknown("visibility", from.visibility());
  }
  if (!from.has_load_balancing()) return {};
  auto balancer = to_load_balancer(from.load_balancing());
  if (!balancer) return Failure(balancer.error());
  out.load_balancer = std::move(*balancer);
  return {};
}

}  // namespace

Result<IpAddress> to_ip(std::string_view bytes) {
  const auto address = IpAddress::from_bytes(std::as_bytes(std::span(bytes)));
  if (!address.valid())
    return fail(ErrorCode::kInvalid, std::to_string(bytes.size()) + " bytes: expected an address of 4 or 16");
  return address;
}

Result<state::Workload> to_workload(const wds::Workload& from) {
  state::Workload out;
  if (auto read = read_identity(from, out); !read) return Failure(read.error());
  read_texts(from, out);
  if (auto read = read_addresses(from, out); !read) return Failure(read.error());
  if (auto read = read_enums(from, out); !read) return Failure(read.error());
  if (auto read = read_application_tunnel(from, out); !read) return Failure(read.error());
  if (auto read = read_gateways(from, out); !read) return Failure(read.error());
  if (auto read = read_memberships(from, out); !read) return Failure(read.error());
  return out;
}

Result<state::Service> to_service(const wds::Service& from) {
  state::Service out;
  auto in = to_name("namespace", from.namespace_());
  if (!in) return Failure(in.error());
  auto hostname = to_name("hostname", from.hostname());
  if (!hostname) return Failure(hostname.error());
  out.name = from.name();
  out.namespace_name = std::move(*in);
  out.hostname = std::move(*hostname);
  out.canonical = from.canonical();
  out.ingress_use_waypoint = from.ingress_use_waypoint();
  // SANs of other forms than SPIFFE's match no peer of the mesh, and are none the worse for it.
  out.subject_alt_names.assign(from.subject_alt_names().begin(), from.subject_alt_names().end());
  auto ports = to_ports("ports", from.ports(), 0);
  if (!ports) return Failure(ports.error());
  out.ports = std::move(*ports);
  if (auto read = read_vips(from, out); !read) return Failure(read.error());
  if (auto read = read_waypoints(from, out); !read) return Failure(read.error());
  if (auto read = read_enums(from, out); !read) return Failure(read.error());
  return out;
}

}  // namespace weft::control
