// SPDX-License-Identifier: Apache-2.0
/// What only some chains have: ports of the node, shaped rates, pods without a node's side.

#include "test/netns/chain_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class ChainHostPort : public ChainTest<BridgePortmapBandwidth> {};

TEST_F(ChainHostPort, APortOfTheNodeLeadsToAPodOfTheMesh) {
  PodOptions options;
  options.service_account = "front";
  options.host_port = 18080;
  Pod& front = on_->mesh.add_pod(1, "shop", "front", options);
  front.serve();
  const Node& node = on_->mesh.node(1);
  const Finished answer = get_from_node(on_->mesh.node(2), {node.address_v4(), options.host_port});
  EXPECT_THAT(answer, IsAnswer("front", on_->mesh.node(2).address_v4()));
  // Plaintext that a policy refuses is refused by this way too.
  on_->mesh.set_policy(deny_policy("shop", "mesh-only", plaintext()));
  const Finished refused = get_from_node(on_->mesh.node(2), {node.address_v4(), options.host_port},
                                         {"--connect-timeout", "1", "--timeout", "1"});
  EXPECT_FALSE(refused.ok()) << ::testing::PrintToString(refused);
  EXPECT_THAT(on_->db->get(front.v4()), IsAnswer("front", on_->db->address_v4()));
  on_->mesh.remove_policy("shop", "mesh-only");
  on_->mesh.remove_pod(front);
}

TEST_F(ChainHostPort, ThePodsRatesAreShapedBesideTheCapture) {
  const SpawnOptions on_node{.netns = &on_->mesh.node(1).netns(), .environment = {}, .input = {}};
  const std::string& veth = on_->client->host_interface();
  EXPECT_THAT(must_run({"tc", "qdisc", "show", "dev", veth}, on_node), HasSubstr("qdisc tbf"));
  // The pod's sending is shaped on a device of its own, to which a filter of bandwidth sends every packet.
  EXPECT_THAT(must_run({"tc", "filter", "show", "dev", veth, "ingress"}, on_node),
              HasSubstr("mirred (Egress Redirect"));
  const Finished moved = on_->client->bulk(on_->db->v4(), {"--send", "4000000", "--receive", "4000000"});
  EXPECT_TRUE(moved.ok()) << ::testing::PrintToString(moved);
}

class ChainCalicoPolicy : public ChainTest<CalicoDrop> {};

TEST_F(ChainCalicoPolicy, APolicyMadeLaterTakesHoldWhenTheTunnelEnds) {
  const std::vector<std::string> impatient{"--connect-timeout", "1", "--timeout", "1"};
  const Endpoint db = on_->db->v4();
  // Enough that every worker of the agent has a tunnel of its own.
  ASSERT_TRUE(on_->client->get(db, {"--count", "64"}).ok());
  const FakeFelix& felix = *on_->db->node().felix();
  for (const Pod* pod : {on_->client, on_->plain1}) felix.deny(on_->db->host_interface(), pod->address_v4());
  EXPECT_FALSE(on_->plain1->get(db, impatient).ok()) << "the policy is not in force";
  EXPECT_TRUE(on_->client->get(db, impatient).ok())
      << "the tunnel stood and its packets are of an established connection";
  on_->mesh.node(1).stop_agent();
  on_->mesh.node(1).start_agent();
  EXPECT_FALSE(on_->client->get(db, impatient).ok()) << "a new tunnel was let through";
  felix.clear_policy(on_->db->host_interface());
  EXPECT_TRUE(eventually(milliseconds(10'000), [&] { return on_->client->get(db, impatient).ok(); }));
}

class ChainMacvlan : public ChainTest<Ptp> {
 protected:
  static PodOptions macvlan() {
    PodOptions options;
    options.primary = Primary::kMacvlan;
    options.enrolled = false;
    return options;
  }
  void SetUp() override {
    ChainTestBase::SetUp();
    if (IsSkipped()) return;
    const SpawnOptions there{.netns = &on_->client->netns(), .environment = {}, .input = {}};
    const bool known = run({"ip", "link", "add", "probe0", "link", "eth0", "type", "macvlan"}, there).ok();
    if (!known) GTEST_SKIP() << "this kernel has no macvlan";
    on_->client->netns().ip("link del probe0");
  }
};

TEST_F(ChainMacvlan, APodWithoutANodesSideIsRefused) {
  Pod& pod = on_->mesh.plan_pod(1, "legacy", "direct", macvlan());
  const Finished added = on_->mesh.chain("add", pod);
  EXPECT_FALSE(added.ok());
  EXPECT_EQ(json::parse(added.out).at("code"), 104) << added.out;
  EXPECT_THAT(added.out, HasSubstr("macvlan"));
  EXPECT_FALSE(run({"ip", "link", "show", "dev", "eth0"}, {.netns = &pod.netns(), .environment = {}, .input = {}}).ok())
      << "the failed ADD left the interface";
  on_->mesh.remove_pod(pod);
}

TEST_F(ChainMacvlan, APodThatIsPassedReachesAndIsReachedInTheClear) {
  PodOptions options = macvlan();
  options.weft_conf = {{"unsupportedInterface", "pass"}};
  Pod& pod = on_->mesh.add_pod(1, "legacy", "direct", options);
  EXPECT_EQ(pod.host_interface(), "");
  pod.serve();
  // It is on the wire itself: node 2 finds it there, and it finds node 2's pods behind that node.
  const Node& far = on_->mesh.node(2);
  pod.netns().ip("route add " + far.address_v4().to_string() + "/32 dev eth0");
  pod.netns().ip("route add 10.71.2.0/24 via " + far.address_v4().to_string());
  far.netns().ip("route add " + pod.address_v4().to_string() + "/32 dev wire");
  expect_untouched(pod.get(on_->plain2->v4()), "plain2");
  expect_untouched(pod.get(on_->db->v4()), "db");
  expect_untouched(on_->db->get(pod.v4()), "direct");
  far.netns().ip("route del " + pod.address_v4().to_string() + "/32 dev wire");
  on_->mesh.remove_pod(pod);
}

}  // namespace
}  // namespace weft::test
