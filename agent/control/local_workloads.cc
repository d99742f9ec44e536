// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "agent/control/local_parts.h"
#include "tunnel/state/names.h"

namespace weft::control {
namespace {

using state::Workload;

std::vector<IpAddress> read_addresses(Problems& problems, const std::vector<Field>& fields) {
  std::vector<IpAddress> out;
  for (const auto& field : fields) {
    const auto address = IpAddress::parse(read_string(problems, field));
    if (!address || address->is_unspecified()) {
      expected(problems, field, "an IPv4 or IPv6 address");
    } else if (std::ranges::find(out, *address) != out.end()) {
      problems.add(field.node->line, field.name, address->to_string() + " is listed twice");
    } else {
      out.push_back(*address);
    }
  }
  return out;
}

state::TunnelProtocol read_protocol(Problems& problems, const Field& field) {
  if (field.node->kind == YamlNode::Kind::kScalar && field.node->scalar == "LEGACY_ISTIO_MTLS") {
    problems.add(field.node->line, field.name,
                 "LEGACY_ISTIO_MTLS is a sidecar's own mTLS, which no tunnel can speak for it: expected TCP or HBONE");
    return state::TunnelProtocol::kTcp;
  }
  return read_word<state::TunnelProtocol>(
      problems, field, {{"TCP", state::TunnelProtocol::kTcp}, {"HBONE", state::TunnelProtocol::kHbone}});
}

state::ApplicationTunnel read_application_tunnel(Problems& problems, const Field& field) {
  using Protocol = state::ApplicationTunnel::Protocol;
  state::ApplicationTunnel out;
  ObjectReader object(problems, field);
  if (const auto protocol = object.require("protocol")) {
    out.protocol = read_word<Protocol>(problems, *protocol, {{"NONE", Protocol::kNone}, {"PROXY", Protocol::kProxy}});
  }
  if (const auto port = object.find("port")) out.port = read_port(problems, *port);
  object.done();
  return out;
}

state::Locality read_locality(Problems& problems, const Field& field) {
  ObjectReader object(problems, field);
  state::Locality out{object.text("region"), object.text("zone"), object.text("subzone")};
  object.done();
  return out;
}

std::map<std::string, std::map<std::uint16_t, std::uint16_t>> read_services(Problems& problems, const Field& field) {
  std::map<std::string, std::map<std::uint16_t, std::uint16_t>> out;
  for (const auto& [key, value] : read_map(problems, field)) {
    if (!state::NamespacedHostname::parse(key.node->scalar)) expected(problems, key, "namespace/hostname");
    out.emplace(key.node->scalar, read_ports(problems, value, false));
  }
  return out;
}

std::vector<std::string> read_policy_keys(Problems& problems, const std::vector<Field>& fields) {
  std::vector<std::string> out;
  for (const auto& field : fields) {
    out.push_back(read_string(problems, field));
    if (!state::NamespacedHostname::parse(out.back())) expected(problems, field, "namespace/name of a policy");
  }
  return out;
}

void or_default(std::string& value, std::string fallback) {
  if (value.empty()) value = std::move(fallback);
}

void read_routing(ObjectReader& object, Workload& out) {
  Problems& problems = object.problems();
  out.hostname = object.text("hostname");
  if (const auto addresses = object.find("workloadIps")) {
    out.addresses = read_addresses(problems, read_list(problems, *addresses));
  }
  if (const auto protocol = object.find("protocol")) out.protocol = read_protocol(problems, *protocol);
  if (const auto mode = object.find("networkMode")) {
    out.network_mode = read_word<state::NetworkMode>(
        problems, *mode,
        {{"Standard", state::NetworkMode::kStandard}, {"HostNetwork", state::NetworkMode::kHostNetwork}});
  }
  out.network = object.text("network");
  out.node = object.text("node");
  if (const auto native = object.find("nativeTunnel")) out.native_tunnel = read_bool(problems, *native);
  if (const auto waypoint = object.find("waypoint")) out.waypoint = read_gateway(problems, *waypoint);
  if (const auto gateway = object.find("networkGateway")) out.network_gateway = read_gateway(problems, *gateway);
  if (const auto tunnel = object.find("applicationTunnel")) {
    out.application_tunnel = read_application_tunnel(problems, *tunnel);
  }
  if (const auto status = object.find("status")) {
    out.status = read_word<state::HealthStatus>(
        problems, *status,
        {{"Healthy", state::HealthStatus::kHealthy}, {"Unhealthy", state::HealthStatus::kUnhealthy}});
  }
  if (const auto locality = object.find("locality")) out.locality = read_locality(problems, *locality);
  if (const auto capacity = object.find("capacity")) {
    out.capacity = read_number(problems, *capacity, 0, std::numeric_limits<std::uint32_t>::max());
  }
  if (const auto services = object.find("services")) out.services = read_services(problems, *services);
  if (out.addresses.empty() && out.hostname.empty() && !out.network_gateway && problems.none()) {
    problems.add(object.self().node->line, object.self().name + ".workloadIps",
                 "missing: expected at least one address, or hostname, a name to look up");
  }
  // With addresses it is not asked for.
  if (out.addresses.empty() && !out.hostname.empty() && !state::is_host_name(out.hostname)) {
    problems.add(object.self().node->line, object.self().name + ".hostname",
                 "\"" + out.hostname + "\": expected a name that DNS can be asked for, or workloadIps beside it");
  }
}

void read_identity(ObjectReader& object, Workload& out) {
  out.uid = object.text("uid");
  out.name = object.text("name");
  out.namespace_name = read_namespace(object);
  out.cluster_id = object.text("clusterId");
  out.trust_domain = object.text("trustDomain");
  out.service_account = object.text("serviceAccount");
  or_default(out.cluster_id, "Kubernetes");
  or_default(out.trust_domain, "cluster.local");
  or_default(out.service_account, "default");
  if (out.uid.empty() && out.name.empty() && object.is_object()) {
    object.problems().add(object.self().node->line, object.self().name + ".name", "missing: expected name, or uid");
  }
  or_default(out.uid, out.cluster_id + "//Pod/" + out.namespace_name + "/" + out.name);
  // Certificates are asked for, and peers compared, by these: a value that cannot stand in a URI would never match.
  if (object.problems().none() && !state::Identity::parse(out.identity().to_uri())) {
    object.problems().add(
        object.self().node->line, object.self().name,
        "trustDomain, namespace and serviceAccount do not make an identity: " + out.identity().to_uri());
  }
}

void read_telemetry(ObjectReader& object, Workload& out) {
  if (const auto type = object.find("workloadType")) {
    out.workload_type =
        read_word<const char*>(object.problems(), *type,
                               {{"pod", "pod"}, {"deployment", "deployment"}, {"job", "job"}, {"cronjob", "cronjob"}});
  }
  out.workload_name = object.text("workloadName");
  out.canonical_name = object.text("canonicalName");
  out.canonical_revision = object.text("canonicalRevision");
  or_default(out.workload_name, out.name);
  or_default(out.canonical_name, out.workload_name);
  or_default(out.canonical_revision, "latest");
}

}  // namespace

state::Workload read_workload(Problems& problems, const Field& field) {
  Workload out;
  ObjectReader object(problems, field);
  read_identity(object, out);
  read_routing(object, out);
  read_telemetry(object, out);
  out.authorization_policies = read_policy_keys(problems, object.list("authorizationPolicies"));
  object.done();
  return out;
}

}  // namespace weft::control
