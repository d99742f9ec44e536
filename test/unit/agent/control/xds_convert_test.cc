// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_convert.h"

#include <gmock/gmock.h>

#include "test/unit/agent/control/xds_fixture.h"

namespace weft::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using namespace test;

constexpr const char* kIdentity = "uid: 'Kubernetes//Pod/shop/web-1' name: 'web-1' namespace: 'shop' ";

state::Workload workload(const std::string& text) {
  auto out = to_workload(wire_workload(kIdentity + text));
  EXPECT_TRUE(out) << out.error().message();
  return out.value_or(state::Workload());
}

std::string workload_error(const std::string& text) {
  const auto out = to_workload(wire_workload(text));
  return out ? "taken" : out.error().message();
}

TEST(XdsWorkload, HasEveryField) {
  const auto w = workload(R"(
    addresses: '\012\000\000\007' addresses: '\012\000\000\007'
    addresses: '\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07'
    hostname: 'web.example.com' network: 'n1' tunnel_protocol: TUNNEL_HBONE native_tunnel: true
    trust_domain: 'td' service_account: 'web' node: 'node-1' cluster_id: 'c1'
    waypoint { hostname { namespace: 'shop' hostname: 'wp.shop.svc.cluster.local' } hbone_mtls_port: 15009 }
    network_gateway { address { network: 'n2' address: '\001\002\003\004' } }
    application_tunnel { protocol: PROTOCOL_PROXY port: 15088 }
    status: STATUS_UNHEALTHY network_mode: MODE_HOST_NETWORK capacity { value: 7 }
    locality { region: 'r' zone: 'z' subzone: 's' }
    authorization_policies: 'shop/deny' authorization_policies: 'shop/allow'
    services { key: 'shop/web.shop.svc.cluster.local'
               value { ports { service_port: 80 target_port: 8080 } ports { service_port: 443 target_port: 8443 } } }
    workload_name: 'web' workload_type: TYPE_DEPLOYMENT canonical_name: 'web-app' canonical_revision: 'v2')");
  EXPECT_EQ(w.uid, "Kubernetes//Pod/shop/web-1");
  EXPECT_EQ(w.name, "web-1");
  EXPECT_EQ(w.namespace_name, "shop");
  EXPECT_THAT(w.addresses, ElementsAre(IpAddress::parse("10.0.0.7").value(), IpAddress::parse("2001:db8::7").value()));
  EXPECT_EQ(w.hostname, "web.example.com");
  EXPECT_EQ(w.network, "n1");
  EXPECT_EQ(w.protocol, state::TunnelProtocol::kHbone);
  EXPECT_TRUE(w.native_tunnel);
  EXPECT_EQ(w.identity().to_uri(), "spiffe://td/ns/shop/sa/web");
  EXPECT_EQ(w.node, "node-1");
  EXPECT_EQ(w.cluster_id, "c1");
  ASSERT_TRUE(w.waypoint && w.network_gateway);
  EXPECT_EQ(state::to_string(*w.waypoint), "shop/wp.shop.svc.cluster.local");
  EXPECT_EQ(w.waypoint->hbone_mtls_port, 15009);
  EXPECT_EQ(state::to_string(*w.network_gateway), "n2/1.2.3.4");
  EXPECT_EQ(w.network_gateway->hbone_mtls_port, 15008);
  ASSERT_TRUE(w.application_tunnel);
  EXPECT_EQ(w.application_tunnel->protocol, state::ApplicationTunnel::Protocol::kProxy);
  EXPECT_EQ(w.application_tunnel->port, 15088);
  EXPECT_EQ(w.status, state::HealthStatus::kUnhealthy);
  EXPECT_EQ(w.network_mode, state::NetworkMode::kHostNetwork);
  EXPECT_EQ(w.capacity, 7U);
  EXPECT_EQ(w.locality, (state::Locality{"r", "z", "s"}));
  EXPECT_THAT(w.authorization_policies, ElementsAre("shop/deny", "shop/allow"));
  EXPECT_THAT(w.services,
              ElementsAre(Pair("shop/web.shop.svc.cluster.local", ElementsAre(Pair(80, 8080), Pair(443, 8443)))));
  EXPECT_EQ(w.workload_name, "web");
  EXPECT_EQ(w.workload_type, "deployment");
  EXPECT_EQ(w.canonical_name, "web-app");
  EXPECT_EQ(w.canonical_revision, "v2");
}

TEST(XdsWorkload, TakesDefaultsForWhatIsNotSaid) {
  const auto w = workload("");
  EXPECT_EQ(w.identity().to_uri(), "spiffe://cluster.local/ns/shop/sa/default");
  EXPECT_EQ(w.cluster_id, "Kubernetes");
  EXPECT_EQ(w.protocol, state::TunnelProtocol::kTcp);
  EXPECT_EQ(w.network_mode, state::NetworkMode::kStandard);
  EXPECT_EQ(w.status, state::HealthStatus::kHealthy);
  EXPECT_EQ(w.capacity, 1U);
  EXPECT_EQ(w.workload_name, "web-1");
  EXPECT_EQ(w.canonical_name, "web-1");
  EXPECT_EQ(w.canonical_revision, "latest");
  EXPECT_FALSE(w.waypoint || w.network_gateway || w.application_tunnel);
  EXPECT_THAT(w.addresses, IsEmpty());
}

TEST(XdsWorkload, KeepsWhatIsSaidToBeZero) {
  const auto w = workload("capacity {} application_tunnel {}");
  EXPECT_EQ(w.capacity, 0U);
  ASSERT_TRUE(w.application_tunnel);
  EXPECT_EQ(w.application_tunnel->protocol, state::ApplicationTunnel::Protocol::kNone);
  EXPECT_FALSE(w.application_tunnel->port);
}

TEST(XdsWorkload, ReachesASidecarWithoutHboneInTheClear) {
  EXPECT_EQ(workload("tunnel_protocol: TUNNEL_SIDECAR_MTLS").protocol, state::TunnelProtocol::kTcp);
}

TEST(XdsWorkload, KnowsEveryType) {
  EXPECT_EQ(workload("workload_type: TYPE_CRONJOB").workload_type, "cronjob");
  EXPECT_EQ(workload("workload_type: TYPE_JOB").workload_type, "job");
  EXPECT_EQ(workload("workload_type: TYPE_POD").workload_type, "pod");
  EXPECT_EQ(workload("workload_type: 9").workload_type, "pod");
}

TEST(XdsWorkload, SaysWhatIsWrong) {
  const std::string id = kIdentity;
  EXPECT_THAT(workload_error("namespace: 'shop'"), HasSubstr("uid: missing"));
  EXPECT_THAT(workload_error("uid: 'u'"), HasSubstr("namespace: missing"));
  EXPECT_THAT(workload_error("uid: 'u' namespace: 'a/b'"), HasSubstr("without a slash"));
  EXPECT_THAT(workload_error(id + "service_account: 'a b'"), HasSubstr("make no identity"));
  EXPECT_THAT(workload_error(id + "addresses: 'abc'"), HasSubstr("addresses: 3 bytes: expected"));
  EXPECT_THAT(workload_error(id + "hostname: 'a b'"), HasSubstr("hostname: \"a b\""));
  EXPECT_THAT(workload_error(id + "tunnel_protocol: 9"), HasSubstr("tunnel_protocol: 9 is unknown"));
  EXPECT_THAT(workload_error(id + "network_mode: 9"), HasSubstr("network_mode: 9 is unknown"));
  EXPECT_THAT(workload_error(id + "status: 9"), HasSubstr("status: 9 is unknown"));
  EXPECT_THAT(workload_error(id + "application_tunnel { protocol: 9 }"), HasSubstr("application_tunnel.protocol: 9"));
  EXPECT_THAT(workload_error(id + "application_tunnel { port: 70000 }"), HasSubstr("application_tunnel.port: 70000"));
  EXPECT_THAT(workload_error(id + "waypoint { hbone_mtls_port: 15008 }"), HasSubstr("waypoint: expected an address"));
  EXPECT_THAT(workload_error(id + "waypoint { address { address: 'a' } }"), HasSubstr("waypoint.address: 1 bytes"));
  EXPECT_THAT(workload_error(id + "waypoint { hostname { namespace: 'n' } }"), HasSubstr("waypoint.hostname: missing"));
  EXPECT_THAT(workload_error(id + "network_gateway { address { address: 'abcd' } hbone_mtls_port: 70000 }"),
              HasSubstr("network_gateway.hbone_mtls_port: 70000"));
  EXPECT_THAT(workload_error(id + "services { key: 'web' value {} }"), HasSubstr("services: \"web\""));
  EXPECT_THAT(workload_error(id + "services { key: 'n/h' value { ports { target_port: 80 } } }"),
              HasSubstr("service_port: 0: expected a port, 1 to"));
  EXPECT_THAT(workload_error(id + "services { key: 'n/h' value { ports { service_port: 80 } } }"),
              HasSubstr("target_port: 0: expected a port, 1 to"));
}

state::Service service(const std::string& text) {
  auto out = to_service(wire_service("name: 'web' namespace: 'shop' hostname: 'web.shop.svc.cluster.local' " + text));
  EXPECT_TRUE(out) << out.error().message();
  return out.value_or(state::Service());
}

std::string service_error(const std::string& text) {
  const auto out = to_service(wire_service(text));
  return out ? "taken" : out.error().message();
}

TEST(XdsService, HasEveryField) {
  const auto s = service(R"(
    addresses { network: 'n1' address: '\012\140\000\001' }
    addresses { address: '\012\140\000\002' length: 32 }
    addresses { network: 'n2' address: '\012\141\002\003' length: 16 }
    ports { service_port: 80 target_port: 8080 } ports { service_port: 443 }
    subject_alt_names: 'spiffe://td/ns/shop/sa/web'
    waypoint { address { address: '\012\000\000\011' } }
    weighted_waypoints { destination { address { address: '\012\000\000\012' } } weight: 90 }
    weighted_waypoints { destination { address { address: '\012\000\000\013' } } weight: 10 }
    load_balancing { mode: MODE_FAILOVER health_policy: HEALTH_ALLOW_ALL
                     routing_preference: SCOPE_NETWORK routing_preference: SCOPE_REGION routing_preference: SCOPE_ZONE
                     routing_preference: SCOPE_SUBZONE routing_preference: SCOPE_NODE routing_preference: SCOPE_CLUSTER }
    ip_families: FAMILIES_DUAL canonical: true ingress_use_waypoint: true visibility: VISIBILITY_NAMESPACE)");
  EXPECT_EQ(s.key(), "shop/web.shop.svc.cluster.local");
  EXPECT_EQ(s.name, "web");
  ASSERT_EQ(s.vips.size(), 2U);
  EXPECT_EQ(s.vips[0], (state::NetworkAddress{"n1", IpAddress::parse("10.96.0.1").value()}));
  EXPECT_EQ(s.vips[1], (state::NetworkAddress{"", IpAddress::parse("10.96.0.2").value()}));
  ASSERT_EQ(s.cidr_vips.size(), 1U);
  EXPECT_EQ(s.cidr_vips[0].network, "n2");
  EXPECT_EQ(s.cidr_vips[0].cidr.to_string(), "10.97.0.0/16");
  EXPECT_THAT(s.ports, ElementsAre(Pair(80, 8080), Pair(443, 0)));
  EXPECT_THAT(s.subject_alt_names, ElementsAre("spiffe://td/ns/shop/sa/web"));
  ASSERT_TRUE(s.waypoint && s.load_balancer && s.ip_families);
  EXPECT_EQ(state::to_string(*s.waypoint), "/10.0.0.9");
  ASSERT_EQ(s.weighted_waypoints.size(), 2U);
  EXPECT_EQ(state::to_string(s.weighted_waypoints[1].waypoint), "/10.0.0.11");
  EXPECT_EQ(s.weighted_waypoints[1].weight, 10U);
  EXPECT_EQ(s.load_balancer->mode, state::LoadBalancerMode::kFailover);
  EXPECT_EQ(s.load_balancer->health_policy, state::HealthPolicy::kAllowAll);
  using Scope = state::LoadBalancerScope;
  EXPECT_THAT(s.load_balancer->routing_preferences, ElementsAre(Scope::kNetwork, Scope::kRegion, Scope::kZone,
                                                                Scope::kSubzone, Scope::kNode, Scope::kCluster));
  EXPECT_EQ(*s.ip_families, state::IpFamilies::kDual);
  EXPECT_TRUE(s.canonical);
  EXPECT_TRUE(s.ingress_use_waypoint);
  EXPECT_EQ(s.visibility, state::Visibility::kNamespace);
}

TEST(XdsService, TakesDefaultsForWhatIsNotSaid) {
  const auto s = service("load_balancing {}");
  EXPECT_FALSE(s.waypoint || s.ip_families || s.canonical || s.ingress_use_waypoint);
  EXPECT_EQ(s.visibility, state::Visibility::kPublic);
  ASSERT_TRUE(s.load_balancer);
  EXPECT_EQ(s.load_balancer->mode, state::LoadBalancerMode::kStandard);
  EXPECT_EQ(s.load_balancer->health_policy, state::HealthPolicy::kOnlyHealthy);
  EXPECT_FALSE(service("").load_balancer);
}

TEST(XdsService, KnowsEveryModeAndFamily) {
  EXPECT_EQ(service("load_balancing { mode: MODE_STRICT }").load_balancer->mode, state::LoadBalancerMode::kStrict);
  EXPECT_EQ(service("load_balancing { mode: MODE_PASSTHROUGH }").load_balancer->mode,
            state::LoadBalancerMode::kPassthrough);
  EXPECT_EQ(service("ip_families: FAMILIES_IPV4").ip_families, state::IpFamilies::kIpv4);
  EXPECT_EQ(service("ip_families: FAMILIES_IPV6").ip_families, state::IpFamilies::kIpv6);
}

TEST(XdsService, SaysWhatIsWrong) {
  const std::string id = "namespace: 'shop' hostname: 'h' ";
  EXPECT_THAT(service_error("hostname: 'h'"), HasSubstr("namespace: missing"));
  EXPECT_THAT(service_error("namespace: 'n'"), HasSubstr("hostname: missing"));
  EXPECT_THAT(service_error("namespace: 'n' hostname: 'a/b'"), HasSubstr("without a slash"));
  EXPECT_THAT(service_error(id + "addresses { address: 'ab' }"), HasSubstr("addresses: 2 bytes"));
  EXPECT_THAT(service_error(id + "addresses { address: 'abcd' length: 33 }"), HasSubstr("33: expected at most 32"));
  EXPECT_THAT(service_error(id + "ports { service_port: 70000 }"), HasSubstr("service_port: 70000"));
  EXPECT_THAT(service_error(id + "ports { service_port: 1 target_port: 70000 }"), HasSubstr("target_port: 70000"));
  EXPECT_THAT(service_error(id + "waypoint {}"), HasSubstr("waypoint: expected"));
  EXPECT_THAT(service_error(id + "weighted_waypoints {}"), HasSubstr("weighted_waypoints.destination: expected"));
  EXPECT_THAT(service_error(id + "load_balancing { mode: 9 }"), HasSubstr("load_balancing.mode: 9"));
  EXPECT_THAT(service_error(id + "load_balancing { health_policy: 9 }"), HasSubstr("health_policy: 9"));
  EXPECT_THAT(service_error(id + "load_balancing { routing_preference: 0 }"), HasSubstr("routing_preference: 0"));
  EXPECT_THAT(service_error(id + "ip_families: 9"), HasSubstr("ip_families: 9"));
  EXPECT_THAT(service_error(id + "visibility: 9"), HasSubstr("visibility: 9"));
}

const std::string kDeny = "name: 'deny' namespace: 'shop' scope: SCOPE_NAMESPACE action: ACTION_DENY ";

std::string in_match(const std::string& text) { return kDeny + "groups { rules { matches { " + text + " } } }"; }

std::string policy_error(const std::string& text) {
  const auto out = to_policy(wire_policy(text));
  return out ? "taken" : out.error().message();
}

TEST(XdsPolicy, HasEveryField) {
  using Kind = state::StringMatch::Kind;
  const auto p = to_policy(wire_policy(R"(
    name: 'p' namespace: 'shop' scope: SCOPE_WORKLOAD_SELECTOR action: ACTION_DENY dry_run: true
    groups { rules { matches {
      namespaces { exact: 'a' } not_namespaces { prefix: 'b' }
      principals { suffix: 'c' } not_principals { presence {} }
      service_accounts { namespace: 'n1' service_account: 'd' } not_service_accounts { namespace: 'n2' service_account: 'e' }
      source_ips { address: '\012\001\000\000' length: 16 } not_source_ips { address: '\012\002\000\001' length: 32 }
      destination_ips { address: '\012\003\000\001' length: 32 } not_destination_ips { address: '\012\004\000\000' }
      destination_ports: 80 not_destination_ports: 443 } matches {} } rules {} }
    groups {})"));
  ASSERT_TRUE(p) << p.error().message();
  EXPECT_EQ(p->key(), "shop/p");
  EXPECT_EQ(p->scope, state::PolicyScope::kWorkloadSelector);
  EXPECT_EQ(p->action, state::PolicyAction::kDeny);
  EXPECT_TRUE(p->dry_run);
  ASSERT_EQ(p->rules.size(), 2U);
  ASSERT_EQ(p->rules[0].size(), 2U);
  ASSERT_EQ(p->rules[0][0].size(), 2U);
  EXPECT_THAT(p->rules[0][1], IsEmpty());
  EXPECT_THAT(p->rules[1], IsEmpty());
  const auto& match = p->rules[0][0][0];
  EXPECT_THAT(match.namespaces, ElementsAre(state::StringMatch{Kind::kExact, "a"}));
  EXPECT_THAT(match.not_namespaces, ElementsAre(state::StringMatch{Kind::kPrefix, "b"}));
  EXPECT_THAT(match.principals, ElementsAre(state::StringMatch{Kind::kSuffix, "c"}));
  EXPECT_THAT(match.not_principals, ElementsAre(state::StringMatch{Kind::kPresence, ""}));
  EXPECT_THAT(match.service_accounts, ElementsAre(state::ServiceAccountMatch{"n1", "d"}));
  EXPECT_THAT(match.not_service_accounts, ElementsAre(state::ServiceAccountMatch{"n2", "e"}));
  EXPECT_EQ(match.source_ips.at(0).to_string(), "10.1.0.0/16");
  EXPECT_EQ(match.not_source_ips.at(0).to_string(), "10.2.0.1/32");
  EXPECT_EQ(match.destination_ips.at(0).to_string(), "10.3.0.1/32");
  EXPECT_EQ(match.not_destination_ips.at(0).to_string(), "0.0.0.0/0");
  EXPECT_THAT(match.destination_ports, ElementsAre(80));
  EXPECT_THAT(match.not_destination_ports, ElementsAre(443));
  EXPECT_TRUE(p->rules[0][0][1].empty());
}

TEST(XdsPolicy, KnowsEveryScopeAndAction) {
  EXPECT_EQ(to_policy(wire_policy("name: 'p' namespace: 'n'"))->scope, state::PolicyScope::kGlobal);
  EXPECT_EQ(to_policy(wire_policy("name: 'p' namespace: 'n'"))->action, state::PolicyAction::kAllow);
  EXPECT_EQ(to_policy(wire_policy(kDeny))->scope, state::PolicyScope::kNamespace);
}

TEST(XdsPolicy, SaysWhatIsWrong) {
  EXPECT_THAT(policy_error("namespace: 'n'"), HasSubstr("name: missing"));
  EXPECT_THAT(policy_error("name: 'p'"), HasSubstr("namespace: missing"));
  EXPECT_THAT(policy_error("name: 'a/b' namespace: 'n'"), HasSubstr("without a slash"));
  EXPECT_THAT(policy_error("name: 'p' namespace: 'n' scope: 9"), HasSubstr("scope: 9 is unknown"));
  EXPECT_THAT(policy_error("name: 'p' namespace: 'n' action: 9"), HasSubstr("action: 9 is unknown"));
  for (const std::string field : {"namespaces", "not_namespaces", "principals", "not_principals"})
    EXPECT_THAT(policy_error(in_match(field + " {}")), HasSubstr(field + ": expected exact"));
  for (const std::string field : {"source_ips", "not_source_ips", "destination_ips", "not_destination_ips"}) {
    EXPECT_THAT(policy_error(in_match(field + " {}")), HasSubstr(field + ": 0 bytes"));
    EXPECT_THAT(policy_error(in_match(field + " { address: 'abcd' length: 33 }")), HasSubstr(field + ": length 33"));
  }
  for (const std::string field : {"destination_ports", "not_destination_ports"})
    EXPECT_THAT(policy_error(in_match(field + ": 65536")), HasSubstr(field + ": 65536"));
  for (const std::string field : {"service_accounts", "not_service_accounts"})
    EXPECT_THAT(policy_error(in_match(field + " { namespace: 'n' }")), HasSubstr(field + ": expected a namespace"));
}

TEST(XdsPolicy, ThatCannotBeReadIsClosedWhereItApplies) {
  const auto deny = closed_policy(wire_policy(in_match("principals {}")));
  ASSERT_TRUE(deny);
  EXPECT_EQ(deny->action, state::PolicyAction::kDeny);
  EXPECT_EQ(deny->scope, state::PolicyScope::kNamespace);
  auto web = workload("addresses: '\\012\\000\\000\\007'");
  const auto mesh = state::State::build({{web}, {}, {*deny}});
  ASSERT_TRUE(mesh);
  EXPECT_FALSE(state::evaluate(**mesh, web, {}).allowed);
  const auto allow = closed_policy(wire_policy("name: 'p' namespace: 'shop' scope: SCOPE_GLOBAL action: ACTION_ALLOW"));
  ASSERT_TRUE(allow);
  EXPECT_EQ(allow->action, state::PolicyAction::kDeny);
  EXPECT_EQ(allow->scope, state::PolicyScope::kGlobal);
  EXPECT_FALSE(closed_policy(wire_policy(kDeny + "dry_run: true")));
  EXPECT_FALSE(closed_policy(wire_policy("name: 'p' namespace: 'n' scope: SCOPE_WORKLOAD_SELECTOR")));
  EXPECT_FALSE(closed_policy(wire_policy("name: 'p' namespace: 'n' action: 9")));
}

}  // namespace
}  // namespace weft::control
