// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(StateBuild, EmptyIsEmpty) {
  EXPECT_TRUE(State::empty()->workloads().empty());
  EXPECT_EQ(State::empty()->workload_by_uid("x"), nullptr);
  EXPECT_EQ(State::empty()->workload_by_address("", ip("10.0.0.1")), nullptr);
  EXPECT_EQ(State::empty()->service_by_vip("", ip("10.0.0.1")), nullptr);
  EXPECT_TRUE(State::empty()->endpoints("ns/x").empty());
  EXPECT_TRUE(State::empty()->namespace_policies("ns").empty());
}

TEST(StateBuild, TwoWorkloadsWithOneUid) {
  EXPECT_EQ(build_error({pod("a", {"10.0.0.1"}), pod("a", {"10.0.0.2"})}),
            "two workloads have the key Kubernetes//Pod/ns/a");
}

TEST(StateBuild, AWorkloadWithoutUid) {
  Workload workload = pod("a", {"10.0.0.1"});
  workload.uid.clear();
  EXPECT_EQ(build_error({workload}), "workload a has no uid");
}

TEST(StateBuild, TwoWorkloadsWithOneAddress) {
  EXPECT_EQ(build_error({pod("a", {"10.0.0.1"}), pod("b", {"10.0.0.9", "10.0.0.1"})}),
            "workloads Kubernetes//Pod/ns/a and Kubernetes//Pod/ns/b both have address 10.0.0.1 in network \"\"");
}

TEST(StateBuild, AnAddressInTwoSpellingsIsOne) {
  EXPECT_THAT(build_error({pod("a", {"10.0.0.1"}), pod("b", {"::ffff:10.0.0.1"})}),
              HasSubstr("both have address 10.0.0.1"));
}

TEST(StateBuild, OneAddressInTwoNetworksIsNoConflict) {
  Workload other = pod("b", {"10.0.0.1"});
  other.network = "remote";
  const auto state = build({pod("a", {"10.0.0.1"}), other});
  EXPECT_EQ(name_of(state->workload_by_address("", ip("10.0.0.1"))), "a");
  EXPECT_EQ(name_of(state->workload_by_address("remote", ip("10.0.0.1"))), "b");
  EXPECT_EQ(state->workload_by_address("third", ip("10.0.0.1")), nullptr);
}

TEST(StateBuild, HostNetworkWorkloadsShareAddresses) {
  Workload a = pod("a", {"10.0.0.1"}), b = pod("b", {"10.0.0.1"});
  a.network_mode = b.network_mode = NetworkMode::kHostNetwork;
  const auto state = build({a, b, pod("c", {"10.0.0.1"})});
  EXPECT_EQ(name_of(state->workload_by_address("", ip("10.0.0.1"))), "c");
  EXPECT_EQ(name_of(state->workload_by_uid(b.uid)), "b");
}

TEST(StateBuild, TwoServicesWithOneKey) {
  EXPECT_EQ(build_error({}, {service("web.test", {"10.1.0.1"}), service("web.test", {"10.1.0.2"})}),
            "two services have the key ns/web.test");
}

TEST(StateBuild, TwoServicesWithOneVip) {
  EXPECT_EQ(build_error({}, {service("a.test", {"10.1.0.1"}), service("b.test", {"10.1.0.1"})}),
            "services ns/a.test and ns/b.test both have VIP 10.1.0.1 in network \"\"");
}

TEST(StateBuild, TwoServicesWithOneRange) {
  Service a = service("a.test", {}), b = service("b.test", {});
  a.cidr_vips = {{"", range("10.2.0.0/16")}};
  b.cidr_vips = {{"", range("10.2.0.0/16")}};
  EXPECT_EQ(build_error({}, {a, b}), "services ns/a.test and ns/b.test both have VIPs 10.2.0.0/16 in network \"\"");
  b.cidr_vips = {{"", range("10.2.0.0/17")}};
  EXPECT_EQ(build_error({}, {a, b}), "");
}

TEST(StateBuild, TwoPoliciesWithOneKey) {
  Policy policy;
  policy.name = "p";
  policy.namespace_name = "ns";
  EXPECT_EQ(build_error({}, {}, {policy, policy}), "two policies have the key ns/p");
}

TEST(StateIndex, Workloads) {
  const auto state = build({pod("a", {"10.0.0.1", "2001:db8::1"})});
  EXPECT_EQ(name_of(state->workload_by_uid("Kubernetes//Pod/ns/a")), "a");
  EXPECT_EQ(name_of(state->workload_by_address("", ip("2001:db8::1"))), "a");
  EXPECT_EQ(name_of(state->workload_by_pod("ns", "a")), "a");
  EXPECT_EQ(state->workload_by_pod("ns", "b"), nullptr);
  EXPECT_EQ(state->workload_by_pod("n", "s/a"), nullptr);
}

TEST(StateIndex, AnExactVipGoesBeforeTheLongestRange) {
  Service wide = service("wide.test", {}), narrow = service("narrow.test", {});
  wide.cidr_vips = {{"", range("10.2.0.0/16")}};
  narrow.cidr_vips = {{"", range("10.2.3.0/24")}};
  const auto state = build({}, {wide, narrow, service("exact.test", {"10.2.3.4"})});
  EXPECT_EQ(state->service_by_vip("", ip("10.2.3.4"))->hostname, "exact.test");
  EXPECT_EQ(state->service_by_vip("", ip("10.2.3.5"))->hostname, "narrow.test");
  EXPECT_EQ(state->service_by_vip("", ip("10.2.4.5"))->hostname, "wide.test");
  EXPECT_EQ(state->service_by_vip("", ip("10.3.0.1")), nullptr);
  EXPECT_EQ(state->service_by_vip("other", ip("10.2.3.4")), nullptr);
  EXPECT_EQ(state->service_by_key("ns/exact.test")->hostname, "exact.test");
}

TEST(StateIndex, EndpointsAreSortedByUid) {
  const auto state = build({serving(pod("c", {"10.0.0.3"}), "web.test", {{80, 83}}),
                            serving(pod("a", {"10.0.0.1"}), "web.test"), pod("b", {"10.0.0.2"})});
  const auto& endpoints = state->endpoints("ns/web.test");
  ASSERT_EQ(endpoints.size(), 2U);
  EXPECT_EQ(endpoints[0].workload->name, "a");
  EXPECT_EQ(endpoints[1].workload->name, "c");
  EXPECT_EQ(endpoints[1].ports->at(80), 83);
}

TEST(StateIndex, PoliciesByScope) {
  std::vector<Policy> policies(3);
  policies[0].name = "g";
  policies[0].namespace_name = "istio-system";
  policies[0].scope = PolicyScope::kGlobal;
  policies[1].name = "n";
  policies[1].namespace_name = "ns";
  policies[2].name = "w";
  policies[2].namespace_name = "ns";
  policies[2].scope = PolicyScope::kWorkloadSelector;
  const auto state = build({}, {}, policies);
  ASSERT_EQ(state->global_policies().size(), 1U);
  EXPECT_EQ(state->global_policies()[0]->key(), "istio-system/g");
  ASSERT_EQ(state->namespace_policies("ns").size(), 1U);
  EXPECT_EQ(state->namespace_policies("ns")[0]->key(), "ns/n");
  EXPECT_EQ(state->policy_by_key("ns/w")->name, "w");
  EXPECT_TRUE(state->namespace_policies("istio-system").empty());
}

// ---- what must be captured

std::vector<std::string> texts(const std::vector<IpAddress>& addresses) {
  std::vector<std::string> out;
  for (const auto& address : addresses) out.push_back(address.to_string());
  return out;
}
std::vector<std::string> captured(const State& state) { return texts(state.mesh_addresses()->addresses); }

/// A Kubernetes Service, whose ClusterIP the cluster balances by itself.
Service cluster_service(std::vector<std::string> vips) {
  Service out = service("web.ns.svc.cluster.local", {});
  for (const auto& vip : vips) out.vips.push_back({"", ip(vip)});
  return out;
}
constexpr const char* kHost = "web.ns.svc.cluster.local";

TEST(MeshAddresses, HboneWorkloadsSortedAndUnique) {
  Workload other_network = pod("c", {"10.0.0.1"});
  other_network.network = "remote";
  EXPECT_THAT(captured(*build({pod("b", {"10.0.0.2", "2001:db8::2"}), pod("a", {"10.0.0.1"}), other_network,
                               plain_pod("p", {"10.0.0.9"})})),
              ElementsAre("10.0.0.1", "10.0.0.2", "2001:db8::2"));
}

TEST(MeshAddresses, HostNetworkWorkloadsAreNeverListed) {
  Workload host = pod("host", {"10.0.0.1"});
  host.network_mode = NetworkMode::kHostNetwork;
  host.native_tunnel = true;
  host.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  EXPECT_THAT(captured(*build({host})), IsEmpty());
}

TEST(MeshAddresses, NativeTunnelAndWaypointWorkloads) {
  Workload native = plain_pod("native", {"10.0.0.1"}), behind = plain_pod("behind", {"10.0.0.2"});
  native.native_tunnel = true;
  behind.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  EXPECT_THAT(captured(*build({native, behind})), ElementsAre("10.0.0.1", "10.0.0.2"));
}

TEST(MeshAddresses, AVipWithAnHboneEndpoint) {
  EXPECT_THAT(captured(*build({serving(pod("a", {"10.0.0.1"}), kHost)}, {cluster_service({"10.1.0.1"})})),
              ElementsAre("10.0.0.1", "10.1.0.1"));
}

TEST(MeshAddresses, AClusterIpOfPlainEndpointsIsLeftToTheCluster) {
  EXPECT_THAT(captured(*build({serving(plain_pod("a", {"10.0.0.1"}), kHost)}, {cluster_service({"10.1.0.1"})})),
              IsEmpty());
}

TEST(MeshAddresses, AVipWithAWaypoint) {
  Service with = cluster_service({"10.1.0.1"});
  with.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  EXPECT_THAT(captured(*build({}, {with})), ElementsAre("10.1.0.1"));
  with.waypoint.reset();
  with.weighted_waypoints = {{GatewayAddress{NamespacedHostname{"ns", "wp"}}, 1}};
  EXPECT_THAT(captured(*build({}, {with})), ElementsAre("10.1.0.1"));
}

TEST(MeshAddresses, AVipWhoseBalancingNeedsUs) {
  Service strict = cluster_service({"10.1.0.1"});
  strict.load_balancer =
      LoadBalancer{LoadBalancerMode::kStrict, {LoadBalancerScope::kNode}, HealthPolicy::kOnlyHealthy};
  EXPECT_THAT(captured(*build({}, {strict})), ElementsAre("10.1.0.1"));
  EXPECT_THAT(captured(*build({}, {service("entry.example.com", {"240.240.0.1"})})), ElementsAre("240.240.0.1"));
}

TEST(MeshAddresses, PassthroughIsNotCaptured) {
  Service passthrough = service("entry.example.com", {"10.1.0.1"});
  passthrough.cidr_vips = {{"", range("10.2.0.0/16")}};
  passthrough.load_balancer = LoadBalancer{LoadBalancerMode::kPassthrough, {}, HealthPolicy::kAllowAll};
  EXPECT_THAT(captured(*build({}, {passthrough})), IsEmpty());
  EXPECT_TRUE(build({}, {passthrough})->mesh_addresses()->cidrs.empty());
  passthrough.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  EXPECT_THAT(captured(*build({}, {passthrough})), ElementsAre("10.1.0.1"));
  ASSERT_EQ(build({}, {passthrough})->mesh_addresses()->cidrs.size(), 1U);
  EXPECT_EQ(build({}, {passthrough})->mesh_addresses()->cidrs[0].to_string(), "10.2.0.0/16");
}

/// The host's guard drops what an agent dials in the clear to a captured address, so nothing may route that way.
TEST(MeshAddresses, NoRouteLeadsToACapturedAddressInTheClear) {
  Workload remote = serving(pod("remote", {"10.9.0.1"}), "entry.test");
  remote.network = "elsewhere";
  Workload behind = plain_pod("behind", {"10.0.0.7"});
  behind.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  Workload machine = serving(plain_pod("machine", {"10.0.0.8"}), "machine.test");
  Service remote_vip = service("remote.test", {});
  remote_vip.vips = {{"elsewhere", ip("10.9.9.9")}};
  Service machine_vip = service("machine.test", {"10.0.0.8"}, {{80, 80}});
  Service guarded = service("guarded.test", {"10.0.0.9"}, {{80, 80}});
  guarded.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
  const auto state = build(
      {pod("client", {"10.0.0.1"}), serving(pod("a", {"10.0.0.2"}), "web.test"),
       serving(plain_pod("b", {"10.0.0.3"}), "web.test"), remote, behind, machine, plain_pod("plain", {"10.0.0.9"})},
      {service("web.test", {"10.1.0.1"}), remote_vip, machine_vip, guarded, service("entry.test", {"10.1.0.5"})});
  const auto& mesh = *state->mesh_addresses();
  const Workload& client = *state->workload_by_pod("ns", "client");
  for (const auto& address : mesh.addresses) {
    if (address == client.addresses[0]) continue;  // a self call never leaves the pod
    for (const std::uint64_t random : {0U, 1U, 2U}) {
      const auto to = state->route(client, {address, 80}, random);
      EXPECT_NE(to.kind, Destination::Kind::kUnknown) << address.to_string();
      if (to.kind != Destination::Kind::kDirect) continue;
      EXPECT_THAT(texts(mesh.addresses), ::testing::Not(::testing::Contains(to.target.address.to_string())))
          << address.to_string();
    }
  }
  EXPECT_EQ(state->route(client, at("10.0.0.9:80"), 0).kind, Destination::Kind::kRefused);
  EXPECT_EQ(state->route(client, at("10.0.0.8:80"), 0).kind, Destination::Kind::kDirect);
}

/// The same objects as a change, for with().
StateChange change(const std::vector<Workload>& workloads, const std::vector<Service>& services = {}) {
  StateChange out;
  for (const auto& workload : workloads) out.workloads.push_back(std::make_shared<const Workload>(workload));
  for (const auto& one : services) out.services.push_back(std::make_shared<const Service>(one));
  return out;
}

TEST(StateConflicts, AnAddressGoesToAPodBeforeOthersToHboneBeforeNoneAndToTheLaterOfEquals) {
  const auto holder = [](const std::vector<Workload>& workloads) {
    const auto state = State::empty()->with(change(workloads));
    EXPECT_EQ(state->workloads().size(), workloads.size()) << "nobody is lost";
    EXPECT_EQ(state->conflicts().size(), workloads.size() - 1);
    return state->workload_by_address("", ip("10.0.0.1"))->name;
  };
  auto entry = pod("entry", {"10.0.0.1"});
  entry.uid = "Kubernetes/networking.istio.io/WorkloadEntry/ns/entry";
  auto plain_entry = entry;
  plain_entry.name = plain_entry.uid = "plain-entry";
  plain_entry.protocol = TunnelProtocol::kTcp;
  const auto a = pod("a", {"10.0.0.1"}), b = pod("b", {"10.0.0.1"}), plain = plain_pod("plain", {"10.0.0.1"});
  EXPECT_EQ(holder({a, b}), "b");
  EXPECT_EQ(holder({b, a}), "a");
  EXPECT_EQ(holder({a, plain}), "a");
  EXPECT_EQ(holder({plain, a}), "a");
  EXPECT_EQ(holder({plain, entry}), "plain");
  EXPECT_EQ(holder({entry, plain}), "plain");
  EXPECT_EQ(holder({entry, plain_entry}), "entry");
  EXPECT_EQ(holder({plain_entry, entry, a, plain}), "a");
}

TEST(StateConflicts, AVipGoesToTheServiceOfKubernetesAndToTheLaterOfEquals) {
  const auto holder = [](const std::vector<Service>& services) {
    const auto state = State::empty()->with(change({}, services));
    EXPECT_EQ(state->conflicts().size(), services.size() - 1);
    return state->service_by_vip("", ip("10.96.0.1"))->hostname;
  };
  const auto kubernetes = service("web.ns.svc.cluster.local", {"10.96.0.1"});
  const auto a = service("a.example.com", {"10.96.0.1"}), b = service("b.example.com", {"10.96.0.1"});
  EXPECT_EQ(holder({kubernetes, a}), kubernetes.hostname) << "who may write a ServiceEntry does not get its VIP";
  EXPECT_EQ(holder({a, kubernetes}), kubernetes.hostname);
  EXPECT_EQ(holder({a, b}), "b.example.com");
}

TEST(StateConflicts, ARangeGoesToTheLaterOfEquals) {
  auto a = service("a.example.com", {}), b = service("b.example.com", {});
  a.cidr_vips = b.cidr_vips = {{"", range("10.97.0.0/16")}};
  const auto state = State::empty()->with(change({}, {a, b}));
  EXPECT_EQ(state->service_by_vip("", ip("10.97.1.1"))->hostname, "b.example.com");
  EXPECT_EQ(state->conflicts().size(), 1U);
}

TEST(StateConflicts, SaysWhoHoldsWhatTwoClaim) {
  const auto state = State::empty()->with(change({pod("a", {"10.0.0.1"}), pod("b", {"10.0.0.1"})}));
  EXPECT_EQ(state->conflicts().at(0),
            "workloads Kubernetes//Pod/ns/a and Kubernetes//Pod/ns/b both have address 10.0.0.1 in network \"\": it is "
            "taken for that of Kubernetes//Pod/ns/b");
}

}  // namespace
}  // namespace weft::state::test
