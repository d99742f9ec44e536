// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/explain.h"

#include <gmock/gmock.h>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using test::hbone_workload;
using test::ip;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using Outcome = ExplainedOutcome;

PodStatus pod_of(const state::Workload& workload, const std::string& state = "enrolled") {
  PodStatus pod;
  pod.registration.pod_namespace = workload.namespace_name;
  pod.registration.pod_name = workload.name;
  pod.registration.addresses = workload.addresses;
  pod.registration.host_ifindex = 4;
  pod.registration.enrolled = state != "wired";
  if (pod.registration.enrolled) pod.registration.workload_uid = workload.uid;
  pod.state = state;
  pod.inbound = "pass";
  pod.reason = "enrolled as " + workload.uid;
  return pod;
}

/// A mesh with the pods client and web on this node, db on another, and a plain workload; a service over web and db.
class ExplainTest : public ::testing::Test {
 protected:
  ExplainTest() {
    web_.services["shop/web.shop.svc.cluster.local"] = {{80, 8080}};
    db_.services["shop/web.shop.svc.cluster.local"] = {{80, 8080}};
    db_.capacity = 3;
    plain_.protocol = state::TunnelProtocol::kTcp;
    service_.name = "web";
    service_.namespace_name = "shop";
    service_.hostname = "web.shop.svc.cluster.local";
    service_.vips = {{"", ip("10.96.0.1")}, {"", ip("fd96::1")}};
    service_.ports = {{80, 8080}};
    way_.services["shop/way.test"] = {};
    way_service_.name = "way";
    way_service_.namespace_name = "shop";
    way_service_.hostname = "way.test";
    way_service_.ports = {{15008, 15008}};
    pods_ = {pod_of(client_), pod_of(web_)};
  }

  void deny(state::PolicyMatch match) {
    auto policy = test::namespace_policy("deny");
    policy.rules = {{{std::move(match)}}};
    policies_.push_back(std::move(policy));
  }
  void deny_plaintext() {
    state::PolicyMatch match;
    match.not_principals = {{state::StringMatch::Kind::kPresence, ""}};
    deny(match);
  }

  Result<Explanation> ask(std::string_view from, std::string_view to) {
    state_ = state::State::build({{client_, web_, db_, plain_, way_}, {service_, way_service_}, policies_}).value();
    return explain({.state = *state_,
                    .pods = pods_,
                    .node = "n1",
                    .network = "",
                    .egress = egress_,
                    .captures_all = captures_all_},
                   from, to);
  }
  Explanation explained(std::string_view from, std::string_view to) {
    auto said = ask(from, to);
    if (said) return std::move(*said);
    ADD_FAILURE() << said.error().message();
    return {};
  }
  std::string error(std::string_view from, std::string_view to) {
    const auto said = ask(from, to);
    return said ? "explained" : said.error().message();
  }

  state::Workload client_ = hbone_workload("client", {ip("10.0.0.2"), ip("fd00::2")});
  state::Workload web_ = hbone_workload("web", {ip("10.0.0.3"), ip("fd00::3")});
  state::Workload db_ = hbone_workload("db", {ip("10.0.1.4"), ip("fd00:1::4")}, "n2");
  state::Workload plain_ = hbone_workload("plain", {ip("10.0.1.5")}, "n2");
  state::Workload way_ = hbone_workload("way", {ip("10.0.1.9")}, "n2");
  state::Service service_, way_service_;
  std::vector<state::Policy> policies_;
  std::vector<PodStatus> pods_;
  state::EgressPolicy egress_;
  bool captures_all_ = false;
  std::shared_ptr<const state::State> state_;
};

TEST_F(ExplainTest, APodOfTheMeshIsReachedThroughATunnel) {
  const auto said = explained("shop/client", "shop/db:8080");
  EXPECT_TRUE(said.captured);
  EXPECT_EQ(said.source_identity, "spiffe://cluster.local/ns/shop/sa/client-sa");
  EXPECT_EQ(said.source_address, ip("10.0.0.2"));
  ASSERT_EQ(said.endpoints.size(), 1U);
  EXPECT_EQ(said.endpoints[0].workload, "shop/db");
  EXPECT_EQ(said.endpoints[0].target.to_string(), "10.0.1.4:8080");
  EXPECT_EQ(said.endpoints[0].hbone.to_string(), "10.0.1.4:15008");
  EXPECT_TRUE(said.encrypted());
  EXPECT_EQ(said.outcome(), Outcome::kAllowed);
  EXPECT_EQ(explained("10.0.0.2", "[fd00:1::4]:8080").endpoints.at(0).hbone.to_string(), "[fd00:1::4]:15008");
}

TEST_F(ExplainTest, EachEndpointOfAServiceWithItsWeightAndVerdict) {
  state::PolicyMatch match;
  match.destination_ips = {Cidr::parse("10.0.1.0/24").value()};
  deny(match);
  for (const char* name :
       {"10.96.0.1:80", "web.shop.svc.cluster.local:80", "web.shop:80", "web.shop.svc:80", "web:80"}) {
    const auto said = explained("shop/client", name);
    EXPECT_EQ(said.service, "shop/web.shop.svc.cluster.local") << name;
    EXPECT_THAT(
        said.endpoints,
        ElementsAre(AllOf(Field(&ExplainedEndpoint::workload, "shop/db"), Field(&ExplainedEndpoint::weight, 3U),
                          Field(&ExplainedEndpoint::allowed, false), Field(&ExplainedEndpoint::policy, "shop/deny")),
                    AllOf(Field(&ExplainedEndpoint::workload, "shop/web"), Field(&ExplainedEndpoint::weight, 1U),
                          Field(&ExplainedEndpoint::allowed, true))));
    EXPECT_EQ(said.outcome(), Outcome::kMixed);
  }
}

TEST_F(ExplainTest, WhatRouteRefusesIsRefusedInItsWords) {
  EXPECT_EQ(explained("shop/client", "10.96.0.1:81").refusal, "service shop/web.shop.svc.cluster.local has no port 81");
  service_.visibility = state::Visibility::kNamespace;
  client_.namespace_name = "other";
  pods_[0] = pod_of(client_);
  EXPECT_THAT(explained("other/client", "10.96.0.1:80").refusal, HasSubstr("visible in its own namespace only"));
  EXPECT_EQ(explained("other/client", "10.96.0.1:80").outcome(), Outcome::kRefused);
}

TEST_F(ExplainTest, TheTunnelsOwnPortsAndForeignTrustDomainsAreRefused) {
  EXPECT_THAT(explained("shop/client", "shop/db:15001").endpoints.at(0).reason, HasSubstr("the tunnel's own"));
  db_.trust_domain = "elsewhere";
  EXPECT_THAT(explained("shop/client", "shop/db:80").endpoints.at(0).reason, HasSubstr("trust domain is elsewhere"));
}

TEST_F(ExplainTest, WithoutAPodThatServesAWorkloadOfThisNodeNobodyAnswers) {
  pods_ = {pod_of(client_)};
  EXPECT_THAT(explained("shop/client", "shop/web:80").endpoints.at(0).reason,
              HasSubstr("nobody answers on port 15008"));
  pods_ = {pod_of(client_), pod_of(web_, "failed")};
  EXPECT_EQ(explained("shop/client", "shop/web:80").outcome(), Outcome::kRefused);
}

TEST_F(ExplainTest, PlaintextMeetsWhatThePodDoesWithIt) {
  const auto open = explained("10.9.9.9", "shop/web:8080");
  EXPECT_FALSE(open.captured);
  EXPECT_EQ(open.endpoints.at(0).inbound, "pass");
  EXPECT_EQ(open.outcome(), Outcome::kAllowed);
  EXPECT_THAT(explained("10.9.9.9", "shop/web:15008").endpoints.at(0).reason, HasSubstr("begin with TLS"));

  deny_plaintext();
  pods_[1].inbound = "check";
  const auto checked = explained("10.9.9.9", "shop/web:8080");
  EXPECT_EQ(checked.endpoints.at(0).policy, "shop/deny");
  EXPECT_EQ(checked.endpoints.at(0).reason, "denied by shop/deny");
  EXPECT_EQ(checked.outcome(), Outcome::kRefused);
  pods_[1].inbound = "drop";
  EXPECT_THAT(explained("10.9.9.9", "shop/web:8080").endpoints.at(0).reason, HasSubstr("dropped before the agent"));
  // The pod on the other node is not here to be asked: the configuration says what becomes of it.
  EXPECT_EQ(explained("10.9.9.9", "10.0.1.4:80").outcome(), Outcome::kRefused);
  EXPECT_EQ(explained("shop/client", "shop/web:8080").outcome(), Outcome::kAllowed);
}

TEST_F(ExplainTest, APodWithoutListenersTakesNoPlaintextThatMustBeLookedAt) {
  pods_[1] = pod_of(web_, "failed");
  EXPECT_EQ(explained("10.9.9.9", "shop/web:80").outcome(), Outcome::kAllowed);
  pods_[1].inbound = "check";
  EXPECT_THAT(explained("10.9.9.9", "shop/web:80").endpoints.at(0).reason, HasSubstr("no listeners for the pod"));
}

TEST_F(ExplainTest, WhatIsNotOfTheMeshIsLeftAlone) {
  const auto outside = explained("shop/client", "192.0.2.1:443");
  EXPECT_FALSE(outside.captured);
  EXPECT_THAT(outside.capture, HasSubstr("no destination of the mesh"));
  EXPECT_EQ(outside.outcome(), Outcome::kAllowed);
  captures_all_ = true;
  const auto all = explained("shop/client", "192.0.2.1:443");
  EXPECT_TRUE(all.captured);
  EXPECT_EQ(all.endpoints.at(0).target.to_string(), "192.0.2.1:443");
  EXPECT_FALSE(all.encrypted());
}

TEST_F(ExplainTest, WhatTheRegistryDoesNotNameIsRefusedWhereThatIsThePolicy) {
  egress_ = {.registry_only = true, .exempt = {Cidr::parse("198.51.100.0/24").value()}};
  for (const bool all : {false, true}) {
    captures_all_ = all;
    for (const char* to : {"192.0.2.1:443", "169.254.169.254:80"}) {
      const auto outside = explained("shop/client", to);
      EXPECT_TRUE(outside.captured) << to;
      EXPECT_THAT(outside.capture, HasSubstr("is not in the registry: the agent refuses it"));
      EXPECT_EQ(outside.outcome(), Outcome::kRefused);
      EXPECT_THAT(outside.refusal, HasSubstr("is not in the registry, and the outbound traffic policy"));
    }
    for (const char* to : {"198.51.100.1:443", "192.0.2.1:53", "10.0.1.5:80", "10.0.1.4:80", "10.96.0.1:80"}) {
      EXPECT_EQ(explained("shop/client", to).outcome(), Outcome::kAllowed) << to;
    }
  }
  captures_all_ = false;
  EXPECT_FALSE(explained("shop/client", "198.51.100.1:443").captured) << "it is no destination of the mesh either";
  pods_[0] = pod_of(client_, "wired");
  EXPECT_EQ(explained("shop/client", "192.0.2.1:443").outcome(), Outcome::kAllowed) << "a pod outside of the mesh";
}

TEST_F(ExplainTest, OwnAddressesStayInThePod) {
  for (const char* to : {"10.0.0.2:80", "127.0.0.1:15000", "shop/client:80"}) {
    EXPECT_FALSE(explained("shop/client", to).captured) << to;
    EXPECT_EQ(explained("shop/client", to).outcome(), Outcome::kAllowed) << to;
  }
  // Through a VIP it goes by the agent, which dials the pod itself.
  web_.services.clear();
  db_.services.clear();
  client_.services[service_.key()] = {{80, 8080}};
  policies_.push_back(test::namespace_policy("everything"));
  policies_.back().rules = {{}};
  const auto loop = explained("shop/client", "web:80");
  EXPECT_TRUE(loop.captured);
  EXPECT_EQ(loop.outcome(), Outcome::kAllowed);
  EXPECT_THAT(loop.endpoints.at(0).reason, HasSubstr("leads back to the pod itself"));
  EXPECT_FALSE(loop.encrypted());
}

TEST_F(ExplainTest, TheStateOfTheSourcesPodDecidesWhetherItIsCaptured) {
  pods_[0] = pod_of(client_, "failed");
  EXPECT_THAT(explained("shop/client", "shop/db:80").refusal, HasSubstr("are dropped: failed"));
  EXPECT_EQ(explained("shop/client", "192.0.2.1:443").outcome(), Outcome::kAllowed);
  pods_[0] = pod_of(client_, "wired");
  EXPECT_FALSE(explained("shop/client", "shop/db:80").captured);
  pods_[0] = pod_of(client_);
  pods_[0].registration.workload_uid = "gone";
  EXPECT_THAT(explained("shop/client", "shop/db:80").refusal, HasSubstr("gone is not in the configuration"));
  pods_.erase(pods_.begin());
  const auto unwired = explained("shop/client", "shop/db:80");
  EXPECT_FALSE(unwired.captured);
  EXPECT_THAT(unwired.source_state, HasSubstr("no pod of this node is wired as shop/client"));
}

TEST_F(ExplainTest, ASourceOfAnotherNodeIsTakenAtTheConfigurationsWord) {
  const auto said = explained("shop/db", "shop/web:80");
  EXPECT_TRUE(said.captured);
  EXPECT_TRUE(said.encrypted());
  EXPECT_THAT(said.notes, ElementsAre(HasSubstr("not on this node"), HasSubstr("the name also has fd00::3")));
  EXPECT_FALSE(explained("shop/plain", "shop/web:80").captured);
}

TEST_F(ExplainTest, AServiceThatNobodyOfTheMeshServesIsTheClustersMatter) {
  web_.services.clear();
  db_.services.clear();
  plain_.services[service_.key()] = {{80, 8080}};
  const auto said = explained("shop/client", "web:80");
  EXPECT_FALSE(said.captured);
  EXPECT_EQ(said.endpoints.at(0).target.to_string(), "10.0.1.5:8080");
  EXPECT_EQ(said.outcome(), Outcome::kAllowed);
  EXPECT_THAT(said.notes, ::testing::Contains(HasSubstr("own service proxy answers for 10.96.0.1")));
}

TEST_F(ExplainTest, AHeadlessServiceLeadsToItsEndpointsThemselves) {
  service_.vips.clear();
  const auto said = explained("shop/client", "web:8080");
  ASSERT_EQ(said.endpoints.size(), 2U);
  EXPECT_EQ(said.endpoints[0].target.to_string(), "10.0.1.4:8080");
  EXPECT_EQ(said.endpoints[1].target.to_string(), "10.0.0.3:8080");
  EXPECT_EQ(said.service, service_.key());
  web_.services.clear();
  db_.services.clear();
  EXPECT_THAT(explained("shop/client", "web:8080").refusal, HasSubstr("has no endpoint"));
}

TEST_F(ExplainTest, TheGuardStopsWhatTheAgentWouldDialInTheClear) {
  // A plain workload whose waypoint is passed by through a service of a foreign host.
  plain_.waypoint = state::GatewayAddress{state::NamespacedHostname{"shop", "way"}, 15008};
  plain_.services["shop/api.example.com"] = {{80, 8080}};
  service_.hostname = "api.example.com";
  web_.services.clear();
  db_.services.clear();
  EXPECT_THAT(explained("shop/client", "10.96.0.1:80").endpoints.at(0).reason, HasSubstr("guard drops plaintext"));
}

TEST_F(ExplainTest, AWaypointOfTheServiceIsWhereItGoes) {
  service_.waypoint = state::GatewayAddress{state::NamespacedHostname{"shop", "way.test"}};
  way_.native_tunnel = true;
  const auto said = explained("shop/client", "web:80");
  ASSERT_EQ(said.endpoints.size(), 1U);
  EXPECT_EQ(said.endpoints[0].workload, "shop/way");
  EXPECT_EQ(said.endpoints[0].waypoint, "shop/way.test");
  EXPECT_EQ(said.endpoints[0].target.to_string(), "10.96.0.1:80");
  EXPECT_EQ(said.endpoints[0].hbone.to_string(), "10.0.1.9:15008");
  EXPECT_EQ(said.service, service_.key());
  EXPECT_EQ(said.outcome(), Outcome::kAllowed);
  EXPECT_THAT(said.notes, ::testing::Contains(HasSubstr("those behind it meet the waypoint's identity")));
  const auto past = explained("shop/way", "web:80");
  EXPECT_FALSE(past.captured) << "it is not in the mesh";
}

TEST_F(ExplainTest, AWaypointInTheMeshIsAskedLikeAPodAndSendsPastItself) {
  service_.waypoint = state::GatewayAddress{state::NamespacedHostname{"shop", "way.test"}};
  way_.application_tunnel = state::ApplicationTunnel{state::ApplicationTunnel::Protocol::kProxy, 15088};
  EXPECT_EQ(explained("shop/client", "web:80").outcome(), Outcome::kAllowed);
  EXPECT_THAT(explained("shop/way", "web:80").endpoints, ElementsAre(Field(&ExplainedEndpoint::workload, "shop/db"),
                                                                     Field(&ExplainedEndpoint::workload, "shop/web")));
  state::PolicyMatch tunnel;
  tunnel.destination_ports = {15088};
  tunnel.destination_ips = {Cidr::parse("10.0.1.9/32").value()};
  deny(tunnel);
  const auto said = explained("shop/client", "web:80");
  EXPECT_EQ(said.endpoints.at(0).policy, "shop/deny");
  EXPECT_EQ(said.outcome(), Outcome::kRefused);
}

TEST_F(ExplainTest, OfWeightedWaypointsEachWithItsShareAndTheOneThatIsGone) {
  service_.weighted_waypoints = {{{state::NamespacedHostname{"shop", "gone.test"}}, 1},
                                 {{state::NamespacedHostname{"shop", "way.test"}}, 3}};
  way_.native_tunnel = true;
  const auto said = explained("shop/client", "web:80");
  ASSERT_EQ(said.endpoints.size(), 2U);
  EXPECT_EQ(said.endpoints[0].weight, 250U);
  EXPECT_FALSE(said.endpoints[0].allowed);
  EXPECT_EQ(said.endpoints[0].reason, "waypoint shop/gone.test: there is no such service");
  EXPECT_EQ(said.endpoints[1].weight, 750U);
  EXPECT_TRUE(said.endpoints[1].allowed);
  EXPECT_EQ(said.outcome(), Outcome::kMixed);
  service_.weighted_waypoints.pop_back();
  EXPECT_EQ(explained("shop/client", "web:80").refusal, "waypoint shop/gone.test: there is no such service");
}

TEST_F(ExplainTest, PlaintextIntoAnApplicationTunnelIsRefused) {
  web_.application_tunnel = state::ApplicationTunnel{state::ApplicationTunnel::Protocol::kProxy, 15088};
  pods_[1].inbound = "check";
  EXPECT_EQ(explained("10.9.9.9", "shop/web:15088").outcome(), Outcome::kRefused);
  EXPECT_EQ(explained("10.9.9.9", "shop/web:8080").outcome(), Outcome::kAllowed);
}

TEST_F(ExplainTest, FamiliesMustMeet) {
  client_.addresses = {ip("10.0.0.2")};
  pods_[0] = pod_of(client_);
  EXPECT_EQ(explained("shop/client", "[fd00:1::4]:80").refusal, "the source has no IPv6 address");
  service_.vips = {{"", ip("fd96::1")}};
  EXPECT_EQ(explained("shop/client", "web:80").refusal, "the source has no IPv6 address");
}

TEST_F(ExplainTest, DryRunsAreNamed) {
  deny_plaintext();
  policies_.back().dry_run = true;
  pods_[1].inbound = "check";
  const auto said = explained("10.9.9.9", "shop/web:80");
  EXPECT_EQ(said.outcome(), Outcome::kAllowed);
  EXPECT_THAT(said.endpoints.at(0).dry_runs, ElementsAre("shop/deny"));
}

TEST_F(ExplainTest, SaysWhatItDoesNotUnderstand) {
  EXPECT_THAT(error("client", "shop/web:80"), HasSubstr("expected NAMESPACE/POD or an address"));
  EXPECT_THAT(error("shop/nobody", "shop/web:80"), HasSubstr("no wired pod of this node and no workload"));
  EXPECT_THAT(error("shop/client", "shop/nobody:80"), HasSubstr("no workload and no wired pod"));
  EXPECT_THAT(error("shop/client", "nothing:80"), HasSubstr("no service has that hostname"));
  EXPECT_THAT(error("shop/\x1b[31m", "shop/web:80"), HasSubstr("source \"shop/?[31m\""));
  for (const char* to :
       {"shop/web", "web:", "web:0", "web:65536", "10.0.0.1", "fd00::1", "fd00::1:80:", ":80", "1.2.3.4:0"}) {
    EXPECT_THAT(error("shop/client", to), HasSubstr("destination \"" + std::string(to))) << to;
  }
}

}  // namespace
}  // namespace weft::agent
