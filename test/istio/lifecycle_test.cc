// SPDX-License-Identifier: Apache-2.0
/// istiod and the API server go away and come back, and pods come into the mesh and leave it, under load that may not
/// notice. WEFT_ISTIOD_AWAY_S is how long istiod is away, in seconds (default 10); WEFT_FLIP_PODS how many running pods
/// a label takes in and out (default 100).
#include <set>

#include "test/istio/fixture.h"
#include "test/netns/steady_load.h"

namespace weft::test {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

long long since(steady_clock::time_point time) {
  return static_cast<long long>(std::chrono::duration_cast<milliseconds>(steady_clock::now() - time).count());
}

class IstioLife : public IstioTest {
 protected:
  /// Between requests, in seconds: what else goes on shall not have to wait for the load.
  static constexpr double kPause = 0.005;

  static void SetUpTestSuite() {
    if (!make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    made.add_namespace("crowd");
    caller = &made.add_pod(2, "shop", "caller");
    web = &made.add_pod(1, "shop", "web", {.labels = {{"app", "web"}}});
    made.wait_for_protocol({caller, web});
  }

  /// How many resources of addresses istiod has sent to the node since `offset` of its log; nothing where it has not
  /// answered for both types.
  static std::optional<std::size_t> addresses_since(int index, std::size_t offset) {
    const std::string log = node(index).log();
    const auto said = [&](const char* type) {
      return log_lines(log, offset, {"istiod said url=type.googleapis.com/", type});
    };
    const auto lines = said("istio.workload.Address");
    if (lines.empty() || said("istio.security.Authorization").empty()) return std::nullopt;
    std::size_t sum = 0;
    for (const auto& line : lines) sum += std::stoul(field(line, "resources"));
    return sum;
  }
  static json certificates(int index) { return json::parse(node(index).admin("/config_dump")).at("certificates"); }
  static bool ready(int index) {
    return http_get(node(index).netns(), {*IpAddress::parse("127.0.0.1"), 15021}, "/healthz/ready").has_value();
  }
  static void load_on(SteadyLoad& load) {
    load.all_kinds(*caller, web->v4());
    load.all_kinds(*caller, web->v6());
    load.expect_all_go_on("before");
  }

  static Pod *caller, *web;
};

Pod *IstioLife::caller, *IstioLife::web;

TEST_F(IstioLife, IstiodIsAwayAndComesBack) {
  SteadyLoad load(1, kPause);
  load_on(load);
  const json before[] = {certificates(1), certificates(2)};
  cluster().istiod().kill();
  const auto until = steady_clock::now() + std::chrono::seconds(from_environment("WEFT_ISTIOD_AWAY_S", 10));
  while (steady_clock::now() < until && !HasFailure()) load.expect_all_go_on("without istiod");
  for (const int index : {1, 2}) {
    EXPECT_TRUE(ready(index));
    EXPECT_EQ(certificates(index), before[index - 1]);
  }
  const std::size_t offsets[] = {node(1).log().size(), node(2).log().size()};
  const auto started = steady_clock::now();
  cluster().istiod().start();
  std::printf("  istiod is ready again after %lld ms\n", since(started));
  for (const int index : {1, 2}) {
    std::optional<std::size_t> sent;
    EXPECT_TRUE(eventually(milliseconds(40'000),
                           [&] { return (sent = addresses_since(index, offsets[index - 1])).has_value(); }))
        << "no answer to node " << index;
    EXPECT_EQ(sent.value_or(1), 0U) << "addresses sent anew to node " << index;
  }
  std::printf("  both agents are connected after %lld ms\n", since(started));
  load.expect_all_go_on("with istiod again");
  std::printf("  %zu requests, none failed\n", load.answered());
  load.stop();
  // What is changed now comes.
  const std::string deny =
      "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: after\n  namespace: shop\n"
      "spec:\n  selector:\n    matchLabels:\n      app: web\n  action: DENY\n  rules:\n  - {}\n";
  expect_soon(
      "a policy after that", [&] { cluster().apply(deny); }, [] { return !caller->get(web->v4()).ok(); }, kPolicyTime);
  cluster().remove(deny);
  EXPECT_TRUE(eventually(milliseconds(5'000), [] { return caller->get(web->v4()).ok(); }));
}

TEST_F(IstioLife, TheApiServerIsAwayAndComesBack) {
  SteadyLoad load(1, kPause);
  load_on(load);
  cluster().api().kill();
  const auto until = steady_clock::now() + std::chrono::seconds(5);
  while (steady_clock::now() < until && !HasFailure()) load.expect_all_go_on("without the API server");
  for (const int index : {1, 2}) EXPECT_TRUE(ready(index));
  // istiod cannot work without it either, and is not asked to.
  cluster().api().restart();
  load.expect_all_go_on("with the API server again");
  // What is asked of the API now comes.
  Pod& late = cluster().add_pod(1, "shop", "late");
  cluster().wait_for_protocol({&late});
  EXPECT_THAT(caller->get(late.v4()), IsAnswer("late", caller->address_v4()));
  load.expect_all_go_on("after a new pod");
  load.stop();
  cluster().remove_pod(late);
}

TEST_F(IstioLife, ALabelTakesManyRunningPodsInAndOut) {
  constexpr std::size_t kLoaded = 3;
  std::vector<const Pod*> pods;
  for (int i = 0; i < from_environment("WEFT_FLIP_PODS", 100, kLoaded); ++i)
    pods.push_back(&cluster().add_pod(1 + i % 2, "crowd", "crowd" + std::to_string(i), {.service_account = "crowd"}));
  cluster().wait_for_protocol(pods, "TCP");
  SteadyLoad load(1, kPause);
  for (std::size_t i = 0; i < kLoaded; ++i) {
    load.all_kinds(*caller, pods[i]->v4());
    load.request(*pods[i], pods[(i + 1) % kLoaded]->v6(), false);
  }
  // One that lives to each of the others, from the mesh and from one of them.
  for (std::size_t i = kLoaded; i < pods.size(); ++i) load.hold(i % 2 == 0 ? *caller : *pods[0], pods[i]->v4());
  load.expect_all_go_on("before");
  const Capture wire(node(1).netns(), Node::kWire, 128);
  std::set<std::string> crowd;
  for (const Pod* pod : pods) {
    for (const IpAddress& address : {pod->address_v4(), pod->address_v6()}) crowd.insert(address.to_string());
  }
  // Those that live stay what they are: it is about connections that begin now.
  const auto clear_begun = [&] {
    return wire
        .segments([&](const Segment& s) {
          return s.is_syn() && s.destination.port != 15008 && crowd.contains(s.destination.address.to_string());
        })
        .size();
  };

  const auto labelled = steady_clock::now();
  cluster().set_ambient("crowd", true);
  load.expect_all_go_on("labelled");
  cluster().wait_for_protocol(pods, "HBONE");
  std::printf("  %zu pods in the mesh, and both nodes know, after %lld ms\n", pods.size(), since(labelled));
  load.expect_all_go_on("in the mesh");
  const std::size_t clear_before = clear_begun();
  for (const Pod* pod : pods) EXPECT_TRUE(caller->get(pod->v4()).ok()) << pod->name();
  load.expect_all_go_on("with new connections");
  EXPECT_EQ(clear_begun(), clear_before) << "new connections in the clear";
  EXPECT_GT(clear_before, 0U) << "the capture sees none at all";
  EXPECT_EQ(wire.lost(), 0U);

  const auto unlabelled = steady_clock::now();
  cluster().set_ambient("crowd", false);
  load.expect_all_go_on("unlabelled");
  cluster().wait_for_protocol(pods, "TCP");
  std::printf("  %zu pods out of the mesh, and both nodes know, after %lld ms\n", pods.size(), since(unlabelled));
  load.expect_all_go_on("out of the mesh");
  std::printf("  %zu requests and %zu connections that live, none failed\n", load.answered(), pods.size());
  load.stop();
}

}  // namespace
}  // namespace weft::test
