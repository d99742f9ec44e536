// SPDX-License-Identifier: Apache-2.0
/// Agents that do not have the mesh from istiod and ask it for what their pods connect to.
#include "test/istio/envoy_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

constexpr milliseconds kSoon{10'000};
/// Twice what an answer is fresh for, and one question.
constexpr milliseconds kAnswerHolds{7'000};

class IstioDemand : public IstioEnvoyTest {
 protected:
  static void SetUpTestSuite() {
    if (!make_cluster({.on_demand = true})) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    client = &made.add_pod(1, "shop", "client");
    here = &made.add_pod(1, "shop", "here", {.labels = {{"app", "web"}}});
    there = &made.add_pod(2, "shop", "there", {.labels = {{"app", "web"}}});
    lonely = &made.add_pod(2, "shop", "lonely");
    for (Pod** machine : {&machine1, &machine2}) {
      *machine = &made.mesh().add_pod(2, "vm", machine == &machine1 ? "machine1" : "machine2", {.weft_cni = false});
      (*machine)->serve();
    }
    for (const Pod* pod : {client, here, there, lonely}) {
      if (!eventually(kSoon, [&] { return protocol_of(pod->node(), *pod) == "HBONE"; }))
        throw TestError(pod->name() + " is not in the mesh by its own node");
    }
  }

  static json dump(const Node& of) { return json::parse(of.admin("/config_dump")); }
  /// As that node has it, "" where it does not.
  static std::string protocol_of(const Node& of, const Pod& pod) {
    const json whole = dump(of);
    for (const auto& workload : whole.at("workloads")) {
      if (workload.at("name") == pod.name()) return workload.at("protocol");
    }
    return "";
  }
  static std::vector<std::string> names(const char* what) {
    std::vector<std::string> out;
    const json whole = dump(node(1));
    for (const auto& one : whole.at(what)) out.push_back(one.at("name"));
    return out;
  }
  /// The request is answered by the pod, through a tunnel, and nothing of it is on the wire.
  static void expect_in_mesh(const Endpoint& to, const Pod& server, const std::string& marker) {
    const Capture wire(node(1).netns(), Node::kWire, 4096);
    const std::size_t offset = node(1).log().size();
    const auto client_address = to.address.is_v4() ? client->address_v4() : client->address_v6();
    EXPECT_THAT(client->get(to, {"--marker", marker}), IsAnswer(server.name(), client_address));
    EXPECT_FALSE(wire.contains(marker)) << "in the clear on the wire";
    const std::vector<std::string> words{"connection complete", "dst.workload=" + server.name(),
                                         "dst.hbone_addr=", "/sa/" + server.name()};
    EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node(1).log(), offset, words).empty(); }));
  }

  static Pod *client, *here, *there, *lonely, *machine1, *machine2;
};

Pod *IstioDemand::client, *IstioDemand::here, *IstioDemand::there, *IstioDemand::lonely, *IstioDemand::machine1,
    *IstioDemand::machine2;

TEST_F(IstioDemand, ANodeHasItsOwnPodsUntilItAsks) {
  EXPECT_THAT(names("workloads"), AllOf(IsSupersetOf({"client", "here"}), Not(Contains("lonely"))));
  expect_in_mesh(lonely->v4(), *lonely, "asked-for-by-v4");
  EXPECT_THAT(names("workloads"), Contains("lonely"));
  expect_in_mesh(lonely->v6(), *lonely, "asked-for-by-v6");
}

TEST_F(IstioDemand, AServiceIsAskedForAndItsNewEndpointsToo) {
  const auto [v4, v6] = cluster().add_service("shop", "web", "web", {here, there});
  const auto servers = [](const Endpoint& to) { return client->get(to, {"--count", "30"}).out; };
  for (const Endpoint& to : {Endpoint{v4, 80}, Endpoint{v6, 80}}) {
    EXPECT_TRUE(eventually(kSoon, [&] {
      const std::string out = servers(to);
      return out.find("server=here") != std::string::npos && out.find("server=there") != std::string::npos;
    })) << servers(to);
  }
  EXPECT_THAT(names("services"), Contains("web"));
  Pod& late = cluster().add_pod(2, "shop", "late", {.labels = {{"app", "web"}}});
  expect_soon(
      "a new endpoint",
      [&] {
        cluster().set_endpoints("shop", "web", {here, there, &late});
      },
      [&] {
        return servers({v4, 80}).find("server=late") != std::string::npos;
      },
      kAnswerHolds);
  // All endpoints that the node knows of go.
  cluster().set_endpoints("shop", "web", {&late});
  cluster().patch("/api/v1/namespaces/shop/pods/here", {{"metadata", {{"labels", {{"app", "old"}}}}}});
  cluster().patch("/api/v1/namespaces/shop/pods/there", {{"metadata", {{"labels", {{"app", "old"}}}}}});
  EXPECT_TRUE(eventually(kSoon, [&] {
    const std::string out = servers({v6, 80});
    return !out.empty() && out.find("server=here") == std::string::npos &&
           out.find("server=there") == std::string::npos;
  })) << servers({v6, 80});
  cluster().remove("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n");
  EXPECT_TRUE(eventually(kSoon, [] { return std::ranges::count(names("services"), "web") == 0; }));
  EXPECT_FALSE(client->get({v4, 80}, {"--connect-timeout", "1", "--timeout", "1"}).ok()) << "its endpoint is there";
  cluster().remove_pod(late);
}

TEST_F(IstioDemand, WhatIsNobodysGoesOnAsItIs) {
  for (const Endpoint& to : {machine1->v4(), machine1->v6()}) {
    const auto first = client->get(to), second = client->get(to, {"--count", "20"});
    const auto from = to.address.is_v4() ? client->address_v4() : client->address_v6();
    EXPECT_THAT(first, IsAnswer("machine1", from));
    EXPECT_TRUE(second.ok()) << ::testing::PrintToString(second);
    std::printf("  %s: asked for and answered after %s ms, the last of 20 more after %s ms\n", to.to_string().c_str(),
                field(first.out, "ms").c_str(), field(second.out.substr(second.out.rfind("server=")), "ms").c_str());
  }
  EXPECT_THAT(names("workloads"), Not(Contains("machine1")));
  EXPECT_THAT(node(1).admin("/explain?from=shop/client&to=" + machine1->v4().to_string()),
              AllOf(HasSubstr("everything is captured"),
                    HasSubstr("asks it first for /" + machine1->address_v4().to_string())));
}

TEST_F(IstioDemand, AWaypointIsAskedForWithItsService) {
  WaypointPod waypoint = add_istio_waypoint(cluster(), 2, "shop", "waypoint");
  cluster().patch("/api/v1/namespaces/shop/pods/there", {{"metadata", {{"labels", {{"app", "behind"}}}}}});
  const auto [v4, v6] =
      cluster().add_service("shop", "behind", "behind", {there}, {}, {{"istio.io/use-waypoint", "waypoint"}});
  waypoint.envoy->wait_for_configuration("inbound-vip|80|http|behind.shop.svc.cluster.local");
  for (const Endpoint& to : {Endpoint{v4, 80}, Endpoint{v6, 80}}) {
    EXPECT_TRUE(eventually(kSoon, [&] {
      const auto seen = Endpoint::parse(field(client->get(to).out, "client"));
      return seen && (seen->address == waypoint.pod->address_v4() || seen->address == waypoint.pod->address_v6());
    })) << client->get(to).out;
  }
  tell_of(waypoint.envoy.get());
  waypoint.envoy.reset();
  cluster().remove_pod(*waypoint.pod);
}

TEST_F(IstioDemand, WithoutIstiodWhatWasToldGoesOn) {
  expect_in_mesh(lonely->v4(), *lonely, "before-it-went");
  EXPECT_TRUE(client->get(machine1->v4()).ok());
  cluster().istiod().kill();
  ASSERT_TRUE(eventually(kSoon, [] { return node(1).admin("/status").find("not connected") != std::string::npos; }));
  const auto until = std::chrono::steady_clock::now() + kAnswerHolds;
  while (std::chrono::steady_clock::now() < until && !HasFailure()) {
    EXPECT_TRUE(client->get(machine1->v4()).ok());
    EXPECT_TRUE(client->get(lonely->v6()).ok());
  }
  const std::size_t offset = node(1).log().size();
  EXPECT_FALSE(client->get(machine2->v4(), {"--connect-timeout", "20", "--timeout", "20"}).ok())
      << "nobody has said that it is not of the mesh";
  const std::string why = "what " + machine2->address_v4().to_string() + " is has not been told yet";
  EXPECT_TRUE(eventually(kSoon, [&] { return log_lines(node(1).log(), offset, {why}).size() == 1; }));
  cluster().istiod().start();
  EXPECT_TRUE(eventually(milliseconds(40'000), [] { return client->get(machine2->v4()).ok(); }));
  expect_in_mesh(lonely->v4(), *lonely, "after-it-came-back");
}

}  // namespace
}  // namespace weft::test
