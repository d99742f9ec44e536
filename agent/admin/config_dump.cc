// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/config_dump.h"

#include "agent/admin/certificate_dump.h"
#include "tunnel/base/rfc3339.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using namespace state;  // NOLINT(google-build-using-namespace): this file is about its types only

std::string network_address(const std::string& network, const std::string& address) { return network + "/" + address; }

json gateway(const GatewayAddress& address) {
  const auto* exact = std::get_if<NetworkAddress>(&address.destination);
  return {{"destination", exact != nullptr ? network_address(exact->network, exact->address.to_string())
                                           : std::get<NamespacedHostname>(address.destination).to_string()},
          {"hboneMtlsPort", address.hbone_mtls_port}};
}

template <class T>
json texts(const std::vector<T>& values) {
  json list = json::array();
  for (const auto& value : values) list.push_back(value.to_string());
  return list;
}

json ports(const std::map<std::uint16_t, std::uint16_t>& map) {
  json object = json::object();
  for (const auto& [port, target] : map) object[std::to_string(port)] = target;
  return object;
}

const char* name_of(LoadBalancerMode mode) {
  switch (mode) {
    case LoadBalancerMode::kStandard:
      return "Standard";
    case LoadBalancerMode::kStrict:
      return "Strict";
    case LoadBalancerMode::kFailover:
      return "Failover";
    case LoadBalancerMode::kPassthrough:
      return "Passthrough";
  }
  return "Standard";
}

const char* name_of(LoadBalancerScope scope) {
  switch (scope) {
    case LoadBalancerScope::kRegion:
      return "Region";
    case LoadBalancerScope::kZone:
      return "Zone";
    case LoadBalancerScope::kSubzone:
      return "Subzone";
    case LoadBalancerScope::kNode:
      return "Node";
    case LoadBalancerScope::kCluster:
      return "Cluster";
    case LoadBalancerScope::kNetwork:
      return "Network";
  }
  return "Network";
}

const char* name_of(IpFamilies families) {
  if (families == IpFamilies::kIpv4) return "IPv4";
  return families == IpFamilies::kIpv6 ? "IPv6" : "Dual";
}

const char* name_of(PolicyScope scope) {
  if (scope == PolicyScope::kGlobal) return "Global";
  return scope == PolicyScope::kNamespace ? "Namespace" : "WorkloadSelector";
}

json load_balancer(const LoadBalancer& balancer) {
  json scopes = json::array();
  for (const auto scope : balancer.routing_preferences) scopes.push_back(name_of(scope));
  return {{"mode", name_of(balancer.mode)},
          {"routingPreferences", scopes},
          {"healthPolicy", balancer.health_policy == HealthPolicy::kAllowAll ? "AllowAll" : "OnlyHealthy"}};
}

json string_matches(const std::vector<StringMatch>& matches) {
  json list = json::array();
  for (const auto& match : matches) {
    switch (match.kind) {
      case StringMatch::Kind::kExact:
        list.push_back({{"Exact", match.value}});
        break;
      case StringMatch::Kind::kPrefix:
        list.push_back({{"Prefix", match.value}});
        break;
      case StringMatch::Kind::kSuffix:
        list.push_back({{"Suffix", match.value}});
        break;
      case StringMatch::Kind::kPresence:
        list.push_back({{"Presence", json::array()}});
        break;
    }
  }
  return list;
}

json account_matches(const std::vector<ServiceAccountMatch>& matches) {
  json list = json::array();
  for (const auto& match : matches) {
    list.push_back({{"namespace", match.namespace_name}, {"serviceAccount", match.service_account}});
  }
  return list;
}

/// Kinds without values are left out, as in the local format.
json policy_match(const PolicyMatch& match) {
  json object = json::object();
  const auto put = [&object](const char* key, json list) {
    if (!list.empty()) object[key] = std::move(list);
  };
  put("namespaces", string_matches(match.namespaces));
  put("notNamespaces", string_matches(match.not_namespaces));
  put("principals", string_matches(match.principals));
  put("notPrincipals", string_matches(match.not_principals));
  put("serviceAccounts", account_matches(match.service_accounts));
  put("notServiceAccounts", account_matches(match.not_service_accounts));
  put("sourceIps", texts(match.source_ips));
  put("notSourceIps", texts(match.not_source_ips));
  put("destinationIps", texts(match.destination_ips));
  put("notDestinationIps", texts(match.not_destination_ips));
  put("destinationPorts", match.destination_ports);
  put("notDestinationPorts", match.not_destination_ports);
  return object;
}

json connections_of(const std::string& pod, const std::vector<proxy::ConnectionInfo>& connections) {
  json inbound = json::array(), outbound = json::array();
  for (const auto& c : connections) {
    if (c.pod != pod) continue;
    const bool out = c.direction == "outbound" || c.direction == "passthrough";
    const std::string destination = c.destination.to_string();
    (out ? outbound : inbound)
        .push_back(
            {{"src", c.source.to_string()},
             {"originalDst", destination},
             {"actualDst", c.hbone.address.valid() ? c.hbone.to_string() : destination},
             {"protocol", c.direction.starts_with("inbound-") || c.direction == "passthrough" ? "TCP" : "HBONE"}});
  }
  return {{"inbound", inbound}, {"outbound", outbound}};
}

}  // namespace

json to_json(const Workload& w) {
  json services = json::object();
  for (const auto& [key, map] : w.services) services[key] = ports(map);
  json object = {
      {"uid", w.uid},
      {"name", w.name},
      {"namespace", w.namespace_name},
      {"workloadIps", texts(w.addresses)},
      {"network", w.network},
      {"protocol", w.protocol == TunnelProtocol::kHbone ? "HBONE" : "TCP"},
      {"networkMode", w.network_mode == NetworkMode::kHostNetwork ? "HostNetwork" : "Standard"},
      {"nativeTunnel", w.native_tunnel},
      {"trustDomain", w.trust_domain},
      {"serviceAccount", w.service_account},
      {"node", w.node},
      {"clusterId", w.cluster_id},
      {"hostname", w.hostname},
      {"status", w.status == HealthStatus::kUnhealthy ? "Unhealthy" : "Healthy"},
      {"locality", {{"region", w.locality.region}, {"zone", w.locality.zone}, {"subzone", w.locality.subzone}}},
      {"capacity", w.capacity},
      {"authorizationPolicies", w.authorization_policies},
      {"services", services},
      {"workloadName", w.workload_name},
      {"workloadType", w.workload_type},
      {"canonicalName", w.canonical_name},
      {"canonicalRevision", w.canonical_revision}};
  if (w.waypoint) object["waypoint"] = gateway(*w.waypoint);
  if (w.network_gateway) object["networkGateway"] = gateway(*w.network_gateway);
  if (w.application_tunnel) {
    const bool proxy = w.application_tunnel->protocol == ApplicationTunnel::Protocol::kProxy;
    object["applicationTunnel"] = {{"protocol", proxy ? "PROXY" : "NONE"}};
    if (w.application_tunnel->port) object["applicationTunnel"]["port"] = *w.application_tunnel->port;
  }
  return object;
}

json to_json(const Service& s, const std::vector<ServiceEndpoint>& endpoints) {
  json vips = json::array(), cidr_vips = json::array(), ends = json::object();
  for (const auto& vip : s.vips) vips.push_back(network_address(vip.network, vip.address.to_string()));
  for (const auto& vip : s.cidr_vips) cidr_vips.push_back(network_address(vip.network, vip.cidr.to_string()));
  for (const auto& endpoint : endpoints) {
    ends[endpoint.workload->uid] = {{"workloadUid", endpoint.workload->uid}, {"port", ports(*endpoint.ports)}};
  }
  json object = {
      {"name", s.name},           {"namespace", s.namespace_name},
      {"hostname", s.hostname},   {"vips", vips},
      {"cidrVips", cidr_vips},    {"ports", ports(s.ports)},
      {"endpoints", ends},        {"subjectAltNames", s.subject_alt_names},
      {"canonical", s.canonical}, {"visibility", s.visibility == Visibility::kNamespace ? "Namespace" : "Public"}};
  if (s.waypoint) object["waypoint"] = gateway(*s.waypoint);
  for (const auto& weighted : s.weighted_waypoints) {
    object["weightedWaypoints"].push_back({{"destination", gateway(weighted.waypoint)}, {"weight", weighted.weight}});
  }
  if (s.ingress_use_waypoint) object["ingressUseWaypoint"] = true;
  if (s.load_balancer) object["loadBalancer"] = load_balancer(*s.load_balancer);
  if (s.ip_families) object["ipFamilies"] = name_of(*s.ip_families);
  return object;
}

json to_json(const Policy& p) {
  json rules = json::array();
  for (const auto& rule : p.rules) {
    json clauses = json::array();
    for (const auto& clause : rule) {
      json matches = json::array();
      for (const auto& match : clause) matches.push_back(policy_match(match));
      clauses.push_back(std::move(matches));
    }
    rules.push_back(std::move(clauses));
  }
  return {{"name", p.name},
          {"namespace", p.namespace_name},
          {"scope", name_of(p.scope)},
          {"action", p.action == PolicyAction::kDeny ? "Deny" : "Allow"},
          {"dryRun", p.dry_run},
          {"rules", rules}};
}

json to_json(const bpf::PodTraffic& traffic) {
  json drops = json::object();
  for (const auto& drop : traffic.drops) drops[std::string(drop.reason)] = drop.packets;
  return {{"packetsOut", traffic.packets_out}, {"bytesOut", traffic.bytes_out}, {"packetsIn", traffic.packets_in},
          {"bytesIn", traffic.bytes_in},       {"captured", traffic.captured},  {"drops", std::move(drops)}};
}

/// Times that are not known are left out.
json to_json(const agent::PodStatus& pod) {
  const agent::Registration& r = pod.registration;
  json object = {{"namespace", r.pod_namespace},
                 {"name", r.pod_name},
                 {"uid", r.pod_uid},
                 {"containerId", r.key.container_id},
                 {"ifName", r.key.if_name},
                 {"addresses", texts(r.addresses)},
                 {"netns", r.netns_path},
                 {"netnsInode", r.netns_id.inode},
                 {"slot", r.slot},
                 {"guarded", r.host_ifindex != 0},
                 {"state", pod.state},
                 {"enrolled", r.enrolled},
                 {"workloadUid", r.workload_uid},
                 {"identity", pod.identity},
                 {"inboundPlaintext", pod.inbound},
                 {"inboundBypass", r.inbound_bypass()},
                 {"dnsCapture", pod.dns},
                 {"secondary", r.secondary},
                 {"uncapturedInterfaces", pod.observation.uncaptured},
                 {"reroutedInterfaces", pod.observation.rerouted},
                 {"problems", pod.observation.problems},
                 {"captured", r.enrolled},
                 {"reason", pod.reason}};
  const WallTime now = Clock::real().wall_now();
  const auto put_age = [now](json& into, const char* key, WallTime time) {
    into[key] = rfc3339(time);
    into["ageSeconds"] = std::chrono::duration<double>(now - time).count();
  };
  if (r.registered_at != WallTime()) put_age(object, "since", r.registered_at);
  if (pod.observation.at != WallTime()) {
    object["verified"] = {{"by", pod.observation.by}, {"problems", pod.observation.problems}};
    put_age(object["verified"], "at", pod.observation.at);
  }
  if (pod.traffic) object["traffic"] = to_json(*pod.traffic);
  return object;
}

json config_dump(const State* state, const std::vector<std::shared_ptr<const hbone::TlsIdentity>>& certificates,
                 const std::vector<agent::PodStatus>& pods, const std::vector<proxy::ConnectionInfo>& connections) {
  json dump = {{"workloads", json::array()},
               {"services", json::array()},
               {"policies", json::array()},
               {"certificates", json::array()},
               {"workloadState", json::object()}};
  if (state != nullptr) {
    for (const auto& workload : state->workloads()) dump["workloads"].push_back(to_json(*workload));
    for (const auto& service : state->services()) {
      dump["services"].push_back(to_json(*service, state->endpoints(service->key())));
    }
    for (const auto& policy : state->policies()) dump["policies"].push_back(to_json(*policy));
  }
  for (const auto& certificate : certificates) dump["certificates"].push_back(to_json(*certificate));
  for (const auto& pod : pods) {
    const agent::Registration& r = pod.registration;
    if (!r.enrolled || r.workload_uid.empty()) continue;
    json info = {{"name", r.pod_name}, {"namespace", r.pod_namespace}};
    if (auto workload = state != nullptr ? state->workload_by_uid(r.workload_uid) : nullptr) {
      info["serviceAccount"] = workload->service_account;
      info["trustDomain"] = workload->trust_domain;
    }
    dump["workloadState"][r.workload_uid] = {{"state", pod.state == "enrolled" ? "Up" : "Pending"},
                                             {"info", info},
                                             {"connections", connections_of(r.pod(), connections)}};
  }
  return dump;
}

}  // namespace weft::admin
