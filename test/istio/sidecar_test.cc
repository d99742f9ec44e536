// SPDX-License-Identifier: Apache-2.0
/// Mixed mode: pods with sidecars, which are upstream Envoy as istiod configures it, beside pods of the ambient mesh.
#include <array>

#include "test/istio/envoy_fixture.h"
#include "test/istio/istio_sidecar.h"
#include "test/netns/steady_load.h"
#include "test/netns/waypoint_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr milliseconds kSoon{10'000};

constexpr const char* kStrict = R"(apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: strict
  namespace: shop
spec:
  mtls:
    mode: STRICT
)";

/// Node 1: `tunnelled`, whose sidecar speaks HBONE, and `plain`, whose sidecar does not. Node 2: client and web of the
/// ambient mesh. Each has a service of its name.
class IstioSidecar : public IstioEnvoyTest {
 protected:
  static void SetUpTestSuite() {
    if (!make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    apply_sidecar_filters(made, "shop");
    client = &made.add_pod(2, "shop", "client", {.labels = {{"app", "client"}}});
    web = &made.add_pod(2, "shop", "web", {.labels = {{"app", "web"}}});
    made.wait_for_protocol({client, web});
    tunnelled = add_istio_sidecar(made, 1, "shop", "tunnelled", true, {.labels = {{"app", "tunnelled"}}});
    plain = add_istio_sidecar(made, 1, "shop", "plain", false, {.labels = {{"app", "plain"}}});
    made.wait_for_protocol({tunnelled.pod});
    made.wait_for_protocol({plain.pod}, "TCP");
    for (const Pod* pod :
         {static_cast<const Pod*>(web), static_cast<const Pod*>(tunnelled.pod), static_cast<const Pod*>(plain.pod)}) {
      vips[pod] = made.add_service("shop", pod->name(), pod->name(), {pod});
    }
    wait_for_envoys("outbound|80||web.shop.svc.cluster.local");
  }
  static void TearDownTestSuite() {
    tunnelled.envoy.reset();
    plain.envoy.reset();
    IstioEnvoyTest::TearDownTestSuite();
  }
  void SetUp() override {
    IstioEnvoyTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_NE(plain.envoy, nullptr) << "the pods could not be made";
  }
  void TearDown() override {
    for (const auto* pod : {&tunnelled, &plain}) tell_of(pod->envoy.get());
    IstioEnvoyTest::TearDown();
  }

  static void wait_for_envoys(const std::string& text, bool there = true) {
    for (const auto* pod : {&tunnelled, &plain}) pod->envoy->wait_for_configuration(text, there);
  }
  /// Its service's address; without kube-proxy here that leads nowhere where all of a service is in plaintext.
  static Endpoint address(const Pod* of, bool v6) {
    if (of == plain.pod) return v6 ? of->v6() : of->v4();
    return {v6 ? vips.at(of).second : vips.at(of).first, 80};
  }
  static bool reaches(const Pod& from, const Pod* to, const std::string& marker = "hello") {
    return std::ranges::all_of(std::array{false, true}, [&](bool v6) {
      const Finished done = get_from(from, address(to, v6), {"--marker", marker, "--timeout", "5"});
      return done.ok() && field(done.out, "server") == to->name();
    });
  }
  static bool refused(const Pod& from, const Pod* to) {
    return std::ranges::none_of(std::array{false, true}, [&](bool v6) {
      return get_from(from, address(to, v6), {"--timeout", "5"}).ok();
    });
  }

  static Pod *client, *web;
  static SidecarPod tunnelled, plain;
  static std::map<const Pod*, std::pair<IpAddress, IpAddress>> vips;
};

Pod *IstioSidecar::client, *IstioSidecar::web;
SidecarPod IstioSidecar::tunnelled, IstioSidecar::plain;
std::map<const Pod*, std::pair<IpAddress, IpAddress>> IstioSidecar::vips;

TEST_F(IstioSidecar, OneThatTunnelsSpeaksHboneWithTheAmbientMeshBothWays) {
  const std::size_t before = node(2).log().size();
  const Capture wire(node(1).netns(), Node::kWire, 4096);
  EXPECT_TRUE(reaches(*client, tunnelled.pod, "to-sidecar"));
  for (const bool v6 : {false, true}) {
    const Pod& pod = *tunnelled.pod;
    EXPECT_TRUE(client->get(v6 ? pod.v6() : pod.v4(), {"--marker", "to-sidecar"}).ok()) << "by the pod's address";
  }
  EXPECT_TRUE(reaches(*tunnelled.pod, web, "from-sidecar"));
  EXPECT_FALSE(wire.contains("-sidecar")) << "in the clear";
  const std::string there = tunnelled.pod->identity();
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node(2).log(), before, {"direction=outbound", "dst.identity=" + there}).size() == 4;
  })) << "who it is was checked";
  // Envoy keeps its tunnels; what the agent knows of them is in its metrics.
  EXPECT_GT(metric(node(2).metrics(), "istio_tcp_connections_opened_total",
                   {"reporter=\"destination\"", "source_principal=\"" + there + "\"", "destination_workload=\"web\"",
                    "connection_security_policy=\"mutual_tls\""}),
            0);
}

TEST_F(IstioSidecar, OneThatDoesNotTunnelSpeaksPlaintextWithTheAmbientMeshBothWays) {
  const Capture wire(node(1).netns(), Node::kWire, 4096);
  EXPECT_TRUE(reaches(*client, plain.pod, "to-plain"));
  EXPECT_TRUE(wire.contains("to-plain"));
  EXPECT_TRUE(reaches(*plain.pod, web, "from-plain"));
  EXPECT_TRUE(wire.contains("from-plain"));
}

TEST_F(IstioSidecar, AnswersArriveWholeAndEndAsTheirServerEndsThem) {
  for (const Pod* to : {tunnelled.pod, plain.pod}) {
    for (const bool v6 : {false, true}) {
      const Finished done =
          get_from(*client, address(to, v6), {"--count", "20", "--marker", "long?bytes=2000000", "--to-end"});
      EXPECT_TRUE(done.ok()) << to->name() << " " << ::testing::PrintToString(done);
    }
  }
}

TEST_F(IstioSidecar, StrictRefusesPlaintextBothWaysAndLetsHbonePass) {
  cluster().apply(kStrict);
  EXPECT_TRUE(eventually(kSoon, [] { return refused(*plain.pod, web); })) << "the agent refuses";
  EXPECT_TRUE(eventually(kSoon, [] { return refused(*client, plain.pod); })) << "Envoy refuses";
  EXPECT_TRUE(reaches(*client, tunnelled.pod));
  EXPECT_TRUE(reaches(*tunnelled.pod, web));
  cluster().remove(kStrict);
  EXPECT_TRUE(eventually(kSoon, [] { return reaches(*plain.pod, web) && reaches(*client, plain.pod); }));
}

/// The service shop/mixed, whose pods change under load from an ambient client and one with a sidecar.
class IstioMigration : public IstioSidecar {
 protected:
  static void SetUpTestSuite() {
    IstioSidecar::SetUpTestSuite();
    if (!plain.envoy) return;
    mixed = cluster().add_service("shop", "mixed", "mixed", {});
  }
  static ClusterPod not_ready() { return {.labels = {{"app", "mixed"}}, .ready = false}; }
  /// Pods are taken into the service as a kubelet and the controllers do it.
  static void join(const Pod& pod, const std::string& protocol) {
    cluster().wait_for_protocol({&pod}, protocol);
    cluster().set_ready(pod, true);
    members.push_back(&pod);
    tell();
    wait_for_envoys(pod.address_v4().to_string());
  }
  /// New connections go elsewhere, requests that are there end, and the pod with them.
  static void leave(Pod& pod, const std::function<bool()>& idle) {
    std::erase(members, &pod);
    cluster().set_ready(pod, false);
    tell();
    // As an address that is dialled, or one that a tunnel is asked for.
    wait_for_envoys("\"" + pod.address_v4().to_string() + "\",\"port_value\":" + std::to_string(Pod::kPort), false);
    wait_for_envoys(pod.v4().to_string(), false);
    EXPECT_TRUE(eventually(kSoon, idle)) << pod.name() << " still serves";
    cluster().remove_pod(pod);
  }
  static void leave(Pod& ambient) {
    const std::string port = "( sport = :" + std::to_string(Pod::kPort) + " )";
    leave(ambient, [&] {
      return run({"ss", "-Htn", "state", "established", port},
                 {.netns = &ambient.netns(), .environment = {}, .input = {}})
          .out.empty();
    });
  }
  /// Envoy keeps connections to the application for later.
  static void leave(SidecarPod sidecar) {
    leave(*sidecar.pod, [&] { return sidecar.envoy->stat("http.inbound", ".downstream_rq_active") == 0; });
  }
  static void tell() {
    cluster().set_endpoints("shop", "mixed", members);
    cluster().wait_for_dump("endpoints of shop/mixed", [](const json& dump) {
      std::size_t healthy = 0;
      for (const auto& workload : dump.at("workloads")) {
        const bool member =
            workload.contains("services") && workload.at("services").dump().find("mixed.shop") != std::string::npos;
        healthy += member && workload.value("status", "") == "Healthy" ? 1 : 0;
      }
      return healthy == members.size();
    });
  }
  static Pod& add_ambient(const char* name) {
    Pod& pod = cluster().add_pod(1, "shop", name, not_ready());
    join(pod, "HBONE");
    return pod;
  }
  static SidecarPod add_sidecar(const char* name, bool hbone) {
    SidecarPod made = add_istio_sidecar(cluster(), 1, "shop", name, hbone, not_ready());
    join(*made.pod, hbone ? "HBONE" : "TCP");
    return made;
  }
  static std::unique_ptr<SteadyLoad> load() {
    auto made = std::make_unique<SteadyLoad>();
    for (const bool v6 : {false, true}) {
      const Endpoint to{v6 ? mixed.second : mixed.first, 80};
      made->request(*client, to, false);
      made->request(*tunnelled.pod, to, false);
      // Its sidecar chooses for every request.
      made->request(*tunnelled.pod, to, true);
    }
    return made;
  }

  static std::pair<IpAddress, IpAddress> mixed;
  static std::vector<const Pod*> members;
};

std::pair<IpAddress, IpAddress> IstioMigration::mixed;
std::vector<const Pod*> IstioMigration::members;

TEST_F(IstioMigration, FromSidecarsToAmbientAndBackUnderLoadWithoutAFailedRequest) {
  SidecarPod first = add_sidecar("mixed-tunnelled", true);
  SidecarPod second = add_sidecar("mixed-plain", false);
  const auto requests = load();
  requests->expect_all_go_on("all by sidecars");
  Pod& ambient = add_ambient("mixed-ambient");
  requests->expect_all_go_on("with an ambient pod");
  leave(std::move(second));
  requests->expect_all_go_on("the plain one has gone");
  leave(std::move(first));
  requests->expect_all_go_on("all ambient");
  SidecarPod back = add_sidecar("mixed-back", true);
  leave(ambient);
  requests->expect_all_go_on("back");
  std::printf("  %zu requests were answered\n", requests->answered());
  requests->stop();
  leave(std::move(back));
}

TEST_F(IstioMigration, UnderStrictUnderLoadWithoutAFailedRequest) {
  cluster().apply(kStrict);
  EXPECT_TRUE(eventually(kSoon, [] { return refused(*plain.pod, web); }));
  SidecarPod first = add_sidecar("strict-tunnelled", true);
  const auto requests = load();
  requests->expect_all_go_on("by a sidecar");
  Pod& ambient = add_ambient("strict-ambient");
  requests->expect_all_go_on("with an ambient pod");
  leave(std::move(first));
  requests->expect_all_go_on("all ambient");
  std::printf("  %zu requests were answered\n", requests->answered());
  requests->stop();
  leave(ambient);
  cluster().remove(kStrict);
}

}  // namespace
}  // namespace weft::test
