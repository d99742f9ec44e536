// SPDX-License-Identifier: Apache-2.0
/// Agents are killed under load: nothing leaves in the clear, whoever waits is served by the next one, and whoever
/// comes afterwards at once. WEFT_KILLS sets how often (default 2).

#include <algorithm>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

/// Of a connection that begins when the agent is ready.
constexpr double kPromptMs = 2'000;
#ifdef WEFT_SANITIZED
constexpr double kSlow = 5;
#else
constexpr double kSlow = 1;
#endif

TEST(Crash, WhoeverWaitsIsServedAndNothingIsInTheClear) {
  WEFT_NEEDS_ROOT();
  Mesh mesh;
  Pod& client = mesh.add_pod(1, "shop", "client");
  Pod& web = *add_serving_pod(mesh, 2, "shop", "web", true);
  Pod& near = *add_serving_pod(mesh, 1, "shop", "near", true);
  const Capture wire(mesh.node(1).netns(), Node::kWire, 256);
  const Capture veth(mesh.node(1).netns(), client.host_interface(), 256);
  const auto in_clear = [&](const Segment& s) {
    return s.payload_bytes > 0 && (is_clear_between(s, client, web) || is_clear_between(s, client, near));
  };
  const int kills = from_environment("WEFT_KILLS", 2);
  double slowest = 0;
  int waited = 0;
  for (int i = 0; i < kills; ++i) {
    Node& node = mesh.node(1 + i % 2);
    // In mid-conversation, and about to begin.
    Process talking = client.start({program("weft-testapp"), "get", web.v4().to_string(), "--count", "1000000",
                                    "--keep-alive", "--marker", "talking"});
    ASSERT_TRUE(talking.wait_for_output("server=web", milliseconds(10'000)));
    node.kill_agent();
    std::vector<Process> waiting;
    for (const Endpoint& to : {web.v4(), web.v6(), near.v4()}) {
      waiting.push_back(client.start({program("weft-testapp"), "get", to.to_string(), "--marker", "waiting",
                                      "--connect-timeout", "30", "--timeout", "30"}));
    }
    EXPECT_FALSE(client.get(web.v4(), {"--connect-timeout", "1"}).ok()) << "somebody else serves";
    node.start_agent();
    for (const Endpoint& to : {web.v4(), web.v6(), near.v6()}) {
      const auto begun = std::chrono::steady_clock::now();
      EXPECT_TRUE(client.get(to).ok()) << "kill " << i << ": " << to.to_string();
      const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begun;
      slowest = std::max(slowest, took.count());
    }
    for (auto& one : waiting) {
      const Finished finished = one.finish(milliseconds(40'000));
      EXPECT_TRUE(finished.ok()) << "kill " << i << ": " << finished.out << finished.err;
      ++waited;
    }
  }
  EXPECT_LT(slowest, kPromptMs * kSlow);
  for (const Capture* capture : {&wire, &veth}) {
    EXPECT_EQ(capture->lost(), 0U);
    EXPECT_GT(capture->segments([](const Segment& s) { return s.destination.port == 15008; }).size(), 0U);
    EXPECT_EQ(capture->payload_bytes(in_clear), 0U);
    EXPECT_FALSE(capture->contains("talking"));
    EXPECT_FALSE(capture->contains("waiting"));
  }
  std::printf("  %d kills, %d waited and were served, the slowest that came afterwards took %.0f ms\n", kills, waited,
              slowest);
}

}  // namespace
}  // namespace weft::test
