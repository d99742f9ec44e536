// SPDX-License-Identifier: Apache-2.0
/// Connections that lose one of their sockets in the middle: nothing of what is left to send may leave in the clear.

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kDeadline{20'000};

class CutAttack : public AttackTest {
 protected:
  void SetUp() override {
    AttackTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    victim_veth_ = std::make_unique<Capture>(node(2).netns(), victim().host_interface());
  }

  /// A transfer both ways that would take minutes, once it is under way.
  Process start_bulk(bool v6) {
    wire().clear();
    Process bulk =
        attacker().start({program("weft-testapp"), "bulk", target(v6), "--send", "900000000", "--receive", "900000000",
                          "--read-rate", "4000000", "--server-read-rate", "4000000", "--timeout", "3"});
    constexpr std::size_t kFramesInTheMiddle = 400;
    EXPECT_TRUE(eventually(kDeadline, [&] { return wire().frames() > kFramesInTheMiddle; }))
        << bulk.out() << bulk.err() << node(1).log();
    const auto bytes_to = [&](const Pod& pod) {
      return wire().payload_bytes([&](const Segment& s) {
        return s.destination.address == pod.address_v4() || s.destination.address == pod.address_v6();
      });
    };
    EXPECT_GT(bytes_to(victim()), 50'000U);
    EXPECT_GT(bytes_to(attacker()), 50'000U);
    return bulk;
  }
  [[nodiscard]] std::string target(bool v6) { return (v6 ? victim().v6() : victim().v4()).to_string(); }

  /// Nothing in the clear on the host's sides of both veths and between the nodes.
  void expect_nothing_leaked() {
    flush_wire();
    expect_no_plaintext(veth(), "the attacker's veth");
    expect_no_plaintext(*victim_veth_, "the victim's veth");
    expect_no_plaintext(wire(), "the wire");
    EXPECT_EQ(victim_veth_->lost(), 0U);
    EXPECT_GT(veth().frames(), 0U);
    EXPECT_GT(victim_veth_->frames(), 0U);
  }

  std::unique_ptr<Capture> victim_veth_;
};

TEST_F(CutAttack, TheClientsAgentIsKilled) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    Process bulk = start_bulk(v6);
    node(1).kill_agent();
    EXPECT_TRUE(bulk.wait(kDeadline).has_value()) << "the application never noticed";
    expect_nothing_leaked();
    // What is new waits, and is answered by the next agent.
    const Capture lo(attacker().netns(), "lo");
    Process waiting =
        attacker().start({program("weft-testapp"), "get", target(v6), "--connect-timeout", "30", "--timeout", "10"});
    const auto is_first = [](const Segment& s) { return s.is_syn() && !s.outgoing; };
    EXPECT_TRUE(eventually(kDeadline, [&] { return lo.segments(is_first).size() >= 2; })) << "the SYN is not repeated";
    EXPECT_TRUE(waiting.running()) << waiting.out() << waiting.err();
    node(1).start_agent();
    EXPECT_EQ(waiting.wait(kDeadline).value_or(-1), 0) << waiting.out() << waiting.err();
    expect_nothing_leaked();
  }
}

TEST_F(CutAttack, TheServersAgentIsKilled) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    Process bulk = start_bulk(v6);
    node(2).kill_agent();
    EXPECT_TRUE(bulk.wait(kDeadline).has_value()) << "the client never noticed";
    expect_nothing_leaked();
    node(2).start_agent();
    EXPECT_TRUE(eventually(kDeadline, [&] { return attacker().get(v6 ? victim().v6() : victim().v4()).ok(); }));
    expect_nothing_leaked();
  }
}

// ss -K destroys a socket where it stands; no process has a say in it.
TEST_F(CutAttack, SocketsAreDestroyed) {
  struct Case {
    const char* name;
    Pod& where;
    std::string filter;  // of ss
  };
  for (const bool v6 : {false, true}) {
    for (const auto& [name, where, filter] : {Case{"the client application's", attacker(), "dport = :8080"},
                                              Case{"the agent's beside it", attacker(), "sport = :8080"},
                                              Case{"the server application's", victim(), "sport = :8080"},
                                              Case{"the agent's beside it", victim(), "dport = :8080"}}) {
      SCOPED_TRACE(std::string(name) + (v6 ? " IPv6" : " IPv4"));
      Process bulk = start_bulk(v6);
      const std::vector<std::string> select{"-t", "-n", "-H", "state", "established", filter};
      const auto ss = [&](std::vector<std::string> arguments) {
        arguments.insert(arguments.end(), select.begin(), select.end());
        return where.start(arguments).finish(kDeadline);
      };
      ASSERT_NE(ss({"ss"}).out, "") << "no such socket";
      const Finished destroyed = ss({"ss", "-K"});
      if (destroyed.out.empty()) {
        GTEST_SKIP() << "ss -K destroys nothing; the kernel lacks CONFIG_INET_DIAG_DESTROY? " << destroyed.err;
      }
      EXPECT_TRUE(bulk.wait(kDeadline).has_value()) << "the client never noticed";
      expect_nothing_leaked();
    }
  }
}

// The application never hears that the agent's socket is gone, since its own pod shut lo meanwhile: it sends again and
// again what was not acknowledged. Only the verdict in its socket tells then that this is a captured connection.
TEST_F(CutAttack, SocketsAreDestroyedUnheard) {
  const Process first = attacker().hold(victim().v4(), {"--interval", "0.01", "--timeout", "30"});
  const Process second = attacker().hold(victim().v6(), {"--interval", "0.01", "--timeout", "30"});
  const auto ss = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"-t", "-n", "-H", "state", "established", "sport = :8080"});
    return attacker().start(arguments).finish(kDeadline).out;
  };
  ASSERT_NE(ss({"ss"}), "");
  attacker().netns().ip("link set lo down");
  const std::string destroyed = ss({"ss", "-K"});
  const std::string left = ss({"ss"});
  attacker().netns().ip("link set lo up");
  if (destroyed.empty()) GTEST_SKIP() << "ss -K destroys nothing; the kernel lacks CONFIG_INET_DIAG_DESTROY?";
  EXPECT_EQ(left, "");
  const auto packets_out = [&] {
    return packets(node(1), "from_pod", "a captured connection") +
           packets(node(1), "from_pod", "a connection that is not captured");
  };
  const auto before = packets_out();
  EXPECT_TRUE(eventually(kDeadline, [&] { return packets_out() >= before + 2; })) << "nothing is sent again";
  expect_nothing_leaked();
}

}  // namespace
}  // namespace weft::test
