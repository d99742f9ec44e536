// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "agent/control/local_parts.h"

namespace weft::control {
namespace {

/// "network/ADDRESS", split at the first slash; nothing where there is none.
std::optional<std::pair<std::string, std::string>> split_network(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  return std::pair(text.substr(0, slash), text.substr(slash + 1));
}

std::optional<state::NetworkAddress> parse_network_address(const std::string& text) {
  const auto parts = split_network(text);
  if (!parts) return std::nullopt;
  const auto address = IpAddress::parse(parts->second);
  if (!address) return std::nullopt;
  return state::NetworkAddress{parts->first, *address};
}

std::vector<state::NetworkAddress> read_vips(Problems& problems, const std::vector<Field>& fields) {
  std::vector<state::NetworkAddress> out;
  for (const auto& field : fields) {
    const auto vip = parse_network_address(read_string(problems, field));
    if (vip) {
      out.push_back(*vip);
    } else {
      expected(problems, field, "network/address (\"/10.96.0.1\" in the default network)");
    }
  }
  return out;
}

/// As "network/address/length", or as ztunnel writes it: {network, cidr}.
std::vector<state::Service::CidrVip> read_cidr_vips(Problems& problems, const std::vector<Field>& fields) {
  std::vector<state::Service::CidrVip> out;
  for (const auto& field : fields) {
    std::pair<std::string, std::string> parts;
    Field where = field;
    if (field.node->kind == YamlNode::Kind::kMap) {
      ObjectReader object(problems, field);
      if (const auto cidr = object.require("cidr")) {
        where = *cidr;
        parts = {object.text("network"), read_string(problems, *cidr)};
      }
      object.done();
    } else if (const auto split = split_network(read_string(problems, field))) {
      parts = *split;
    }
    const auto cidr = Cidr::parse(parts.second);
    if (cidr) {
      out.push_back({parts.first, *cidr});
    } else {
      expected(problems, where, "network/address/length, or {network, cidr}");
    }
  }
  return out;
}

state::LoadBalancer read_load_balancer(Problems& problems, const Field& field) {
  using Mode = state::LoadBalancerMode;
  using Scope = state::LoadBalancerScope;
  state::LoadBalancer out;
  ObjectReader object(problems, field);
  if (const auto mode = object.find("mode")) {
    out.mode = read_word<Mode>(problems, *mode,
                               {{"Standard", Mode::kStandard},
                                {"Strict", Mode::kStrict},
                                {"Failover", Mode::kFailover},
                                {"Passthrough", Mode::kPassthrough}});
  }
  for (const auto& scope : object.list("routingPreferences")) {
    out.routing_preferences.push_back(read_word<Scope>(problems, scope,
                                                       {{"Region", Scope::kRegion},
                                                        {"Zone", Scope::kZone},
                                                        {"Subzone", Scope::kSubzone},
                                                        {"Node", Scope::kNode},
                                                        {"Cluster", Scope::kCluster},
                                                        {"Network", Scope::kNetwork}}));
  }
  if (const auto policy = object.find("healthPolicy")) {
    out.health_policy = read_word<state::HealthPolicy>(
        problems, *policy,
        {{"OnlyHealthy", state::HealthPolicy::kOnlyHealthy}, {"AllowAll", state::HealthPolicy::kAllowAll}});
  }
  object.done();
  return out;
}

std::vector<state::WeightedWaypoint> read_weighted(Problems& problems, const std::vector<Field>& fields) {
  std::vector<state::WeightedWaypoint> out;
  for (const auto& field : fields) {
    ObjectReader object(problems, field);
    const auto destination = object.require("destination");
    const auto weight = object.require("weight");
    if (destination && weight) {
      const auto gateway = read_gateway(problems, *destination);
      const auto number = read_number(problems, *weight, 0, std::numeric_limits<std::uint32_t>::max());
      if (gateway) out.push_back({*gateway, number});
    }
    object.done();
  }
  return out;
}

std::vector<std::string> read_sans(Problems& problems, const std::vector<Field>& fields) {
  std::vector<std::string> out;
  for (const auto& field : fields) {
    out.push_back(read_string(problems, field));
    if (!state::Identity::parse(out.back())) {
      expected(problems, field, "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT");
    }
  }
  return out;
}

std::vector<ServiceWithEndpoints::Listed> read_endpoints(Problems& problems, const Field& field) {
  std::vector<ServiceWithEndpoints::Listed> out;
  for (const auto& [key, value] : read_map(problems, field)) {
    ObjectReader object(problems, value);
    ServiceWithEndpoints::Listed endpoint{object.text("workloadUid"), {}, value};
    if (endpoint.uid.empty()) endpoint.uid = key.node->scalar;
    if (const auto ports = object.find("port")) endpoint.ports = read_ports(problems, *ports, false);
    if (const auto status = object.find("status"); status && read_string(problems, *status) != "Healthy") {
      expected(problems, *status, "Healthy (what is not is said by the workload's own status)");
    }
    object.done();
    out.push_back(std::move(endpoint));
  }
  return out;
}

void read_options(ObjectReader& object, state::Service& out) {
  Problems& problems = object.problems();
  if (const auto waypoint = object.find("waypoint")) out.waypoint = read_gateway(problems, *waypoint);
  out.weighted_waypoints = read_weighted(problems, object.list("weightedWaypoints"));
  if (const auto ingress = object.find("ingressUseWaypoint")) {
    out.ingress_use_waypoint = read_bool(problems, *ingress);
  }
  if (const auto balancer = object.find("loadBalancer")) out.load_balancer = read_load_balancer(problems, *balancer);
  if (const auto families = object.find("ipFamilies")) {
    out.ip_families = read_word<state::IpFamilies>(
        problems, *families,
        {{"IPv4", state::IpFamilies::kIpv4}, {"IPv6", state::IpFamilies::kIpv6}, {"Dual", state::IpFamilies::kDual}});
  }
  if (const auto canonical = object.find("canonical")) out.canonical = read_bool(problems, *canonical);
  if (const auto visibility = object.find("visibility")) {
    out.visibility = read_word<state::Visibility>(
        problems, *visibility, {{"Public", state::Visibility::kPublic}, {"Namespace", state::Visibility::kNamespace}});
  }
}

}  // namespace

std::string read_namespace(ObjectReader& object) {
  std::string value = object.required_text("namespace");
  if (value.find('/') != std::string::npos) {
    object.problems().add(object.self().node->line, object.self().name + ".namespace",
                          "\"" + value + "\": expected a name without a slash");
  }
  return value;
}

std::optional<state::GatewayAddress> read_gateway(Problems& problems, const Field& field) {
  ObjectReader object(problems, field);
  std::optional<state::GatewayAddress> out;
  if (const auto destination = object.require("destination")) {
    const std::string text = read_string(problems, *destination);
    if (const auto address = parse_network_address(text)) {
      out = state::GatewayAddress{*address};
    } else if (const auto name = state::NamespacedHostname::parse(text)) {
      out = state::GatewayAddress{*name};
    } else {
      expected(problems, *destination, "network/address or namespace/hostname");
    }
  }
  if (const auto port = object.find("hboneMtlsPort")) {
    const std::uint16_t number = read_port(problems, *port);
    if (out) out->hbone_mtls_port = number;
  }
  object.done();
  return out;
}

std::map<std::uint16_t, std::uint16_t> read_ports(Problems& problems, const Field& field, bool allow_zero) {
  std::map<std::uint16_t, std::uint16_t> out;
  for (const auto& [key, value] : read_map(problems, field)) {
    const std::uint16_t port = read_port(problems, key);
    if (!out.emplace(port, read_port(problems, value, allow_zero ? 0 : 1)).second) {
      problems.add(key.node->line, field.name, "port " + std::to_string(port) + " occurs twice");
    }
  }
  return out;
}

ServiceWithEndpoints read_service(Problems& problems, const Field& field) {
  ServiceWithEndpoints out;
  ObjectReader object(problems, field);
  out.service.name = object.required_text("name");
  out.service.namespace_name = read_namespace(object);
  out.service.hostname = object.required_text("hostname");
  if (out.service.hostname.find('/') != std::string::npos) {
    problems.add(field.node->line, field.name + ".hostname",
                 "\"" + out.service.hostname + "\": expected a name without a slash");
  }
  out.service.vips = read_vips(problems, object.list("vips"));
  out.service.cidr_vips = read_cidr_vips(problems, object.list("cidrVips"));
  if (const auto ports = object.require("ports")) out.service.ports = read_ports(problems, *ports, true);
  if (const auto endpoints = object.find("endpoints")) out.endpoints = read_endpoints(problems, *endpoints);
  out.service.subject_alt_names = read_sans(problems, object.list("subjectAltNames"));
  read_options(object, out.service);
  object.done();
  return out;
}

}  // namespace weft::control
