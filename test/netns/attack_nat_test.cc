// SPDX-License-Identifier: Apache-2.0
/// The pod's own address translation turns the agent's connections, or those that the agent is to have, elsewhere.

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kDeadline{10'000};
constexpr const char* kTagMisused = "a socket of the agent sent elsewhere";
constexpr const char* kForeign = "a source that is not the pod's";
constexpr std::uint16_t kTunnel = 15008;

class NatAttack : public SharedAttackTest<NatAttack> {
 protected:
  static std::string dnat_to(const Endpoint& to) {
    return std::string("dnat ") + (to.address.is_v4() ? "ip" : "ip6") + " to " + to.to_string();
  }
  /// Has the pod translate what matches, in one direction, as long as it lives.
  class Translation {
   public:
    Translation(const Pod& pod, const std::string& rule)
        : Translation(pod, {{"type nat hook output priority -100", rule}}) {}
    /// Chains, each with its rule.
    Translation(const Pod& pod, const std::vector<std::pair<std::string, std::string>>& chains) : pod_(pod) {
      std::string text = "table inet own {\n";
      for (std::size_t i = 0; i < chains.size(); ++i) {
        text += " chain c" + std::to_string(i) + " {\n " + chains[i].first + "\n " + chains[i].second + "\n }\n";
      }
      must_run({"nft", "-f", "-"}, {.netns = &pod_.netns(), .environment = {}, .input = text + "}\n"});
    }
    Translation(const Translation&) = delete;
    Translation& operator=(const Translation&) = delete;
    ~Translation() {
      run({"nft", "delete", "table", "inet", "own"}, {.netns = &pod_.netns(), .environment = {}, .input = {}});
    }

   private:
    const Pod& pod_;
  };
  /// The control's connection to `to` is answered by the squatter: the translation works.
  void expect_turned(const Endpoint& to) {
    const Finished turned = control().get(to);
    EXPECT_NE(turned.out.find("server=squatter"), std::string::npos) << turned.out << turned.err;
  }
  Finished try_briefly(const Pod& from, const Endpoint& to, const std::string& marker) {
    return from.get(to, {"--marker", marker, "--connect-timeout", "0.5", "--timeout", "0.5"});
  }
  /// A tunnel that is there is used again: the attacker gets a new one.
  void drop_tunnels() { attacker().start({"ss", "-K", "-t", "-n", "-H", "dport = :15008"}).finish(kDeadline); }
};

TEST_F(NatAttack, TheAgentsTunnelTurnedElsewhere) {
  const Process outside_squatter = squat(outside(), kTunnel), neighbour_squatter = squat(neighbour(), kTunnel);
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const std::string match = "meta nfproto " + std::string(v6 ? "ipv6" : "ipv4") + " tcp dport 15008 ";
    {
      const Translation control_turns(control(), match + dnat_to(of(outside(), v6, kTunnel)));
      expect_turned(of(victim(), v6, kTunnel));
    }
    for (const Pod* to : {&outside(), &neighbour()}) {
      SCOPED_TRACE(to->name());
      drop_tunnels();
      const Translation turns(attacker(), match + dnat_to(of(*to, v6, kTunnel)));
      const auto before = packets(node(1), "from_pod", kTagMisused);
      const std::size_t taken = connections_of(outside_squatter) + connections_of(neighbour_squatter);
      const std::string marker = new_marker();
      EXPECT_FALSE(try_briefly(attacker(), of(victim(), v6), marker).ok());
      EXPECT_GT(packets(node(1), "from_pod", kTagMisused), before);
      EXPECT_EQ(connections_of(outside_squatter) + connections_of(neighbour_squatter), taken);
      expect_nowhere(marker);
    }
    {
      SCOPED_TRACE("a process of the pod's own");
      const Process own = squat(attacker(), 9999);
      drop_tunnels();
      const Translation turns(attacker(), match + "redirect to :9999");
      const std::string marker = new_marker();
      EXPECT_FALSE(try_briefly(attacker(), of(victim(), v6), marker).ok());
      EXPECT_GT(connections_of(own), 0U) << "it took no tunnel: the attack is none";
      EXPECT_EQ(own.out().find(marker), std::string::npos) << own.out();
      expect_nowhere(marker);
    }
    EXPECT_TRUE(eventually(kDeadline, [&] { return attacker().get(of(victim(), v6)).ok(); })) << node(1).log();
  }
}

TEST_F(NatAttack, AConnectionToElsewhereTurnedIntoTheMesh) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const std::string family = v6 ? "ip6" : "ip";
    const std::string rule =
        family + " daddr " + of(outside(), v6).address.to_string() + " tcp dport 8080 " + dnat_to(of(victim(), v6));
    const Translation control_turns(control(), rule), turns(attacker(), rule);
    const std::string in_the_clear = new_marker(), marker = new_marker();
    const Finished turned = control().get(of(outside(), v6), {"--marker", in_the_clear});
    EXPECT_NE(turned.out.find("server=victim"), std::string::npos) << turned.out << turned.err;
    EXPECT_TRUE(on_wire(in_the_clear));
    const auto before = packets(node(1), "from_pod", "a new connection to the mesh");
    (void)try_briefly(attacker(), of(outside(), v6), marker);
    EXPECT_GT(packets(node(1), "from_pod", "a new connection to the mesh"), before);
    expect_nowhere(marker);
  }
}

// On lo, after it was captured, and back again on the answers; without connection tracking, which knows the connection
// by then. Each packet goes to the agent by the connection that it belongs to, and to none under any other.
TEST_F(NatAttack, ACapturedConnectionTurnedOnItsWayToTheAgent) {
  const Process server = squat(neighbour(), Pod::kPort);
  for (const bool v6 : {false, true}) {
    const std::string ip = v6 ? "ip6 " : "ip ", from = of(victim(), v6).address.to_string();
    for (const Endpoint& to :
         {of(neighbour(), v6), of(outside(), v6), {*IpAddress::parse(v6 ? "::1" : "127.0.0.1"), 15000}}) {
      SCOPED_TRACE(to.to_string());
      const std::string address = to.address.to_string(), port = std::to_string(to.port);
      const std::string there = "iif lo " + ip + "daddr " + from + " tcp dport 8080 counter " + ip + "daddr set " +
                                address + " tcp dport set " + port + " notrack";
      const std::string back = "oif lo " + ip + "saddr " + address + " tcp sport " + port + " counter " + ip +
                               "saddr set " + from + " tcp sport set 8080 notrack";
      const Translation turns(attacker(), {{"type filter hook prerouting priority -300", there},
                                           {"type filter hook output priority -300", back}});
      const std::string marker = new_marker();
      const std::size_t logged = node(1).log().size();
      EXPECT_FALSE(try_briefly(attacker(), of(victim(), v6), marker).ok());
      const std::string counted =
          run({"nft", "list", "table", "inet", "own"}, {.netns = &attacker().netns(), .environment = {}, .input = {}})
              .out;
      EXPECT_EQ(counted.find("dport 8080 counter packets 0"), std::string::npos) << "nothing was turned:\n" << counted;
      EXPECT_EQ(node(1).log().find("connection complete", logged), std::string::npos) << "the agent took it";
      EXPECT_EQ(connections_of(server), 0U) << server.out();
      expect_nowhere(marker);
    }
  }
}

// What the agent hands on to the application, in the client's name.
TEST_F(NatAttack, TheAgentsConnectionToTheApplicationTurnedElsewhere) {
  const Process server = squat(attacker(), Pod::kPort), elsewhere = squat(outside(), 9998),
                own = squat(attacker(), 9999);
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const std::string match = "meta nfproto " + std::string(v6 ? "ipv6" : "ipv4") + " tcp dport 8080 ";
    const std::string rule = match + dnat_to(of(outside(), v6, 9998));
    {
      const Translation control_turns(control(), rule);
      expect_turned(of(victim(), v6));
    }
    for (const auto& [client, reason, by] :
         {std::tuple{&neighbour(), kTagMisused, "from_pod"}, {&victim(), kForeign, "from_pod"}}) {
      SCOPED_TRACE(client->name());
      EXPECT_TRUE(client->get(of(attacker(), v6)).ok());
      const Translation turns(attacker(), rule);
      const auto before = packets(node(1), by, reason);
      const std::size_t taken = connections_of(elsewhere);
      const std::string marker = new_marker();
      EXPECT_FALSE(try_briefly(*client, of(attacker(), v6), marker).ok());
      EXPECT_GT(packets(node(1), by, reason), before);
      EXPECT_EQ(connections_of(elsewhere), taken);
      expect_nowhere(marker);
    }
  }
}

}  // namespace
}  // namespace weft::test
