// SPDX-License-Identifier: Apache-2.0
/// Pods join the mesh and leave it while they are called: no request fails, and what lives keeps its path.
/// WEFT_FLIP_PODS sets how many pods change at once (default 10), WEFT_FLIPS how often each way (default 2).

#include <algorithm>

#include "test/netns/steady_load.h"

namespace weft::test {
namespace {

using nlohmann::json;

class Flip : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    mesh_ = std::make_unique<Mesh>();
    const int pods = from_environment("WEFT_FLIP_PODS", 10, kServed);
    PodOptions plain;
    plain.workload = {{"protocol", "TCP"}};
    caller_ = &mesh_->add_pod(1, "shop", "caller");
    for (int i = 0; i < pods; ++i) {
      pods_.push_back(&mesh_->add_pod(1 + i % 2, "shop", "pod" + std::to_string(i), plain));
      if (i < kServed) pods_.back()->serve();
    }
  }
  void TearDown() override {
    if (!HasFailure() || !mesh_) return;
    for (int index : {1, 2})
      std::fprintf(stderr, "---- the agent of node %d:\n%s\n", index, mesh_->node(index).log().c_str());
  }
  /// How many connections the agents carry in tunnels.
  [[nodiscard]] std::size_t tunnelled(int node) {
    const json list = json::parse(mesh_->node(node).admin("/connections"));
    return static_cast<std::size_t>(
        std::ranges::count_if(list, [](const json& c) { return c.at("direction") == "outbound"; }));
  }

  static constexpr int kServed = 4;
  std::unique_ptr<Mesh> mesh_;
  Pod* caller_ = nullptr;
  std::vector<Pod*> pods_;
};

TEST_F(Flip, NoRequestFailsAndWhatLivesKeepsItsPath) {
  SteadyLoad load;
  for (int i = 0; i < kServed; ++i) {
    for (const Endpoint& to : {pods_[static_cast<std::size_t>(i)]->v4(), pods_[static_cast<std::size_t>(i)]->v6()}) {
      load.request(*caller_, to, false);
      load.hold(*caller_, to);
    }
    load.request(*caller_, pods_[static_cast<std::size_t>(i)]->v4(), true);
    // From one that changes itself, on the other node than the server where it is an odd one.
    load.request(*pods_[0], pods_[1]->v4(), i % 2 == 0);
  }
  load.expect_all_go_on("before");
  const int flips = from_environment("WEFT_FLIPS", 2, 2);
  for (int flip = 0; flip < flips; ++flip) {
    // A control plane tells the nodes of pods that join before it tells others; all of these pods are of both nodes,
    // and each agent takes HBONE for its own before it sends any.
    mesh_->set_protocol(pods_, true, {2, 1});
    load.expect_all_go_on("in the mesh");
    Process captured = caller_->hold(pods_[1]->v4());
    EXPECT_GT(tunnelled(1), 0U) << "new connections are the mesh's";
    mesh_->set_protocol(pods_, false, {1, 2});
    load.expect_all_go_on("out of the mesh");
    EXPECT_TRUE(captured.running()) << captured.out();
    EXPECT_GT(tunnelled(1), 0U) << "it keeps its path";
    ASSERT_FALSE(HasFailure());
  }
  // What was there before anybody joined is plaintext still; an operator may end it.
  mesh_->set_protocol(pods_, true, {2, 1});
  const std::vector<std::string> plaintext = {program("weftctl"), "connections", "--plaintext", "--pod", "shop/pod1"};
  const SpawnOptions on_node2 = {.netns = &mesh_->node(2).netns(), .environment = {}, .input = {}};
  const std::string listed = must_run(plaintext, on_node2);
  EXPECT_THAT(listed, ::testing::HasSubstr("inbound    " + pods_[1]->v4().to_string() + " "));
  EXPECT_THAT(listed, ::testing::HasSubstr("inbound    " + pods_[1]->v6().to_string() + " "));
  load.expect_all_go_on("listed");
  std::printf("  %zu pods, %d times in and out, %zu requests, none failed\n", pods_.size(), flips, load.answered());
  load.stop();
  Process old = caller_->hold(pods_[1]->v4());
  must_run({program("weftctl"), "connections", "--plaintext", "--expire"}, on_node2);
  EXPECT_TRUE(old.running()) << "it is the mesh's: " << old.out();
  mesh_->set_protocol({pods_[1]}, false, {1, 2});
  Process plain = caller_->hold(pods_[1]->v4());
  mesh_->set_protocol({pods_[1]}, true, {2, 1});
  must_run({program("weftctl"), "connections", "--plaintext", "--expire", "--pod", "shop/pod1"}, on_node2);
  EXPECT_TRUE(plain.wait(milliseconds(10'000)).has_value());
  EXPECT_THAT(must_run(plaintext, on_node2), "none\n");
}

}  // namespace
}  // namespace weft::test
