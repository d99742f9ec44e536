// SPDX-License-Identifier: Apache-2.0
/// A root process of the pod takes away what leads captured packets to the agent: rules, routes, lo, sysctls, the mark.

#include <gmock/gmock.h>

#include "cni-plugin/pod_routing.h"
#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;

constexpr milliseconds kDeadline{10'000};
constexpr const char* kLooped = "the capture mark, or back from lo";

class RoutingAttack : public SharedAttackTest<RoutingAttack> {
 protected:
  void TearDown() override {
    if (has_mesh()) put_right(attacker());
    SharedAttackTest::TearDown();
  }
  /// As the plugin has made it.
  static void put_right(const Pod& pod) {
    set_forwarding(pod, false);
    const auto done = cni::prepare_netns(pod.netns().fd(), true, pod.address_v4());
    EXPECT_TRUE(done) << done.error().message();
  }
  static void set_forwarding(const Pod& pod, bool on) {
    pod.netns().sysctl("net/ipv4/ip_forward", on ? "1" : "0");
    pod.netns().sysctl("net/ipv6/conf/all/forwarding", on ? "1" : "0");
  }
  static void nft(const Pod& pod, const std::string& rules) {
    must_run({"nft", "-f", "-"}, {.netns = &pod.netns(), .environment = {}, .input = rules});
  }
  /// Attempts of both families at once, the first by IPv4; a short one where no answer is to come.
  std::pair<Finished, Finished> try_both(const Pod& from, const std::string& marker, bool answers_v4, bool answers_v6) {
    const auto start = [&](const Endpoint& to, bool answers) {
      return from.start({program("weft-testapp"), "get", to.to_string(), "--marker", marker, "--connect-timeout",
                         answers ? "5" : "0.4", "--timeout", "2"});
    };
    Process v4 = start(victim().v4(), answers_v4), v6 = start(victim().v6(), answers_v6);
    return {v4.finish(kDeadline), v6.finish(kDeadline)};
  }
};

struct Damage {
  const char* name;
  std::vector<const char*> commands;  ///< of ip
  std::vector<std::pair<const char*, const char*>> sysctls;
  bool closes_v4, closes_v6;
  const char* found;  ///< by CHECK
};

const std::vector<Damage>& damages() {
  static const std::vector<std::pair<const char*, const char*>> forward{{"net/ipv4/ip_forward", "1"},
                                                                        {"net/ipv6/conf/all/forwarding", "1"}};
  static const std::vector<Damage> all{
      {"rules deleted",
       {"rule del pref 1", "-6 rule del pref 1"},
       {},
       true,
       true,
       "rule for the capture mark is missing"},
      {"rules deleted, and the pod forwards",
       {"rule del pref 1", "-6 rule del pref 1"},
       forward,
       true,
       true,
       "rule for the capture mark is missing"},
      {"rules ahead, and the pod forwards",
       {"rule add pref 0 lookup main", "-6 rule add pref 0 lookup main"},
       forward,
       true,
       true,
       "stands before the one for the capture mark"},
      {"table flushed",
       {"route flush table 1500", "-6 route flush table 1500"},
       {},
       true,
       true,
       "local default route of table 1500 is missing"},
      {"lo down", {"link set lo down"}, {}, true, true, "lo is down"},
      {"accept_local off", {}, {{"net/ipv4/conf/lo/accept_local", "0"}}, true, false, "accept_local is not 1"},
      {"IPv6 switched off on lo", {}, {{"net/ipv6/conf/lo/disable_ipv6", "1"}}, false, true, "lo has no IPv6"},
      {"IPv6 switched off and on again",
       {},
       {{"net/ipv6/conf/lo/disable_ipv6", "1"}, {"net/ipv6/conf/lo/disable_ipv6", "0"}},
       false,
       true,
       "IPv6 local default route of table 1500 is missing"},
  };
  return all;
}

// Reconcile.WhatIsDamagedIsMended has the rest of it.
TEST_F(RoutingAttack, PiecesTakenAway) {
  for (const Damage& damage : damages()) {
    SCOPED_TRACE(damage.name);
    const Process held_v4 = attacker().hold(victim().v4(), {"--interval", "0.01", "--timeout", "30"});
    const Process held_v6 = attacker().hold(victim().v6(), {"--interval", "0.01", "--timeout", "30"});
    for (const Pod* pod : {&attacker(), &control()}) {
      for (const auto& [path, value] : damage.sysctls) pod->netns().sysctl(path, value);
      for (const char* command : damage.commands) pod->netns().ip(command);
    }
    const std::string marker = new_marker(), in_the_clear = new_marker();
    const auto [v4, v6] = try_both(attacker(), marker, !damage.closes_v4, !damage.closes_v6);
    EXPECT_EQ(v4.ok(), !damage.closes_v4) << v4.out << v4.err;
    EXPECT_EQ(v6.ok(), !damage.closes_v6) << v6.out << v6.err;
    EXPECT_THAT(check_attacker(), HasSubstr(damage.found));
    // Outside the mesh none of this stops anybody.
    const auto [control_v4, control_v6] = try_both(control(), in_the_clear, true, true);
    EXPECT_TRUE(control_v4.ok() && control_v6.ok()) << control_v4.out << control_v6.out;
    EXPECT_TRUE(on_wire(in_the_clear));
    expect_nowhere(marker);
    for (Pod* pod : {&attacker(), &control()}) {
      if (damage.commands.size() == 2 && std::string(damage.commands[0]).starts_with("rule add")) {
        pod->netns().ip("rule del pref 0 lookup main");
        pod->netns().ip("-6 rule del pref 0 lookup main");
      }
      put_right(*pod);
    }
    EXPECT_EQ(check_attacker(), "");
  }
  const auto [v4, v6] = try_both(attacker(), new_marker(), true, true);
  EXPECT_TRUE(v4.ok() && v6.ok()) << v4.out << v6.out;
}

// A packet that the pod forwards has lost its socket, and the verdict with it: once the agent's socket is gone nothing
// but its way by lo tells that it was captured.
TEST_F(RoutingAttack, MarkTakenOffAndForwarded) {
  const std::string by_routing =
      "table inet own {\n chain in {\n type filter hook prerouting priority -150\n iif lo meta mark set 0\n }\n}\n";
  const std::string by_filter =
      "table netdev own {\n chain in {\n type filter hook ingress device lo priority 0\n meta mark set 0 fwd to "
      "\"eth0\""
      "\n }\n}\n";
  for (const auto& [rules, table] : {std::pair{by_routing, "inet own"}, {by_filter, "netdev own"}}) {
    for (const bool v6 : {false, true}) {
      SCOPED_TRACE(std::string(table) + (v6 ? ", IPv6" : ", IPv4"));
      for (const Pod* pod : {&attacker(), &control()}) {
        set_forwarding(*pod, true);
        nft(*pod, rules);
      }
      // Such a pod outside the mesh lets out what comes in by lo.
      const std::string in_the_clear = new_marker();
      const Link link = link_of(control());
      PacketSender(control().netns(), "lo", Way::kPacketSocket)
          .send(frame(rules == by_filter ? link : Link{}, syn(control(), v6, in_the_clear).bytes()));
      EXPECT_TRUE(on_wire(in_the_clear)) << "not even the control lets it out";
      nft(control(), std::string("delete table ") + table);
      nft(attacker(), std::string("delete table ") + table);

      const Process held =
          attacker().hold(v6 ? victim().v6() : victim().v4(), {"--interval", "0.01", "--timeout", "30"});
      const auto before = packets(node(1), "from_pod", kLooped);
      // The application does not hear that the agent is gone, and sends again and again.
      attacker().netns().ip("link set lo down");
      node(1).kill_agent();
      const Finished destroyed =
          attacker().start({"ss", "-K", "-t", "-n", "-a", "-H", "sport = :8080"}).finish(kDeadline);
      attacker().netns().ip("link set lo up");
      nft(attacker(), rules);
      const Finished waiting = try_get(v6 ? victim().v6() : victim().v4(), new_marker(), {}, "0.4");
      EXPECT_FALSE(waiting.ok()) << waiting.out;
      node(1).start_agent();
      if (destroyed.out.empty()) GTEST_SKIP() << "ss -K destroys nothing; the kernel lacks CONFIG_INET_DIAG_DESTROY?";
      EXPECT_TRUE(eventually(kDeadline, [&] { return packets(node(1), "from_pod", kLooped) > before; }))
          << "nothing came back";
      expect_nowhere(new_marker());
      nft(attacker(), std::string("delete table ") + table);
      put_right(attacker());
      put_right(control());
      EXPECT_TRUE(attacker().get(v6 ? victim().v6() : victim().v4()).ok()) << node(1).log();
    }
  }
}

}  // namespace
}  // namespace weft::test
