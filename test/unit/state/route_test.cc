// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "test/unit/state/builders.h"
#include "tunnel/state/balance.h"

namespace weft::state::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using Kind = Destination::Kind;

constexpr const char* kVip = "10.1.0.1:80";

Workload client() {
  Workload out = pod("client", {"10.0.0.100", "2001:db8::100"});
  out.node = "node-1";
  out.locality = {"region-1", "zone-1", "sub-1"};
  return out;
}

/// The route of a connection of client() in a mesh of these objects.
Destination route(std::vector<Workload> workloads, std::vector<Service> services, const std::string& to,
                  std::uint64_t random = 0) {
  workloads.push_back(client());
  const auto state = build(std::move(workloads), std::move(services));
  return state->route(*state->workload_by_pod("ns", "client"), at(to), random);
}

/// How often each endpoint is chosen over random = 0 … draws - 1.
std::map<std::string, int> spread(const std::vector<Workload>& workloads, const Service& service, std::uint64_t draws) {
  std::vector<Workload> all = workloads;
  all.push_back(client());
  const auto state = build(all, {service});
  std::map<std::string, int> out;
  for (std::uint64_t random = 0; random < draws; ++random) {
    ++out[name_of(state->route(*state->workload_by_pod("ns", "client"), at(kVip), random).workload)];
  }
  return out;
}

Workload backend(const std::string& name, const std::string& address) {
  return serving(pod(name, {address}), "web.test");
}
Service web() { return service("web.test", {"10.1.0.1"}); }

// ---- by the original address

TEST(Route, AnUnknownAddressIsNotTheMeshs) {
  const auto to = route({}, {}, "8.8.8.8:53");
  EXPECT_EQ(to.kind, Kind::kUnknown);
  EXPECT_EQ(to.target.to_string(), "8.8.8.8:53");
  EXPECT_EQ(to.workload, nullptr);
  EXPECT_EQ(to.service, nullptr);
}

TEST(Route, AnHbonePodOnAnyPort) {
  for (const char* to_text : {"10.0.0.1:80", "10.0.0.1:5432", "10.0.0.1:15008"}) {
    const auto to = route({pod("a", {"10.0.0.1"})}, {}, to_text);
    EXPECT_EQ(to.kind, Kind::kHbone);
    EXPECT_EQ(to.target.to_string(), to_text);
    EXPECT_EQ(to.hbone.to_string(), "10.0.0.1:15008");
    EXPECT_EQ(name_of(to.workload), "a");
    EXPECT_THAT(to.expected_identities, ElementsAre(Identity{"cluster.local", "ns", "a-sa"}));
    EXPECT_THAT(to.expected_sans, IsEmpty());
  }
}

TEST(Route, AnHbonePodByIpv6) {
  const auto to = route({pod("a", {"10.0.0.1", "2001:db8::1"})}, {}, "[2001:db8::1]:80");
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), "[2001:db8::1]:80");
  EXPECT_EQ(to.hbone.to_string(), "[2001:db8::1]:15008");
}

TEST(Route, APlainPodIsDialledDirectly) {
  const auto to = route({plain_pod("a", {"10.0.0.1"})}, {}, "10.0.0.1:80");
  EXPECT_EQ(to.kind, Kind::kDirect);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:80");
  EXPECT_EQ(name_of(to.workload), "a");
  EXPECT_THAT(to.expected_identities, IsEmpty());
}

TEST(Route, ANativeTunnelIsHbone) {
  Workload native = plain_pod("a", {"10.0.0.1"});
  native.native_tunnel = true;
  EXPECT_EQ(route({native}, {}, "10.0.0.1:80").kind, Kind::kHbone);
}

TEST(Route, AWorkloadsAddressGoesBeforeAVip) {
  const auto to = route({pod("a", {"10.1.0.1"}), backend("b", "10.0.0.2")}, {web()}, kVip);
  EXPECT_EQ(name_of(to.workload), "a");
  EXPECT_EQ(to.service, nullptr);
}

TEST(Route, AHostNetworkWorkloadIsNotFoundByAddress) {
  Workload host = plain_pod("host", {"10.0.0.1"});
  host.network_mode = NetworkMode::kHostNetwork;
  EXPECT_EQ(route({host}, {}, "10.0.0.1:80").kind, Kind::kUnknown);
}

TEST(Route, AHostNetworkEndpointIsReachedThroughItsService) {
  Workload host = serving(plain_pod("host", {"10.0.0.1"}), "web.test");
  Workload neighbour = plain_pod("neighbour", {"10.0.0.1"});
  host.network_mode = neighbour.network_mode = NetworkMode::kHostNetwork;
  const auto to = route({host, neighbour}, {web()}, kVip);
  EXPECT_EQ(to.kind, Kind::kDirect);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:8080");
  EXPECT_EQ(name_of(to.workload), "host");
}

TEST(Route, OwnPortsAreRefusedOnLoopbackOnly) {
  for (const char* port : {"15001", "15006", "15008"}) {
    const auto v4 = route({}, {}, std::string("127.0.0.1:") + port);
    EXPECT_EQ(v4.kind, Kind::kRefused);
    EXPECT_THAT(v4.reason, HasSubstr(port));
    EXPECT_EQ(route({}, {}, std::string("[::1]:") + port).kind, Kind::kRefused);
    EXPECT_EQ(route({}, {}, std::string("127.9.9.9:") + port).kind, Kind::kRefused);
    EXPECT_EQ(route({}, {}, std::string("9.9.9.9:") + port).kind, Kind::kUnknown);
  }
  EXPECT_EQ(route({}, {}, "127.0.0.1:15020").kind, Kind::kUnknown);
}

// ---- services: ports

TEST(RouteService, HboneEndpoint) {
  Service with_sans = web();
  with_sans.subject_alt_names = {"spiffe://cluster.local/ns/ns/sa/alias"};
  const auto to = route({backend("a", "10.0.0.1")}, {with_sans}, kVip);
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:8080");
  EXPECT_EQ(to.hbone.to_string(), "10.0.0.1:15008");
  EXPECT_EQ(to.service->hostname, "web.test");
  EXPECT_THAT(to.expected_identities, ElementsAre(Identity{"cluster.local", "ns", "a-sa"}));
  EXPECT_THAT(to.expected_sans, ElementsAre("spiffe://cluster.local/ns/ns/sa/alias"));
}

TEST(RouteService, AServicesSansDoNotCountWhereTheWorkloadWasDialled) {
  Service with_sans = web();
  with_sans.subject_alt_names = {"spiffe://cluster.local/ns/ns/sa/alias"};
  EXPECT_THAT(route({backend("a", "10.0.0.1")}, {with_sans}, "10.0.0.1:8080").expected_sans, IsEmpty());
}

TEST(RouteService, AnUnknownPortIsRefused) {
  const auto to = route({backend("a", "10.0.0.1")}, {web()}, "10.1.0.1:81");
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_EQ(to.reason, "service ns/web.test has no port 81");
  EXPECT_EQ(to.service->hostname, "web.test");
}

TEST(RouteService, TheEndpointsOwnPortGoesFirst) {
  const auto to = route({serving(pod("a", {"10.0.0.1"}), "web.test", {{80, 9000}})}, {web()}, kVip);
  EXPECT_EQ(to.target.port, 9000);
}

TEST(RouteService, TargetPortZeroAsksTheWorkload) {
  const Service named = service("web.test", {"10.1.0.1"}, {{80, 0}});
  EXPECT_EQ(route({serving(pod("a", {"10.0.0.1"}), "web.test", {{80, 9000}})}, {named}, kVip).target.port, 9000);
}

TEST(RouteService, TargetPortZeroOfAWorkloadThatNamesNoPortsIsTheSamePort) {
  const Service named = service("web.test", {"10.1.0.1"}, {{80, 0}});
  EXPECT_EQ(route({backend("a", "10.0.0.1")}, {named}, kVip).target.port, 80);
}

TEST(RouteService, TargetPortZeroLeavesOutAWorkloadWithoutThePort) {
  const Service named = service("web.test", {"10.1.0.1"}, {{80, 0}, {443, 0}});
  const Workload without = serving(pod("a", {"10.0.0.1"}), "web.test", {{443, 9443}});
  const Workload with = serving(pod("b", {"10.0.0.2"}), "web.test", {{80, 9000}});
  for (const std::uint64_t random : {0U, 1U})
    EXPECT_EQ(name_of(route({without, with}, {named}, kVip, random).workload), "b");
  EXPECT_THAT(route({without}, {named}, kVip).reason, HasSubstr("1 without the port"));
}

TEST(RouteService, ByRange) {
  Service ranged = service("web.test", {});
  ranged.cidr_vips = {{"", range("10.2.0.0/16")}};
  EXPECT_EQ(route({backend("a", "10.0.0.1")}, {ranged}, "10.2.3.4:80").target.to_string(), "10.0.0.1:8080");
}

// ---- services: which endpoint

TEST(RouteBalance, ByCapacity) {
  Workload a = backend("a", "10.0.0.1"), b = backend("b", "10.0.0.2"), c = backend("c", "10.0.0.3");
  b.capacity = 3;
  EXPECT_THAT(spread({a, b, c}, web(), 50), ElementsAre(Pair("a", 10), Pair("b", 30), Pair("c", 10)));
}

/// What explains a choice must be what makes it.
TEST(RouteBalance, PossibleEndpointsAreThoseThatAreChosenAsOftenAsTheyWeigh) {
  Workload a = backend("a", "10.0.0.1"), b = backend("b", "10.0.0.2"), c = backend("c", "10.0.0.3");
  Workload sick = backend("sick", "10.0.0.4"), empty = backend("empty", "10.0.0.5");
  b.capacity = 3;
  c.capacity = 2;
  sick.status = HealthStatus::kUnhealthy;
  empty.capacity = 0;
  const auto state = build({c, sick, a, empty, b}, {web()});
  const Workload source = pod("source", {"10.9.9.9"});
  const auto choices = possible_endpoints(*state, source, *state->services().front(), at(kVip));
  EXPECT_EQ(choices.endpoints.size(), 3U);
  std::uint64_t number = 0;
  for (const auto& choice : choices.endpoints) {
    for (std::uint64_t i = 0; i < choice.weight; ++i) {
      const auto to = state->route(source, at(kVip), number++);
      EXPECT_EQ(to.workload, choice.workload);
      EXPECT_EQ(to.target, choice.target);
    }
  }
  EXPECT_EQ(number, 6U);
  EXPECT_EQ(name_of(state->route(source, at(kVip), number).workload), name_of(choices.endpoints.front().workload));
}

TEST(RouteBalance, WithoutPossibleEndpointsTheReasonIsTheRoutes) {
  Workload sick = backend("sick", "10.0.0.4");
  sick.status = HealthStatus::kUnhealthy;
  const auto state = build({sick}, {web()});
  const Workload source = pod("source", {"10.9.9.9"});
  const auto choices = possible_endpoints(*state, source, *state->services().front(), at(kVip));
  EXPECT_THAT(choices.endpoints, IsEmpty());
  EXPECT_EQ(choices.reason, state->route(source, at(kVip), 0).reason);
}

TEST(RouteBalance, CapacityDoesNotOverflow) {
  Workload a = backend("a", "10.0.0.1"), b = backend("b", "10.0.0.2");
  a.capacity = b.capacity = 0xffffffffU;
  const auto to = route({a, b}, {web()}, kVip, 0x1'0000'0000ULL);
  EXPECT_EQ(name_of(to.workload), "b");
}

TEST(RouteBalance, CapacityZeroGetsNothing) {
  Workload a = backend("a", "10.0.0.1"), b = backend("b", "10.0.0.2");
  a.capacity = 0;
  EXPECT_THAT(spread({a, b}, web(), 10), ElementsAre(Pair("b", 10)));
  const auto to = route({a}, {web()}, kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_EQ(to.reason, "service ns/web.test has no usable endpoint: 1 with capacity 0");
}

TEST(RouteBalance, UnhealthyGetsNothing) {
  Workload a = backend("a", "10.0.0.1"), b = backend("b", "10.0.0.2");
  a.status = HealthStatus::kUnhealthy;
  EXPECT_THAT(spread({a, b}, web(), 10), ElementsAre(Pair("b", 10)));
  EXPECT_EQ(route({a}, {web()}, kVip).reason, "service ns/web.test has no usable endpoint: 1 unhealthy");
}

TEST(RouteBalance, UnhealthyIsUsedWhereAllAreAllowed) {
  Workload a = backend("a", "10.0.0.1");
  a.status = HealthStatus::kUnhealthy;
  Service any = web();
  any.load_balancer = LoadBalancer{LoadBalancerMode::kStandard, {}, HealthPolicy::kAllowAll};
  EXPECT_EQ(route({a}, {any}, kVip).kind, Kind::kHbone);
}

TEST(RouteBalance, WhatHasJustFailedIsLeftOut) {
  const auto state = build({client(), backend("a", "10.0.0.1"), backend("b", "10.0.0.2")}, {web()});
  const auto self = state->workload_by_pod("ns", "client");
  const auto a = state->workload_by_pod("ns", "a");
  for (std::uint64_t random = 0; random < 8; ++random) {
    EXPECT_EQ(name_of(state->route(*self, at(kVip), random, a.get()).workload), "b");
  }
  const auto one = build({client(), backend("a", "10.0.0.1")}, {web()});
  const auto to = one->route(*self, at(kVip), 0, a.get());
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("1 that has just failed"));
  EXPECT_EQ(name_of(one->route(*self, at("10.0.0.1:80"), 0, a.get()).workload), "a") << "it was dialled itself";
}

TEST(RouteBalance, NoEndpointIsRefused) {
  const auto to = route({pod("a", {"10.0.0.1"})}, {web()}, kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_EQ(to.reason, "service ns/web.test has no usable endpoint: it has none at all");
}

TEST(RouteBalance, EndpointWithoutAddressIsLeftOutAndSaid) {
  const Workload nowhere = serving(plain_pod("nowhere", {}), "web.test");
  EXPECT_THAT(route({nowhere}, {web()}, kVip).reason, HasSubstr("1 without an address"));
  EXPECT_EQ(name_of(route({nowhere, backend("a", "10.0.0.1")}, {web()}, kVip).workload), "a");
}

TEST(RouteBalance, TheAddressIsOfTheFamilyThatWasDialled) {
  Service dual = service("web.test", {"10.1.0.1", "2001:db8:1::1"});
  const Workload both = serving(pod("a", {"10.0.0.1", "2001:db8::1"}), "web.test");
  EXPECT_EQ(route({both}, {dual}, kVip).target.to_string(), "10.0.0.1:8080");
  EXPECT_EQ(route({both}, {dual}, "[2001:db8:1::1]:80").target.to_string(), "[2001:db8::1]:8080");
  const Workload v6 = serving(pod("a", {"2001:db8::1"}), "web.test");
  EXPECT_EQ(route({v6}, {dual}, kVip).target.to_string(), "[2001:db8::1]:8080");
  dual.ip_families = IpFamilies::kIpv4;
  EXPECT_EQ(route({v6}, {dual}, kVip).kind, Kind::kRefused);
}

// ---- locality

Workload located(const std::string& name, const std::string& address, Locality locality, const std::string& node) {
  Workload out = backend(name, address);
  out.locality = std::move(locality);
  out.node = node;
  return out;
}
Service web_with(LoadBalancerMode mode, std::vector<LoadBalancerScope> scopes) {
  Service out = web();
  out.load_balancer = LoadBalancer{mode, std::move(scopes), HealthPolicy::kOnlyHealthy};
  return out;
}

TEST(RouteLocality, StrictTakesFullMatchesOnly) {
  const Service local = web_with(LoadBalancerMode::kStrict, {LoadBalancerScope::kNode});
  const Workload here = located("here", "10.0.0.1", {}, "node-1"), there = located("there", "10.0.0.2", {}, "node-2");
  EXPECT_THAT(spread({here, there}, local, 10), ElementsAre(Pair("here", 10)));
  const auto to = route({there}, {local}, kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("1 outside the locality"));
}

TEST(RouteLocality, FailoverTakesTheBestThereAre) {
  const Service near = web_with(LoadBalancerMode::kFailover,
                                {LoadBalancerScope::kNetwork, LoadBalancerScope::kRegion, LoadBalancerScope::kZone});
  const Workload zone = located("zone", "10.0.0.1", {"region-1", "zone-1", ""}, "n");
  const Workload region = located("region", "10.0.0.2", {"region-1", "zone-2", ""}, "n");
  const Workload far = located("far", "10.0.0.3", {"region-2", "zone-1", ""}, "n");
  EXPECT_THAT(spread({zone, region, far}, near, 10), ElementsAre(Pair("zone", 10)));
  EXPECT_THAT(spread({region, far}, near, 10), ElementsAre(Pair("region", 10)));
  EXPECT_THAT(spread({far}, near, 10), ElementsAre(Pair("far", 10)));
}

TEST(RouteLocality, AGapEndsTheRank) {
  // zone-1 of another region is another zone: without its region a zone's name says nothing.
  const Service near = web_with(LoadBalancerMode::kFailover, {LoadBalancerScope::kRegion, LoadBalancerScope::kZone});
  const Workload region = located("region", "10.0.0.1", {"region-1", "zone-2", ""}, "n");
  const Workload same_name = located("same-name", "10.0.0.2", {"region-2", "zone-1", ""}, "n");
  EXPECT_THAT(spread({region, same_name}, near, 10), ElementsAre(Pair("region", 10)));
}

TEST(RouteLocality, AnUnhealthyNeighbourIsPassedOver) {
  const Service near = web_with(LoadBalancerMode::kFailover, {LoadBalancerScope::kNode});
  Workload here = located("here", "10.0.0.1", {}, "node-1");
  here.status = HealthStatus::kUnhealthy;
  EXPECT_THAT(spread({here, located("there", "10.0.0.2", {}, "node-2")}, near, 10), ElementsAre(Pair("there", 10)));
}

TEST(RouteLocality, EveryScope) {
  Workload twin = located("twin", "10.0.0.1", {"region-1", "zone-1", "sub-1"}, "node-1");
  for (const auto scope : {LoadBalancerScope::kRegion, LoadBalancerScope::kZone, LoadBalancerScope::kSubzone,
                           LoadBalancerScope::kNode, LoadBalancerScope::kCluster}) {
    Workload other = twin;
    other.uid = "other";
    other.name = "other";
    other.addresses = {ip("10.0.0.2")};
    if (scope == LoadBalancerScope::kRegion) other.locality.region = "x";
    if (scope == LoadBalancerScope::kZone) other.locality.zone = "x";
    if (scope == LoadBalancerScope::kSubzone) other.locality.subzone = "x";
    if (scope == LoadBalancerScope::kNode) other.node = "x";
    if (scope == LoadBalancerScope::kCluster) other.cluster_id = "x";
    EXPECT_THAT(spread({twin, other}, web_with(LoadBalancerMode::kStrict, {scope}), 10), ElementsAre(Pair("twin", 10)));
  }
}

TEST(RouteLocality, StandardDoesNotLook) {
  const Service anywhere = web_with(LoadBalancerMode::kStandard, {LoadBalancerScope::kNode});
  EXPECT_EQ(
      spread({located("here", "10.0.0.1", {}, "node-1"), located("there", "10.0.0.2", {}, "node-2")}, anywhere, 10)
          .size(),
      2U);
}

// ---- what this version cannot do

TEST(RouteRefused, AWorkloadOnAnotherNetworkIsNamed) {
  Workload remote = pod("remote", {"10.0.0.1"});
  remote.network = "net-2";
  const auto to = route({remote}, {}, "10.0.0.1:80");
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, AllOf(HasSubstr("workload Kubernetes//Pod/ns/remote is on network \"net-2\""),
                               HasSubstr("not supported yet")));
}

TEST(RouteRefused, APlainWorkloadOfAnotherNetworkIsNothingToUs) {
  Workload remote = plain_pod("remote", {"10.0.0.1"});
  remote.network = "net-2";
  EXPECT_EQ(route({remote}, {}, "10.0.0.1:80").kind, Kind::kUnknown);
}

TEST(RouteRefused, AServiceWithEndpointsOnOtherNetworksOnly) {
  Workload remote = backend("remote", "10.0.0.1");
  remote.network = "net-2";
  const auto to = route({remote}, {web()}, kVip);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason,
              AllOf(HasSubstr("1 on other networks"), HasSubstr("Kubernetes//Pod/ns/remote on network \"net-2\"")));
  EXPECT_THAT(spread({remote, backend("local", "10.0.0.2")}, web(), 10), ElementsAre(Pair("local", 10)));
}

TEST(RouteRefused, AVipOfAnotherNetwork) {
  Service remote = service("web.test", {});
  remote.vips = {{"net-2", ip("10.1.0.1")}};
  EXPECT_THAT(route({}, {remote}, kVip).reason, HasSubstr("service ns/web.test is on network \"net-2\""));
}

TEST(RouteRefused, AServiceOfAnotherNamespaceThatKeepsToItself) {
  Service own = web();
  own.visibility = Visibility::kNamespace;
  EXPECT_EQ(route({backend("a", "10.0.0.1")}, {own}, kVip).kind, Kind::kHbone);
  Workload stranger = client();
  stranger.namespace_name = "other";
  const auto state = build({backend("a", "10.0.0.1")}, {own});
  const auto to = state->route(stranger, at(kVip), 0);
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("visible in its own namespace only"));
}

// ---- special ones

TEST(RouteSelf, AServiceThatLeadsBackIsDialledDirectly) {
  Workload self = serving(client(), "web.test");
  const auto state = build({self}, {web()});
  const auto to = state->route(*state->workloads()[0], at(kVip), 0);
  EXPECT_EQ(to.kind, Kind::kDirect);
  EXPECT_EQ(to.target.to_string(), "10.0.0.100:8080");
  EXPECT_EQ(name_of(to.workload), "client");
  EXPECT_EQ(state->route(*state->workloads()[0], at("10.0.0.100:80"), 0).kind, Kind::kDirect);
}

TEST(RoutePassthrough, TheOriginalDestinationIsDialled) {
  Service passthrough = web();
  passthrough.load_balancer = LoadBalancer{LoadBalancerMode::kPassthrough, {}, HealthPolicy::kAllowAll};
  const auto to = route({backend("a", "10.0.0.1")}, {passthrough}, "10.1.0.1:4444");
  EXPECT_EQ(to.kind, Kind::kUnknown);
  EXPECT_EQ(to.target.to_string(), "10.1.0.1:4444");
  EXPECT_EQ(to.service->hostname, "web.test");
}

}  // namespace
}  // namespace weft::state::test
