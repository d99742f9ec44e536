// SPDX-License-Identifier: Apache-2.0
#include "agent/control/local_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::control {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using namespace weft::state;  // NOLINT: the test is about its types

StateInput parsed(const std::string& text) {
  auto result = parse_local_config("weft.yaml", text);
  if (!result) {
    ADD_FAILURE() << result.error().message();
    return {};
  }
  return std::move(*result);
}

std::string error_of(const std::string& text) {
  const auto result = parse_local_config("weft.yaml", text);
  if (result) return "accepted";
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  return result.error().message();
}

/// The error of a workload that is right but for `fields` (one or more lines of `name: value`).
std::string workload_error(const std::string& fields) {
  return error_of(
      "workloads:\n- {name: a, namespace: ns, workloadIps: [10.0.0.1]}\n- name: b\n  namespace: ns\n  workloadIps: "
      "[10.0.0.2]\n  " +
      fields + "\n");
}
std::string service_error(const std::string& fields) {
  return error_of("services:\n- name: web\n  namespace: ns\n  hostname: web.test\n  ports: {80: 8080}\n  " + fields +
                  "\n");
}
std::string match_error(const std::string& fields) {
  return error_of("policies:\n- name: p\n  namespace: ns\n  scope: Global\n  action: Deny\n  rules:\n  - - - " +
                  fields + "\n");
}

// ---- what is read

TEST(LocalConfig, EveryFieldOfAWorkload) {
  const auto input = parsed(R"(
workloads:
- uid: cluster1//v1/Pod/default/local
  name: local
  namespace: default
  workloadIps: ["127.0.0.1", "2001:db8::1"]
  waypoint: {destination: default/wp.example, hboneMtlsPort: 15009}
  networkGateway: {destination: net/10.0.0.9}
  protocol: HBONE
  networkMode: HostNetwork
  trustDomain: td
  serviceAccount: sa
  network: net
  workloadName: wn
  workloadType: deployment
  canonicalName: cn
  canonicalRevision: v2
  hostname: example.com
  node: node-1
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY, port: 15088}
  authorizationPolicies: [default/p1, default/p2]
  status: Unhealthy
  clusterId: cluster1
  locality: {region: r, zone: z, subzone: s}
  capacity: 7
  services:
    "default/example.com": {80: 8080, 443: 8443}
)");
  ASSERT_EQ(input.workloads.size(), 1U);
  const Workload& w = input.workloads[0];
  EXPECT_EQ(w.uid, "cluster1//v1/Pod/default/local");
  EXPECT_EQ(w.name, "local");
  EXPECT_EQ(w.namespace_name, "default");
  ASSERT_EQ(w.addresses.size(), 2U);
  EXPECT_EQ(w.addresses[1].to_string(), "2001:db8::1");
  EXPECT_EQ(to_string(*w.waypoint), "default/wp.example");
  EXPECT_EQ(w.waypoint->hbone_mtls_port, 15009);
  EXPECT_EQ(to_string(*w.network_gateway), "net/10.0.0.9");
  EXPECT_EQ(w.network_gateway->hbone_mtls_port, 15008);
  EXPECT_EQ(w.protocol, TunnelProtocol::kHbone);
  EXPECT_EQ(w.network_mode, NetworkMode::kHostNetwork);
  EXPECT_EQ(w.identity().to_uri(), "spiffe://td/ns/default/sa/sa");
  EXPECT_EQ(w.network, "net");
  EXPECT_EQ(w.workload_name, "wn");
  EXPECT_EQ(w.workload_type, "deployment");
  EXPECT_EQ(w.canonical_name, "cn");
  EXPECT_EQ(w.canonical_revision, "v2");
  EXPECT_EQ(w.hostname, "example.com");
  EXPECT_EQ(w.node, "node-1");
  EXPECT_TRUE(w.native_tunnel);
  EXPECT_EQ(w.application_tunnel->protocol, ApplicationTunnel::Protocol::kProxy);
  EXPECT_EQ(w.application_tunnel->port, 15088);
  EXPECT_THAT(w.authorization_policies, ElementsAre("default/p1", "default/p2"));
  EXPECT_EQ(w.status, HealthStatus::kUnhealthy);
  EXPECT_EQ(w.cluster_id, "cluster1");
  EXPECT_EQ(w.locality, (Locality{"r", "z", "s"}));
  EXPECT_EQ(w.capacity, 7U);
  EXPECT_THAT(w.services, ElementsAre(Pair("default/example.com", ElementsAre(Pair(80, 8080), Pair(443, 8443)))));
}

TEST(LocalConfig, DefaultsOfAWorkload) {
  const auto input = parsed("workloads: [{name: web-1, namespace: shop, workloadIps: [10.0.0.1]}]");
  ASSERT_EQ(input.workloads.size(), 1U);
  const Workload& w = input.workloads[0];
  EXPECT_EQ(w.uid, "Kubernetes//Pod/shop/web-1");
  EXPECT_EQ(w.identity().to_uri(), "spiffe://cluster.local/ns/shop/sa/default");
  EXPECT_EQ(w.cluster_id, "Kubernetes");
  EXPECT_EQ(w.protocol, TunnelProtocol::kTcp);
  EXPECT_EQ(w.status, HealthStatus::kHealthy);
  EXPECT_EQ(w.capacity, 1U);
  EXPECT_EQ(w.workload_name, "web-1");
  EXPECT_EQ(w.canonical_name, "web-1");
  EXPECT_EQ(w.canonical_revision, "latest");
  EXPECT_THAT(w.services, IsEmpty());
}

TEST(LocalConfig, EveryFieldOfAService) {
  const auto input = parsed(R"(
services:
- name: web
  namespace: shop
  hostname: web.shop.svc.cluster.local
  vips: [/10.96.0.1, "net/2001:db8::1"]
  cidrVips: ["/10.97.0.0/16", {network: net, cidr: 10.98.0.0/16}]
  ports: {80: 8080, 443: 0}
  subjectAltNames: ["spiffe://cluster.local/ns/shop/sa/web"]
  waypoint: {destination: shop/wp.example, hboneMtlsPort: 15008}
  weightedWaypoints:
  - {destination: {destination: shop/wp.example}, weight: 9}
  - {destination: {destination: shop/wp2.example}, weight: 1}
  loadBalancer: {mode: Failover, routingPreferences: [Network, Region, Zone, Subzone, Node, Cluster], healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
)");
  ASSERT_EQ(input.services.size(), 1U);
  const Service& s = input.services[0];
  EXPECT_EQ(s.key(), "shop/web.shop.svc.cluster.local");
  ASSERT_EQ(s.vips.size(), 2U);
  EXPECT_EQ(s.vips[0].network, "");
  EXPECT_EQ(s.vips[0].address.to_string(), "10.96.0.1");
  EXPECT_EQ(s.vips[1].network, "net");
  EXPECT_EQ(s.vips[1].address.to_string(), "2001:db8::1");
  ASSERT_EQ(s.cidr_vips.size(), 2U);
  EXPECT_EQ(s.cidr_vips[0].cidr.to_string(), "10.97.0.0/16");
  EXPECT_EQ(s.cidr_vips[1].network, "net");
  EXPECT_EQ(s.cidr_vips[1].cidr.to_string(), "10.98.0.0/16");
  EXPECT_THAT(s.ports, ElementsAre(Pair(80, 8080), Pair(443, 0)));
  EXPECT_THAT(s.subject_alt_names, ElementsAre("spiffe://cluster.local/ns/shop/sa/web"));
  EXPECT_EQ(to_string(*s.waypoint), "shop/wp.example");
  ASSERT_EQ(s.weighted_waypoints.size(), 2U);
  EXPECT_EQ(s.weighted_waypoints[0].weight, 9U);
  EXPECT_EQ(s.load_balancer->mode, LoadBalancerMode::kFailover);
  EXPECT_EQ(s.load_balancer->routing_preferences.size(), 6U);
  EXPECT_EQ(s.load_balancer->health_policy, HealthPolicy::kAllowAll);
  EXPECT_EQ(s.ip_families, IpFamilies::kDual);
  EXPECT_TRUE(s.canonical);
  EXPECT_EQ(s.visibility, Visibility::kNamespace);
}

TEST(LocalConfig, EndpointsOfAServiceGoToTheWorkloads) {
  const auto input = parsed(R"(
workloads:
- {uid: u1, name: a, namespace: ns, workloadIps: [10.0.0.1]}
- {uid: u2, name: b, namespace: ns, workloadIps: [10.0.0.2], services: {ns/web.test: {80: 9000}}}
services:
- name: web
  namespace: ns
  hostname: web.test
  ports: {80: 0}
  endpoints:
    u1: {workloadUid: u1, port: {80: 8080}, status: Healthy}
    u2: {port: {80: 1, 81: 2}}
)");
  ASSERT_EQ(input.workloads.size(), 2U);
  EXPECT_THAT(input.workloads[0].services, ElementsAre(Pair("ns/web.test", ElementsAre(Pair(80, 8080)))));
  EXPECT_THAT(input.workloads[1].services, ElementsAre(Pair("ns/web.test", ElementsAre(Pair(80, 9000), Pair(81, 2)))));
}

TEST(LocalConfig, StringMatchesWithTagsAsZtunnelReadsThem) {
  const auto input = parsed(R"(
policies:
- name: p
  namespace: ns
  scope: Global
  action: Deny
  dryRun: false
  rules:
  - - - namespaces: [!Exact a, !Prefix "b"]
        principals: [!Suffix c]
        notPrincipals:
        - !Presence []
)");
  ASSERT_EQ(input.policies.size(), 1U);
  const PolicyMatch& m = input.policies[0].rules[0][0][0];
  ASSERT_EQ(m.namespaces.size(), 2U);
  EXPECT_EQ(m.namespaces[0].kind, StringMatch::Kind::kExact);
  EXPECT_EQ(m.namespaces[0].value, "a");
  EXPECT_EQ(m.namespaces[1].kind, StringMatch::Kind::kPrefix);
  EXPECT_EQ(m.namespaces[1].value, "b");
  EXPECT_EQ(m.principals[0].kind, StringMatch::Kind::kSuffix);
  EXPECT_EQ(m.not_principals[0].kind, StringMatch::Kind::kPresence);
}

TEST(LocalConfig, EveryFieldOfAPolicy) {
  const auto input = parsed(R"(
policies:
- name: p
  namespace: ns
  scope: WorkloadSelector
  action: Deny
  dryRun: true
  rules:
  - - - namespaces: [{Exact: a}, {Prefix: b}]
        notNamespaces: [{Suffix: c}]
        principals: [{Presence: []}]
        notPrincipals: [{Exact: td/ns/a/sa/b}]
        serviceAccounts: [{namespace: a, serviceAccount: b}]
        notServiceAccounts: [{namespace: c, serviceAccount: d}]
        sourceIps: [10.0.0.0/8, 1.2.3.4]
        notSourceIps: ["2001:db8::/32"]
        destinationIps: [0.0.0.0/0]
        notDestinationIps: [9.9.9.9/32]
        destinationPorts: [80, 443]
        notDestinationPorts: [9999]
      - {}
    - []
  - []
)");
  ASSERT_EQ(input.policies.size(), 1U);
  const Policy& p = input.policies[0];
  EXPECT_EQ(p.key(), "ns/p");
  EXPECT_EQ(p.scope, PolicyScope::kWorkloadSelector);
  EXPECT_EQ(p.action, PolicyAction::kDeny);
  EXPECT_TRUE(p.dry_run);
  ASSERT_EQ(p.rules.size(), 2U);
  ASSERT_EQ(p.rules[0].size(), 2U);
  ASSERT_EQ(p.rules[0][0].size(), 2U);
  EXPECT_TRUE(p.rules[0][1].empty());
  EXPECT_TRUE(p.rules[1].empty());
  EXPECT_TRUE(p.rules[0][0][1].empty());
  const PolicyMatch& m = p.rules[0][0][0];
  EXPECT_EQ(m.namespaces[0].kind, StringMatch::Kind::kExact);
  EXPECT_EQ(m.namespaces[1].kind, StringMatch::Kind::kPrefix);
  EXPECT_EQ(m.namespaces[1].value, "b");
  EXPECT_EQ(m.not_namespaces[0].kind, StringMatch::Kind::kSuffix);
  EXPECT_EQ(m.principals[0].kind, StringMatch::Kind::kPresence);
  EXPECT_EQ(m.not_principals[0].value, "td/ns/a/sa/b");
  EXPECT_EQ(m.service_accounts[0].service_account, "b");
  EXPECT_EQ(m.not_service_accounts[0].namespace_name, "c");
  EXPECT_EQ(m.source_ips[1].to_string(), "1.2.3.4/32");
  EXPECT_EQ(m.not_source_ips[0].to_string(), "2001:db8::/32");
  EXPECT_EQ(m.destination_ips[0].length, 0);
  EXPECT_EQ(m.not_destination_ips[0].to_string(), "9.9.9.9/32");
  EXPECT_THAT(m.destination_ports, ElementsAre(80, 443));
  EXPECT_THAT(m.not_destination_ports, ElementsAre(9999));
}

TEST(LocalConfig, DryRunDefaultsToFalse) {
  EXPECT_FALSE(
      parsed("policies: [{name: p, namespace: ns, scope: Global, action: Allow, rules: []}]").policies[0].dry_run);
}

TEST(LocalConfig, JsonIsRead) {
  const auto input = parsed(R"({
	"workloads": [
		{"name": "a", "namespace": "ns", "workloadIps": ["10.0.0.1"], "protocol": "HBONE", "capacity": 3,
		 "services": {"ns/web.test": {"80": 8080}}, "nativeTunnel": false, "waypoint": null}
	],
	"policies": []
})");
  ASSERT_EQ(input.workloads.size(), 1U);
  EXPECT_EQ(input.workloads[0].protocol, TunnelProtocol::kHbone);
  EXPECT_EQ(input.workloads[0].capacity, 3U);
  EXPECT_THAT(input.workloads[0].services, ElementsAre(Pair("ns/web.test", ElementsAre(Pair(80, 8080)))));
}

TEST(LocalConfig, NothingInItIsFineWhereItSaysSo) {
  EXPECT_TRUE(parsed("{}").workloads.empty());
  EXPECT_TRUE(parsed("workloads:\nservices:\npolicies:\n").workloads.empty());
}

TEST(LocalConfig, AliasesAreFollowed) {
  const auto input = parsed(R"(
workloads:
- {name: a, namespace: ns, workloadIps: [10.0.0.1], services: &s {ns/web.test: {80: 8080}}}
- {name: b, namespace: ns, workloadIps: [10.0.0.2], services: *s}
)");
  ASSERT_EQ(input.workloads.size(), 2U);
  EXPECT_EQ(input.workloads[0].services, input.workloads[1].services);
}

// ---- what is refused, and in which words

TEST(LocalConfigErrors, Protocol) {
  EXPECT_EQ(workload_error("protocol: Foo"), "weft.yaml:6: workloads[1].protocol: \"Foo\": expected TCP or HBONE");
  EXPECT_EQ(
      workload_error("protocol: LEGACY_ISTIO_MTLS"),
      "weft.yaml:6: workloads[1].protocol: LEGACY_ISTIO_MTLS is a sidecar's own mTLS, which no tunnel can speak for "
      "it: expected TCP or HBONE");
  EXPECT_EQ(workload_error("protocol: [TCP]"), "weft.yaml:6: workloads[1].protocol: a list: expected TCP or HBONE");
}

TEST(LocalConfigErrors, UnknownField) {
  EXPECT_THAT(workload_error("workloadIp: 1.2.3.4"),
              HasSubstr("weft.yaml:6: workloads[1].workloadIp: unknown field: expected one of uid, name, namespace"));
  EXPECT_EQ(error_of("workload: []"),
            "weft.yaml:1: workload: unknown field: expected one of workloads, services, policies");
  EXPECT_THAT(service_error("vip: []"), HasSubstr("weft.yaml:6: services[0].vip: unknown field"));
  EXPECT_EQ(match_error("{port: [80]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].port: unknown field: expected destinationPorts");
  EXPECT_THAT(match_error("{portal: [80]}"), HasSubstr("portal: unknown field: expected one of namespaces, "));
}

TEST(LocalConfigErrors, NamesAreQuotedAndCutAndAProblemIsOneLine) {
  EXPECT_THAT(error_of(R"({"a\nb": 1})"),
              HasSubstr(R"(weft.yaml:1: "a\nb": unknown field: expected one of workloads)"));
  const std::string cut = "weft.yaml:1: \"" + std::string(80, 'k') + "...\": unknown field";
  EXPECT_THAT(error_of("{? " + std::string(5000, 'k') + ": 1}"), HasSubstr(cut));
  const std::string host = "\"a\\nweft.yaml:9: /" + std::string(5000, 'x') + "\"";
  const auto error = error_of("services: [{name: w, namespace: n, hostname: " + host + ", ports: {}}]");
  EXPECT_THAT(error, HasSubstr("services[0].hostname: \"a?weft.yaml:9: /xxx"));
  EXPECT_LT(error.size(), 600U);
}

TEST(LocalConfigErrors, RulesThatNeedAWaypoint) {
  for (const char* field : {"methods", "notMethods", "paths", "not_paths", "hosts", "headers", "requestPrincipals",
                            "request_principals", "notRequestPrincipals", "remoteIpBlocks", "when"}) {
    EXPECT_THAT(match_error(std::string("{") + field + ": [a]}"),
                HasSubstr(std::string("weft.yaml:7: policies[0].rules[0][0][0].") + field +
                          ": an L7 rule, which L4 cannot decide: it needs a waypoint"));
  }
  EXPECT_THAT(match_error("{notPorts: [80], ipBlocks: [1.2.3.4]}"),
              AllOf(HasSubstr("notPorts: unknown field: expected destinationPorts"),
                    HasSubstr("ipBlocks: unknown field: expected sourceIps")));
  const std::string start = "policies:\n- {name: p, namespace: ns, scope: Global, rules: [], ";
  EXPECT_THAT(error_of(start + "action: CUSTOM}"),
              HasSubstr("expected Allow or Deny: what a provider outside decides"));
  EXPECT_THAT(error_of(start + "action: Deny, targetRefs: []}"), HasSubstr("targetRefs: an L7 rule"));
  EXPECT_THAT(error_of(start + "action: Deny, selector: {}}"), HasSubstr("expected scope WorkloadSelector"));
}

TEST(LocalConfigErrors, DuplicateKeys) {
  EXPECT_EQ(workload_error("name: c"), "weft.yaml:6: workloads[1]: the key \"name\" occurs twice");
  EXPECT_EQ(error_of("workloads: []\nworkloads: []\n"), "weft.yaml:2: the key \"workloads\" occurs twice");
  EXPECT_THAT(service_error("endpoints: {u: {}, u: {}}"),
              HasSubstr("services[0].endpoints: the key \"u\" occurs twice"));
  EXPECT_EQ(workload_error("services: {ns/h: {80: 1, 080: 2}}"),
            "weft.yaml:6: workloads[1].services[\"ns/h\"]: port 80 occurs twice");
}

TEST(LocalConfigErrors, MissingFields) {
  EXPECT_EQ(error_of("workloads:\n- {name: a, workloadIps: [10.0.0.1]}\n"),
            "weft.yaml:2: workloads[0].namespace: missing");
  EXPECT_EQ(error_of("workloads:\n- {namespace: ns, workloadIps: [10.0.0.1]}\n"),
            "weft.yaml:2: workloads[0].name: missing: expected name, or uid");
  EXPECT_EQ(
      error_of("workloads:\n- {name: a, namespace: ns}\n"),
      "weft.yaml:2: workloads[0].workloadIps: missing: expected at least one address, or hostname, a name to look "
      "up");
  EXPECT_EQ(error_of("services:\n- {name: a, namespace: ns, hostname: h}\n"),
            "weft.yaml:2: services[0].ports: missing");
  EXPECT_EQ(error_of("policies:\n- {name: a, namespace: ns, scope: Global, action: Deny}\n"),
            "weft.yaml:2: policies[0].rules: missing");
}

TEST(LocalConfigErrors, Values) {
  EXPECT_EQ(workload_error("capacity: -1"),
            "weft.yaml:6: workloads[1].capacity: \"-1\": expected a number from 0 to 4294967295");
  EXPECT_EQ(workload_error("capacity: 4294967296"),
            "weft.yaml:6: workloads[1].capacity: \"4294967296\": expected a number from 0 to 4294967295");
  EXPECT_EQ(workload_error("capacity: \"1\""),
            "weft.yaml:6: workloads[1].capacity: \"1\": expected a number from 0 to 4294967295");
  EXPECT_EQ(workload_error("nativeTunnel: yes"),
            "weft.yaml:6: workloads[1].nativeTunnel: \"yes\": expected true or false");
  EXPECT_EQ(workload_error("status: healthy"),
            "weft.yaml:6: workloads[1].status: \"healthy\": expected Healthy or Unhealthy");
  EXPECT_EQ(workload_error("networkMode: host"),
            "weft.yaml:6: workloads[1].networkMode: \"host\": expected Standard or HostNetwork");
  EXPECT_EQ(workload_error("workloadType: pods"),
            "weft.yaml:6: workloads[1].workloadType: \"pods\": expected pod, deployment, job or cronjob");
  EXPECT_EQ(workload_error("node: [a]"), "weft.yaml:6: workloads[1].node: a list: expected a string");
  EXPECT_EQ(workload_error("locality: here"), "weft.yaml:6: workloads[1].locality: \"here\": expected an object");
  EXPECT_EQ(workload_error("authorizationPolicies: [p]"),
            "weft.yaml:6: workloads[1].authorizationPolicies[0]: \"p\": expected namespace/name of a policy");
  EXPECT_EQ(workload_error("services: {web: {}}"),
            "weft.yaml:6: workloads[1].services[\"web\"]: \"web\": expected namespace/hostname");
  EXPECT_EQ(workload_error("services: {ns/h: {80: 0}}"),
            "weft.yaml:6: workloads[1].services[\"ns/h\"][\"80\"]: \"0\": expected a number from 1 to 65535");
  EXPECT_EQ(workload_error("services: {ns/h: {http: 80}}"),
            "weft.yaml:6: workloads[1].services[\"ns/h\"][\"http\"]: \"http\": expected a number from 1 to 65535");
  EXPECT_EQ(workload_error("waypoint: ns/wp"), "weft.yaml:6: workloads[1].waypoint: \"ns/wp\": expected an object");
  EXPECT_EQ(workload_error("waypoint: {destination: wp}"),
            "weft.yaml:6: workloads[1].waypoint.destination: \"wp\": expected network/address or namespace/hostname");
  EXPECT_EQ(workload_error("applicationTunnel: {protocol: proxy}"),
            "weft.yaml:6: workloads[1].applicationTunnel.protocol: \"proxy\": expected NONE or PROXY");
  EXPECT_THAT(workload_error("serviceAccount: a/b"),
              HasSubstr("do not make an identity: spiffe://cluster.local/ns/ns/sa/a/b"));
  EXPECT_EQ(error_of("workloads:\n- {name: a, namespace: ns, workloadIps: [10.0.0]}\n"),
            "weft.yaml:2: workloads[0].workloadIps[0]: \"10.0.0\": expected an IPv4 or IPv6 address");
  EXPECT_EQ(error_of("workloads:\n- {name: a, namespace: ns, workloadIps: [10.0.0.1, \"::ffff:10.0.0.1\"]}\n"),
            "weft.yaml:2: workloads[0].workloadIps[1]: 10.0.0.1 is listed twice");
  EXPECT_EQ(error_of("workloads: {}"), "weft.yaml:1: workloads: an object: expected a list");
  EXPECT_EQ(error_of("workloads: [a]"), "weft.yaml:1: workloads[0]: \"a\": expected an object");
}

TEST(LocalConfigErrors, ServiceValues) {
  EXPECT_EQ(service_error("vips: [10.96.0.1]"),
            "weft.yaml:6: services[0].vips[0]: \"10.96.0.1\": expected network/address (\"/10.96.0.1\" in the default "
            "network)");
  EXPECT_THAT(service_error("cidrVips: [10.96.0.1]"),
              HasSubstr("weft.yaml:6: services[0].cidrVips[0]: \"10.96.0.1\": expected network/address/length"));
  EXPECT_THAT(service_error("cidrVips: [{network: n, cidr: 10.96.0.0/33}]"),
              HasSubstr("services[0].cidrVips[0].cidr: \"10.96.0.0/33\""));
  EXPECT_EQ(
      service_error("loadBalancer: {mode: Random}"),
      "weft.yaml:6: services[0].loadBalancer.mode: \"Random\": expected Standard, Strict, Failover or Passthrough");
  EXPECT_EQ(service_error("loadBalancer: {routingPreferences: [Rack]}"),
            "weft.yaml:6: services[0].loadBalancer.routingPreferences[0]: \"Rack\": expected Region, Zone, Subzone, "
            "Node, Cluster or Network");
  EXPECT_EQ(service_error("ipFamilies: IPV4"),
            "weft.yaml:6: services[0].ipFamilies: \"IPV4\": expected IPv4, IPv6 or Dual");
  EXPECT_EQ(service_error("subjectAltNames: [web.example]"),
            "weft.yaml:6: services[0].subjectAltNames[0]: \"web.example\": expected "
            "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT");
  EXPECT_EQ(service_error("visibility: Private"),
            "weft.yaml:6: services[0].visibility: \"Private\": expected Public or Namespace");
  EXPECT_EQ(service_error("endpoints: {u9: {}}"),
            "weft.yaml:6: services[0].endpoints[\"u9\"]: \"u9\" is the uid of no workload");
  EXPECT_THAT(service_error("endpoints: {u9: {status: Unhealthy}}"),
              HasSubstr("expected Healthy (what is not is said by the workload's own status)"));
}

TEST(LocalConfigErrors, PolicyValues) {
  EXPECT_EQ(match_error("{principals: [{Equals: x}]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].principals[0]: an object: expected one of {Exact: TEXT}, {Prefix: "
            "TEXT}, {Suffix: TEXT}, {Presence: []}");
  EXPECT_EQ(match_error("{principals: [!Equals x]}"), match_error("{principals: [{Equals: x}]}"));
  EXPECT_THAT(match_error("{principals: [&a !Exact x]}"), HasSubstr("weft.yaml:7: an anchor on a value with the tag"));
  EXPECT_EQ(workload_error("serviceAccount: !Exact x"), workload_error("serviceAccount: {Exact: x}"));
  EXPECT_EQ(match_error("{principals: [td/ns/a/sa/b]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].principals[0]: \"td/ns/a/sa/b\": expected one of {Exact: TEXT}, "
            "{Prefix: TEXT}, {Suffix: TEXT}, {Presence: []}");
  EXPECT_EQ(match_error("{principals: [{Presence: [1]}]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].principals[0].Presence: a list: expected []");
  EXPECT_EQ(match_error("{namespaces: [{Exact: [a]}]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].namespaces[0].Exact: a list: expected a string");
  EXPECT_EQ(match_error("{notPrincipals: [{Exact: \"spiffe://td/ns/a/sa/b\"}]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].notPrincipals[0]: \"spiffe://td/ns/a/sa/b\": expected "
            "TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT without spiffe://");
  EXPECT_EQ(
      match_error("{sourceIps: [10.0.0.0/40]}"),
      "weft.yaml:7: policies[0].rules[0][0][0].sourceIps[0]: \"10.0.0.0/40\": expected an address or address/length");
  EXPECT_EQ(match_error("{destinationPorts: [0]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].destinationPorts[0]: \"0\": expected a number from 1 to 65535");
  EXPECT_EQ(match_error("{serviceAccounts: [{namespace: a}]}"),
            "weft.yaml:7: policies[0].rules[0][0][0].serviceAccounts[0].serviceAccount: missing");
  EXPECT_EQ(error_of("policies: [{name: p, namespace: ns, scope: Cluster, action: Deny, rules: []}]"),
            "weft.yaml:1: policies[0].scope: \"Cluster\": expected Global, Namespace or WorkloadSelector");
  EXPECT_EQ(error_of("policies: [{name: p, namespace: ns, scope: Global, action: DENY, rules: []}]"),
            "weft.yaml:1: policies[0].action: \"DENY\": expected Allow or Deny");
  EXPECT_EQ(error_of("policies: [{name: p, namespace: ns, scope: Global, action: Deny, rules: [[{}]]}]"),
            "weft.yaml:1: policies[0].rules[0][0]: an object: expected a list");
}

TEST(LocalConfigErrors, AllOfOnePassAreListedUpToTen) {
  EXPECT_EQ(workload_error("protocol: X\n  status: Y"),
            "weft.yaml:6: workloads[1].protocol: \"X\": expected TCP or HBONE\n"
            "weft.yaml:7: workloads[1].status: \"Y\": expected Healthy or Unhealthy");
  std::string text = "workloads:\n";
  for (int i = 0; i < 15; ++i) text += "- {name: a, namespace: ns, protocol: X}\n";
  const std::string error = error_of(text);
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 10);
  EXPECT_THAT(error, HasSubstr("\nweft.yaml: and 5 more"));
}

TEST(LocalConfigErrors, NotYaml) {
  EXPECT_THAT(error_of("workloads: [\n"), HasSubstr("weft.yaml:2: not YAML: "));
  EXPECT_THAT(error_of("a: b: c\n"), HasSubstr("weft.yaml:1: not YAML: "));
  EXPECT_EQ(error_of(""), "weft.yaml: empty: expected workloads, services or policies ({} for none)");
  EXPECT_EQ(error_of("# only a comment\n"), "weft.yaml: empty: expected workloads, services or policies ({} for none)");
  EXPECT_EQ(error_of("- a\n"), "weft.yaml:1: a list: expected an object");
  EXPECT_EQ(error_of("{}\n---\n{}\n"), "weft.yaml:2: a second document: expected one");
  EXPECT_EQ(error_of(std::string("workloads: []\n\0junk", 19)), "weft.yaml:2: a control character: expected text");
}

}  // namespace
}  // namespace weft::control
