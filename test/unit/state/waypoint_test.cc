// SPDX-License-Identifier: Apache-2.0
/// Connections that go through a waypoint: to which, by which of its endpoints, for whom, and when they fail.
#include "tunnel/state/waypoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using Kind = Destination::Kind;

constexpr const char* kVip = "10.1.0.1:80";

GatewayAddress by_name(const std::string& hostname, const std::string& namespace_name = "ns") {
  return {NamespacedHostname{namespace_name, hostname}};
}
GatewayAddress by_address(const std::string& address, const std::string& network = "") {
  return {NetworkAddress{network, ip(address)}};
}

/// Namespace ns has a client, a service web.test over web (whose waypoint a test sets), and the waypoint services
/// wp.test over wp1 and wp2, and canary.test over wp3.
class WaypointRoute : public ::testing::Test {
 protected:
  WaypointRoute() {
    web_service_ = service("web.test", {"10.1.0.1", "2001:db8:1::1"});
    wp_service_ = service("wp.test", {"10.1.0.2"}, {{15008, 15008}});
    canary_service_ = service("canary.test", {"10.1.0.3"}, {{15008, 15008}});
  }
  Destination route(const std::string& to, std::uint64_t random = 0, const char* from = "client",
                    const Workload* avoid = nullptr) {
    make();
    return routed(to, random, from, avoid);
  }
  /// The same in the mesh as it was made last.
  Destination routed(const std::string& to, std::uint64_t random = 0, const char* from = "client",
                     const Workload* avoid = nullptr) {
    return state_->route(*state_->workload_by_pod("ns", from), at(to), random, avoid);
  }
  void make() { state_ = build({client_, web_, wp1_, wp2_, wp3_}, {web_service_, wp_service_, canary_service_}); }
  /// How often each workload is chosen over random = 0 … draws - 1.
  std::map<std::string, int> spread(std::uint64_t draws) {
    make();
    std::map<std::string, int> out;
    for (std::uint64_t random = 0; random < draws; ++random) ++out[name_of(routed(kVip, random).workload)];
    return out;
  }

  Workload client_ = pod("client", {"10.0.0.100", "2001:db8::100"});
  Workload web_ = serving(pod("web", {"10.0.0.1", "2001:db8::1"}), "web.test");
  Workload wp1_ = serving(pod("wp1", {"10.0.0.51", "2001:db8::51"}), "wp.test");
  Workload wp2_ = serving(pod("wp2", {"10.0.0.52"}), "wp.test");
  Workload wp3_ = serving(pod("wp3", {"10.0.0.53"}), "canary.test");
  Service web_service_, wp_service_, canary_service_;
  std::shared_ptr<const State> state_;
};

// ---- by which way

TEST_F(WaypointRoute, AServicesConnectionGoesToItAndAsksForTheVip) {
  web_service_.waypoint = by_name("wp.test");
  const auto to = route(kVip);
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), kVip);
  EXPECT_EQ(to.hbone.to_string(), "10.0.0.51:15008");
  EXPECT_EQ(name_of(to.workload), "wp1");
  EXPECT_EQ(to.service->hostname, "web.test");
  EXPECT_EQ(to.waypoint, by_name("wp.test"));
  EXPECT_THAT(to.expected_identities, ElementsAre(Identity{"cluster.local", "ns", "wp1-sa"}));
  EXPECT_THAT(to.expected_sans, IsEmpty());
}

TEST_F(WaypointRoute, ThePortThatTheClientDialledIsAskedForWhicheverTheServiceHas) {
  web_service_.waypoint = by_name("wp.test");
  EXPECT_EQ(route("10.1.0.1:4444").target.to_string(), "10.1.0.1:4444");
}

TEST_F(WaypointRoute, ItsServicesAlternativeNamesCountNotThoseOfTheServiceBehind) {
  web_service_.waypoint = by_name("wp.test");
  web_service_.subject_alt_names = {"spiffe://cluster.local/ns/ns/sa/web"};
  wp_service_.subject_alt_names = {"spiffe://cluster.local/ns/ns/sa/wp"};
  EXPECT_THAT(route(kVip).expected_sans, ElementsAre("spiffe://cluster.local/ns/ns/sa/wp"));
}

TEST_F(WaypointRoute, OfAnotherNamespace) {
  wp_service_.namespace_name = "infra";
  wp1_.services = {{"infra/wp.test", {}}};
  web_service_.waypoint = by_name("wp.test", "infra");
  EXPECT_EQ(name_of(route(kVip).workload), "wp1");
}

TEST_F(WaypointRoute, AnEndpointOfTheFamilyThatWasDialled) {
  web_service_.waypoint = by_name("wp.test");
  EXPECT_EQ(route("[2001:db8:1::1]:80").hbone.to_string(), "[2001:db8::51]:15008");
  // One that has none is reached by what it has.
  EXPECT_EQ(route("[2001:db8:1::1]:80", 1).hbone.to_string(), "10.0.0.52:15008");
}

TEST_F(WaypointRoute, ItsEndpointsTakeTurns) {
  web_service_.waypoint = by_name("wp.test");
  EXPECT_THAT(spread(10), ElementsAre(Pair("wp1", 5), Pair("wp2", 5)));
  wp2_.status = HealthStatus::kUnhealthy;
  EXPECT_THAT(spread(10), ElementsAre(Pair("wp1", 10)));
}

TEST_F(WaypointRoute, AfterAFailureAnotherEndpointOfIt) {
  web_service_.waypoint = by_name("wp.test");
  make();
  for (std::uint64_t random = 0; random < 4; ++random) {
    EXPECT_EQ(name_of(route(kVip, random, "client", &wp1_).workload), "wp2");
  }
  wp2_.status = HealthStatus::kUnhealthy;
  const auto none = route(kVip, 0, "client", &wp1_);
  EXPECT_EQ(none.kind, Kind::kRefused);
  EXPECT_THAT(none.reason, AllOf(HasSubstr("waypoint ns/wp.test: service ns/wp.test has no usable endpoint"),
                                 HasSubstr("1 that has just failed"), HasSubstr("1 unhealthy")));
}

TEST_F(WaypointRoute, ByTheAddressOfAWorkloadOrAVip) {
  web_service_.waypoint = by_address("10.0.0.53");
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.53:15008");
  web_service_.waypoint = by_address("10.1.0.2");
  EXPECT_EQ(name_of(route(kVip, 1).workload), "wp2");
  EXPECT_EQ(route(kVip, 1).hbone.to_string(), "10.0.0.52:15008");
}

TEST_F(WaypointRoute, AnAddressIsDialledWhateverTheClientsFamily) {
  web_service_.waypoint = by_address("10.0.0.51");
  EXPECT_EQ(route("[2001:db8:1::1]:80").hbone.to_string(), "10.0.0.51:15008");
}

TEST_F(WaypointRoute, APortOfItsServiceOrThePortItself) {
  web_service_.waypoint = by_name("wp.test");
  wp1_.protocol = wp2_.protocol = TunnelProtocol::kTcp;
  web_service_.waypoint->hbone_mtls_port = 15010;
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.51:15010");
  wp_service_.ports = {{15010, 15011}};
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.51:15011");
  wp1_.services["ns/wp.test"] = {{15010, 15012}};
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.51:15012");
  wp1_.services["ns/wp.test"] = {{80, 8080}};
  wp_service_.ports = {{80, 8080}};
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.51:15010");
}

TEST_F(WaypointRoute, AnotherPortThanTheNodesLetBy) {
  web_service_.waypoint = by_name("wp.test");
  web_service_.waypoint->hbone_mtls_port = 15010;
  const auto to = route(kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("takes HBONE on port 15010 of Kubernetes//Pod/ns/wp1"));
}

TEST_F(WaypointRoute, OneThatIsAName) {
  wp1_.addresses.clear();
  wp1_.hostname = "wp1.example.com";
  web_service_.waypoint = by_name("wp.test");
  auto to = route(kVip);
  EXPECT_EQ(to.hostname, "wp1.example.com");
  to = state_->resolved(client_, std::move(to), ip("192.0.2.9"), 0);
  EXPECT_EQ(to.hbone.to_string(), "192.0.2.9:15008");
  EXPECT_EQ(to.target.to_string(), kVip);
  EXPECT_THAT(to.hostname, IsEmpty());
}

// ---- the workload's own

TEST_F(WaypointRoute, AWorkloadsOwnIsForWhatIsAddressedToIt) {
  web_.waypoint = by_name("wp.test");
  const auto to = route("10.0.0.1:8080");
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:8080");
  EXPECT_EQ(to.hbone.to_string(), "10.0.0.51:15008");
  EXPECT_EQ(to.service, nullptr);
  const auto by_service = route(kVip);
  EXPECT_EQ(by_service.hbone.to_string(), "10.0.0.1:15008");
  EXPECT_FALSE(by_service.waypoint);
}

TEST_F(WaypointRoute, TheServicesIsUsedForTheServiceAndTheWorkloadsForTheWorkload) {
  web_.waypoint = by_name("wp.test");
  web_service_.waypoint = by_name("canary.test");
  EXPECT_EQ(name_of(route(kVip).workload), "wp3");
  EXPECT_EQ(name_of(route("10.0.0.1:8080").workload), "wp1");
}

TEST_F(WaypointRoute, APlainWorkloadsToo) {
  web_.protocol = TunnelProtocol::kTcp;
  web_.waypoint = by_name("wp.test");
  EXPECT_EQ(route("10.0.0.1:8080").kind, Kind::kHbone);
}

// ---- weights

TEST_F(WaypointRoute, ByWeight) {
  web_service_.waypoint = by_name("wp.test");
  web_service_.weighted_waypoints = {{by_name("wp.test"), 9}, {by_name("canary.test"), 1}};
  EXPECT_THAT(spread(1000), ElementsAre(Pair("wp1", 450), Pair("wp2", 450), Pair("wp3", 100)));
  web_service_.weighted_waypoints[0].weight = 0;
  EXPECT_THAT(spread(10), ElementsAre(Pair("wp3", 10)));
}

TEST_F(WaypointRoute, WithoutAWeightThatCountsTheOneIsUsed) {
  web_service_.weighted_waypoints = {{by_name("canary.test"), 0}};
  web_service_.waypoint = by_name("wp.test");
  EXPECT_EQ(name_of(route(kVip).workload), "wp1");
  web_service_.waypoint.reset();
  const auto to = route(kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_EQ(to.reason, "the waypoints of service ns/web.test all have weight 0");
}

TEST_F(WaypointRoute, TheOtherOnesDoNotStandInForOneThatIsGone) {
  web_service_.weighted_waypoints = {{by_name("gone.test"), 1}, {by_name("canary.test"), 1}};
  EXPECT_EQ(route(kVip, 0).kind, Kind::kRefused);
  EXPECT_EQ(route(kVip, 1).kind, Kind::kHbone);
}

// ---- what the waypoint sends itself

TEST_F(WaypointRoute, ItGoesPastItself) {
  web_.waypoint = by_name("wp.test");
  web_service_.waypoint = by_name("wp.test");
  for (const char* from : {"wp1", "wp2"}) {
    for (const char* to : {kVip, "10.0.0.1:8080"}) {
      const auto routed = route(to, 0, from);
      EXPECT_EQ(name_of(routed.workload), "web") << from << " to " << to;
      EXPECT_FALSE(routed.waypoint);
      EXPECT_EQ(routed.hbone.to_string(), "10.0.0.1:15008");
    }
  }
  EXPECT_EQ(name_of(route(kVip, 0, "wp3").workload), "wp1") << "the waypoint of something else";
}

TEST_F(WaypointRoute, PastItselfAlsoWhenItIsUnhealthyOrGetsNoTraffic) {
  web_service_.weighted_waypoints = {{by_name("wp.test"), 0}, {by_name("canary.test"), 1}};
  wp1_.status = HealthStatus::kUnhealthy;
  EXPECT_EQ(name_of(route(kVip, 0, "wp1").workload), "web");
}

TEST_F(WaypointRoute, PastItselfByAddressToo) {
  web_service_.waypoint = by_address("10.0.0.51");
  EXPECT_EQ(name_of(route(kVip, 0, "wp1").workload), "web");
  EXPECT_EQ(name_of(route(kVip, 0, "wp2").workload), "wp1");
}

TEST_F(WaypointRoute, ItsServiceAccountAloneIsNoWayPast) {
  web_service_.waypoint = by_name("wp.test");
  client_.service_account = wp1_.service_account;
  EXPECT_EQ(name_of(route(kVip).workload), "wp1");
}

// ---- that cannot be found

TEST_F(WaypointRoute, UnknownOnesAreRefusedByName) {
  for (const auto& [waypoint, why] : std::map<std::string, std::pair<GatewayAddress, std::string>>{
           {"a service", {by_name("gone.test"), "waypoint ns/gone.test: there is no such service"}},
           {"an address",
            {by_address("10.0.0.77"), "waypoint /10.0.0.77: no workload and no service has that address"}},
           {"a network", {by_address("10.0.0.51", "far"), "waypoint far/10.0.0.51: no workload and no service"}}}) {
    web_service_.waypoint = web_.waypoint = why.first;
    for (const char* to : {kVip, "10.0.0.1:8080"}) {
      const auto routed = route(to);
      EXPECT_EQ(routed.kind, Kind::kRefused) << waypoint;
      EXPECT_THAT(routed.reason, HasSubstr(why.second)) << waypoint;
    }
  }
}

TEST_F(WaypointRoute, OnAnotherNetworkIsRefused) {
  web_service_.waypoint = by_address("10.0.0.53", "far");
  wp3_.network = "far";
  EXPECT_THAT(route(kVip).reason, HasSubstr("is on network \"far\""));
  web_service_.waypoint = by_name("canary.test");
  EXPECT_THAT(route(kVip).reason, HasSubstr("on network \"far\""));
}

TEST_F(WaypointRoute, BeforePassthrough) {
  web_service_.load_balancer = LoadBalancer{LoadBalancerMode::kPassthrough, {}, HealthPolicy::kAllowAll};
  web_service_.waypoint = by_name("wp.test");
  EXPECT_EQ(route(kVip).hbone.to_string(), "10.0.0.51:15008");
  EXPECT_THAT(route(kVip, 0, "wp1").reason, HasSubstr("is PASSTHROUGH and has a waypoint"));
}

// ---- what a waypoint may be asked for

TEST_F(WaypointRoute, IsAskedForWhatItIsTheWaypointOf) {
  web_service_.waypoint = by_name("wp.test");
  make();
  EXPECT_TRUE(waypoint_target(*state_, wp1_, ip("10.1.0.1")).found);
  EXPECT_EQ(waypoint_target(*state_, wp1_, ip("2001:db8:1::1")).service->hostname, "web.test");
  EXPECT_EQ(waypoint_target(*state_, wp1_, "web.test").service->key(), "ns/web.test");
  EXPECT_FALSE(waypoint_target(*state_, wp3_, ip("10.1.0.1")).found);
  EXPECT_FALSE(waypoint_target(*state_, wp3_, "web.test").found);
  EXPECT_FALSE(waypoint_target(*state_, wp1_, ip("10.1.0.3")).found) << "a service without a waypoint";
  EXPECT_FALSE(waypoint_target(*state_, wp1_, ip("10.0.0.1")).found) << "a workload without a waypoint";
  EXPECT_FALSE(waypoint_target(*state_, wp1_, ip("8.8.8.8")).found);
  EXPECT_FALSE(waypoint_target(*state_, wp1_, "gone.test").found);
  web_.waypoint = by_name("canary.test");
  make();
  EXPECT_TRUE(waypoint_target(*state_, wp3_, ip("10.0.0.1")).found);
  EXPECT_EQ(waypoint_target(*state_, wp3_, ip("10.0.0.1")).service, nullptr);
}

TEST_F(WaypointRoute, OfSeveralServicesWithOneHostnameItsOwnNamespaceGoesFirst) {
  web_service_.waypoint = canary_service_.waypoint = wp_service_.waypoint = by_name("wp.test");
  canary_service_.namespace_name = "a-first";
  wp_service_.namespace_name = "canonical";
  wp_service_.canonical = true;
  canary_service_.hostname = wp_service_.hostname = web_service_.hostname;
  Service waypoint = service("wp.test", {"10.1.0.9"});
  const auto state = build({wp1_}, {canary_service_, wp_service_, web_service_, waypoint});
  EXPECT_EQ(waypoint_target(*state, wp1_, "web.test").service->key(), "ns/web.test");
  wp1_.namespace_name = "elsewhere";
  EXPECT_EQ(waypoint_target(*state, wp1_, "web.test").service->key(), "canonical/web.test");
}

// ---- all that may happen

TEST_F(WaypointRoute, PossibleRoutesAreThoseThatRouteTakesAndAsOften) {
  web_service_.weighted_waypoints = {{by_name("wp.test"), 3}, {by_name("gone.test"), 1}, {by_name("canary.test"), 4}};
  wp2_.capacity = 3;
  make();
  std::map<std::string, int> thousandths;
  for (const auto& choice : possible_routes(*state_, client_, at(kVip))) {
    const auto to = route(kVip, choice.random);
    thousandths[to.kind == Kind::kRefused ? "refused" : name_of(to.workload)] += static_cast<int>(choice.weight);
  }
  EXPECT_THAT(thousandths, ElementsAre(Pair("refused", 125), Pair("wp1", 94), Pair("wp2", 281), Pair("wp3", 500)));
  std::map<std::string, int> drawn;
  for (std::uint64_t random = 0; random < 3200; ++random) {
    const auto to = routed(kVip, random);
    ++drawn[to.kind == Kind::kRefused ? "refused" : name_of(to.workload)];
  }
  EXPECT_THAT(drawn, ElementsAre(Pair("refused", 400), Pair("wp1", 300), Pair("wp2", 900), Pair("wp3", 1600)));
}

TEST_F(WaypointRoute, PossibleRoutesOfOneWaypointHaveItsEndpointsWeights) {
  web_.waypoint = web_service_.waypoint = by_name("wp.test");
  wp2_.capacity = 3;
  make();
  for (const char* to : {kVip, "10.0.0.1:8080"}) {
    const auto routes = possible_routes(*state_, client_, at(to));
    ASSERT_EQ(routes.size(), 2U) << to;
    EXPECT_EQ(routes[0].weight, 1U);
    EXPECT_EQ(routes[1].weight, 3U);
    EXPECT_EQ(name_of(route(to, routes[1].random).workload), "wp2");
  }
}

}  // namespace
}  // namespace weft::state::test
