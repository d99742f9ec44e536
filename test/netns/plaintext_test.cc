// SPDX-License-Identifier: Apache-2.0
/// Plaintext into a mesh pod: what needs no decision never wakes the agent, and policies change what becomes of it
/// while everything runs.

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr milliseconds kSoon{10'000};
/// For connections that are expected to fail.
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};
constexpr std::uint16_t kException = 9000;

class MeshPlaintext : public MeshTest {
 protected:
  static void SetUpTestSuite() {
    MeshTest::SetUpTestSuite();
    if (mesh_) db->serve(kException);
  }
  /// What the agent of node 2 has had to do with plaintext and with anything else that is new to its pods.
  struct Seen {
    double handed_over;  ///< SYNs that to_pod gave to a listener
    double passed, dropped;
    double opened;  ///< connections that the agent reports as their destination
    std::size_t records;
    bool operator==(const Seen&) const = default;
  };
  static Seen seen() {
    const std::string metrics = node2().metrics();
    const auto packets = [&](const char* reason) {
      return metric(metrics, "weft_bpf_packets_total",
                    {"program=\"to_pod\"", std::string("reason=\"") + reason + "\""});
    };
    return {.handed_over = packets("handed to a listener of the agent"),
            .passed = packets("plaintext that needs no check"),
            .dropped = packets("no plaintext into this pod"),
            .opened = metric(metrics, "istio_tcp_connections_opened_total", {"reporter=\"destination\""}),
            .records = log_lines(node2().log(), 0, {"connection complete", "direction=inbound"}).size()};
  }
  static void expect_agent_idle_since(const Seen& before) {
    const Seen now = seen();
    EXPECT_EQ(now.handed_over, before.handed_over);
    EXPECT_EQ(now.opened, before.opened);
    EXPECT_EQ(now.records, before.records);
  }

  static json strict() {
    json policy = deny_policy("istio-system", "strict", plaintext());
    policy["scope"] = "Global";
    return policy;
  }
  /// STRICT but for one port.
  static json strict_but_for(std::uint16_t port) {
    json policy = strict();
    policy["rules"][0].push_back(json::array({{{"notDestinationPorts", {port}}}}));
    return policy;
  }
  /// What /pods says of the pod.
  static json shown(const Pod& pod) {
    for (const json& entry : json::parse(pod.node().admin("/pods"))) {
      if (entry.at("name") == pod.name()) return entry;
    }
    return {};
  }
};

TEST_F(MeshPlaintext, WithoutPoliciesItNeverReachesTheAgent) {
  const Seen before = seen();
  for (int i = 0; i < 5; ++i) {
    expect_untouched(outside->get(db->v4()), "db");
    expect_untouched(outside->get(db->v6()), "db");
  }
  EXPECT_GE(seen().passed, before.passed + 10);
  expect_agent_idle_since(before);
  EXPECT_EQ(shown(*db).at("inboundPlaintext"), "pass");
}

TEST_F(MeshPlaintext, WithPoliciesThatCannotMatchItItNeverReachesTheAgentEither) {
  mesh().set_policy(deny_policy("bank", "no-client", principal(*client)));
  const Seen before = seen();
  expect_untouched(outside->get(db->v4()), "db");
  expect_agent_idle_since(before);
  EXPECT_FALSE(client->get(db->v4()).ok());
  mesh().remove_policy("bank", "no-client");
}

TEST_F(MeshPlaintext, StrictDropsItWithoutTheAgentAndAPortExceptionLetsItIn) {
  mesh().set_policy(strict());
  Seen before = seen();
  for (const auto& to : {db->v4(), db->v6()}) {
    const Finished nothing = outside->get(to, kImpatient);
    EXPECT_FALSE(nothing.ok());
    EXPECT_EQ(nothing.out.find("refused"), std::string::npos) << "an answer: " << nothing.out;
    EXPECT_EQ(nothing.out.find("reset"), std::string::npos) << "an answer: " << nothing.out;
  }
  EXPECT_GE(seen().dropped, before.dropped + 2);
  expect_agent_idle_since(before);
  EXPECT_EQ(shown(*db).at("inboundPlaintext"), "drop");
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));

  mesh().set_policy(strict_but_for(kException));
  EXPECT_EQ(shown(*db).at("inboundPlaintext"), "check");
  before = seen();
  for (const auto& to : {db->v4(kException), db->v6(kException)}) EXPECT_TRUE(outside->get(to).ok()) << to.to_string();
  const std::size_t log_before = node2().log().size();
  for (const auto& to : {db->v4(), db->v6()}) EXPECT_FALSE(outside->get(to, kImpatient).ok()) << to.to_string();
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node2().log(), log_before, {"response_flags=DENY", "policy=istio-system/strict"}).size() == 2;
  }));
  EXPECT_EQ(seen().handed_over, before.handed_over + 4);

  mesh().remove_policy("istio-system", "strict");
  EXPECT_EQ(shown(*db).at("inboundPlaintext"), "pass");
  before = seen();
  expect_untouched(outside->get(db->v4()), "db");
  expect_agent_idle_since(before);
}

TEST_F(MeshPlaintext, AConnectionThatWaitsThroughStrictIsLetInWhenItEnds) {
  mesh().set_policy(strict());
  const double dropped = seen().dropped;
  Process waiting = outside->start({program("weft-testapp"), "get", db->v4().to_string(), "--connect-timeout", "30"});
  EXPECT_TRUE(eventually(kSoon, [&] { return seen().dropped > dropped; }));
  mesh().remove_policy("istio-system", "strict");
  expect_untouched(waiting.finish(milliseconds(30'000)), "db");
}

/// They came past the agent, which none of them ever met.
TEST_F(MeshPlaintext, LiveConnectionsThatAChangeDeniesAreCutAndNoOthers) {
  const auto hold = [](const Endpoint& to) { return outside->hold(to); };
  Process v4 = hold(db->v4()), v6 = hold(db->v6()), excepted = hold(db->v4(kException));
  Process elsewhere = hold(web2->v4()), tunnelled = client->hold(db->v4()), leaving = db->hold(outside->v4());
  Process of_node = Process::start({program("weft-testapp"), "hold", db->v4().to_string()},
                                   {.netns = &node2().netns(), .environment = {}, .input = {}});
  ASSERT_TRUE(of_node.wait_for_output("held ", kSoon));
  const std::size_t log_before = node2().log().size();
  json deny = strict_but_for(kException);
  deny["namespace"] = "bank";
  deny["scope"] = "Namespace";
  mesh().set_policy(deny);
  for (Process* cut : {&v4, &v6}) EXPECT_TRUE(cut->wait_for_output("ended how=reset", kSoon)) << cut->out();
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node2().log(), log_before, {"plaintext connection cut pod=bank/db", "policy=bank/strict"})
               .size() == 2;
  }));
  // One that the agent carries, beside one that it does not.
  Process carried = hold(db->v6(kException));
  EXPECT_TRUE(excepted.running()) << excepted.out();
  deny["rules"][0].erase(1);
  mesh().set_policy(deny);
  for (Process* cut : {&excepted, &carried}) EXPECT_TRUE(cut->wait_for_output("ended how=reset", kSoon)) << cut->out();
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node2().log(), log_before, {"direction=inbound", "response_flags=DENY", "policy=bank/strict"})
               .size() == 1;
  })) << "the agent's own is the agent's to end";
  for (Process* lives : {&elsewhere, &tunnelled, &leaving, &of_node}) EXPECT_TRUE(lives->running()) << lives->out();
  mesh().remove_policy("bank", "strict");
}

TEST_F(MeshPlaintext, TheBypassAnnotationLetsItInUncheckedAndNothingElse) {
  PodOptions options;
  options.service_account = "open";
  options.annotations = {{"ambient.istio.io/bypass-inbound-capture", "true"}, {"example.com/other", "x"}};
  Pod& open = mesh().add_pod(2, "bank", "open", options);
  open.serve();
  mesh().set_policy(strict());
  mesh().set_policy(deny_policy("bank", "no-client", principal(*client)));
  EXPECT_EQ(shown(open).at("inboundBypass"), true);
  EXPECT_EQ(shown(*db).at("inboundBypass"), false);

  const auto expect_open = [&] {
    const Seen before = seen();
    expect_untouched(outside->get(open.v4()), "open");
    expect_untouched(outside->get(open.v6()), "open");
    expect_agent_idle_since(before);
    EXPECT_FALSE(outside->get(db->v4(), kImpatient).ok()) << "its neighbour is not open";
    // HBONE is taken and checked as ever, and what leaves the pod is captured.
    EXPECT_THAT(web1->get(open.v4()), IsAnswer("open", web1->address_v4()));
    EXPECT_FALSE(client->get(open.v4()).ok());
    const std::size_t log_before = node1().log().size();
    EXPECT_THAT(open.get(web1->v4()), IsAnswer("web1", open.address_v4()));
    EXPECT_TRUE(eventually(kSoon, [&] {
      return log_lines(node1().log(), log_before, {"direction=inbound", "src.identity=" + open.identity()}).size() == 1;
    }));
  };
  expect_open();
  // The next agent has it from the record alone.
  node2().kill_agent();
  expect_untouched(outside->get(open.v4()), "open");
  node2().start_agent();
  ASSERT_TRUE(eventually(kSoon, [&] { return shown(open).value("state", "") == "enrolled"; }));
  EXPECT_EQ(shown(open).at("inboundBypass"), true);
  expect_open();
  mesh().remove_policy("istio-system", "strict");
  mesh().remove_policy("bank", "no-client");
  mesh().remove_pod(open);
}

TEST_F(MeshPlaintext, APolicyThatIsNotKnownDeniesIsNamedAndArrives) {
  PodOptions options;
  options.service_account = "early";
  options.workload = {{"authorizationPolicies", {"bank/late"}}};
  Pod& early = mesh().add_pod(2, "bank", "early", options);
  early.serve();
  EXPECT_EQ(shown(early).at("inboundPlaintext"), "check");
  const std::vector<std::string> denials{"policy=\"bank/late\"", "action=\"deny\"", "mode=\"enforced\""};
  const double before = metric(node2().metrics(), "weft_policy_decisions_total", denials);
  const std::size_t log_before = node2().log().size();
  EXPECT_FALSE(outside->get(early.v4(), kImpatient).ok());
  EXPECT_FALSE(client->get(early.v4(), kImpatient).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node2().log(), log_before, {"response_flags=DENY", "policy=bank/late", "it is not known yet"})
               .size() == 2;
  }));
  EXPECT_EQ(metric(node2().metrics(), "weft_policy_decisions_total", denials), before + 2);

  json late = deny_policy("bank", "late", {{"destinationPorts", {9}}});
  late["scope"] = "WorkloadSelector";
  mesh().set_policy(late);
  EXPECT_THAT(outside->get(early.v4()), IsAnswer("early", outside->address_v4()));
  EXPECT_THAT(client->get(early.v4()), IsAnswer("early", client->address_v4()));
  mesh().remove_policy("bank", "late");
  mesh().remove_pod(early);
}

}  // namespace
}  // namespace weft::test
