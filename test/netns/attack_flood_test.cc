// SPDX-License-Identifier: Apache-2.0
/// SYN cookies, and floods that make the kernel send them: there the last ACK of a handshake meets no socket.

#include <algorithm>
#include <cstdio>

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

constexpr int kFlood = 3000;
constexpr milliseconds kDeadline{20'000};
const std::vector<std::pair<std::string, std::string>> kCookies = {{"net/ipv4/tcp_syncookies", "2"},
                                                                   {"net/ipv4/tcp_max_syn_backlog", "1"}};

/// The capture's share of segments with RST, in both directions.
std::size_t resets(const Capture& capture) {
  return capture.segments([](const Segment& s) { return (s.flags & Segment::kRst) != 0; }).size();
}

class CookieAttack : public AttackTest {
 protected:
  AttackOptions options() const override { return {.attacker_sysctls = kCookies, .victim_sysctls = kCookies}; }

  std::uint64_t cookies_received(const Pod& pod) {
    const std::string text = run_in(pod.netns(), [] { return read_file("/proc/thread-self/net/netstat"); });
    // Names on the first line, values on the second; SyncookiesRecv is the second of them.
    unsigned long long sent = 0, received = 0;
    const auto values = text.find("\nTcpExt: ");
    EXPECT_TRUE(text.starts_with("TcpExt: SyncookiesSent SyncookiesRecv "));
    EXPECT_EQ(std::sscanf(text.c_str() + values, "\nTcpExt: %llu %llu", &sent, &received), 2);
    return received;
  }

  /// Has the pod take no SYN-ACK from this port, so that its handshakes stay half open: by a rule ahead of the one for
  /// local addresses.
  static void deafen(const Pod& pod, bool v6, std::uint16_t port) {
    const std::string family = v6 ? "-6 " : "";
    const std::string rules = pod.netns().ip(family + "rule list");
    if (rules.starts_with("0:")) {
      pod.netns().ip(family + "rule add pref 10 lookup local");
      pod.netns().ip(family + "rule del pref 0");
    }
    pod.netns().ip(family + "rule add pref 5 iif eth0 ipproto tcp sport " + std::to_string(port) + " blackhole");
  }

  /// Segments with RST on the wire from other pods than the attacker and the control, which get answers to SYNs that
  /// their sockets never sent.
  std::size_t resets_of_others() {
    const auto flooders = {attacker().address_v4(), attacker().address_v6(), control().address_v4(),
                           control().address_v6()};
    return wire()
        .segments([&](const Segment& s) {
          return (s.flags & Segment::kRst) != 0 && std::ranges::find(flooders, s.source.address) == flooders.end();
        })
        .size();
  }

  /// SYNs of `from` to one port of the victim, each from a port of its own.
  void flood(const Pod& from, bool v6, std::uint16_t port) {
    const PacketSender sender(from.netns(), "eth0", Way::kPacketSocket);
    const Link link = link_of(from);
    TcpPacket packet = syn(from, v6, "");
    packet.destination.port = port;
    for (int i = 0; i < kFlood; ++i) {
      packet.source.port = static_cast<std::uint16_t>(20'000 + i);
      packet.sequence = static_cast<std::uint32_t>(i * 7919);
      sender.send(frame(link, packet.bytes()));
    }
  }
};

// Every connection is made by a cookie: at the agent's listeners and at the application's.
TEST_F(CookieAttack, TransfersCompleteAndNothingLeaks) {
  const auto cookies = [&] { return std::pair{cookies_received(attacker()), cookies_received(victim())}; };
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const auto before = cookies();
    const Endpoint to = v6 ? victim().v6() : victim().v4();
    const std::string marker = new_marker();
    const Finished got = attacker().get(to, {"--count", "30", "--marker", marker});
    EXPECT_TRUE(got.ok()) << got.out << got.err << node(1).log();
    const Finished bulk = attacker().bulk(to, {"--send", "3000000", "--receive", "3000000"});
    EXPECT_TRUE(bulk.ok()) << bulk.out << bulk.err;
    EXPECT_NE(bulk.out.find("verdict=exact"), std::string::npos) << bulk.out;
    EXPECT_GE(cookies().first, before.first + 31) << "the attacker's agent accepted without cookies";
    EXPECT_GE(cookies().second, before.second + 31) << "the victim's application accepted without cookies";
    flush_wire();
    EXPECT_FALSE(wire().contains(marker));
    EXPECT_FALSE(veth().contains(marker));
  }
  expect_no_plaintext(veth(), "the attacker's veth");
  expect_no_plaintext(wire(), "the wire");
}

// The attacker floods its own agent's outbound listener.
TEST_F(CookieAttack, FloodFromAMeshPod) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const Endpoint to = v6 ? victim().v6() : victim().v4();
    wire().clear();
    veth().clear();
    flood(attacker(), v6, Pod::kPort);
    const std::string marker = new_marker();
    const Finished others = neighbour().get(to, {"--count", "5", "--marker", marker});
    EXPECT_TRUE(others.ok()) << others.out << others.err << node(1).log();
    flush_wire();
    EXPECT_FALSE(wire().contains(marker));
    expect_no_plaintext(veth(), "the attacker's veth");
    expect_no_plaintext(wire(), "the wire");
    // The attacker's kernel resets the SYN-ACKs of connections that it did not open: one for one, and nobody else does.
    EXPECT_LE(resets(veth()), static_cast<std::size_t>(kFlood));
    EXPECT_EQ(resets_of_others(), 0U);
  }
}

// From outside the mesh to the victim's HBONE listener, and to its application.
TEST_F(CookieAttack, FloodOfTheVictim) {
  const Capture victim_veth(node(2).netns(), victim().host_interface());
  for (const std::uint16_t port : {std::uint16_t{15008}, Pod::kPort}) {
    for (const bool v6 : {false, true}) {
      SCOPED_TRACE(std::to_string(port) + (v6 ? " IPv6" : " IPv4"));
      const Endpoint to = v6 ? victim().v6() : victim().v4();
      wire().clear();
      deafen(control(), v6, port);
      flood(control(), v6, port);
      const auto flooded = [&] {
        return victim_veth.segments([&](const Segment& s) {
          return s.is_syn() && s.destination == Endpoint{to.address, port} && s.source.port >= 20'000 &&
                 s.source.port < 20'000 + kFlood;
        });
      };
      EXPECT_TRUE(eventually(kDeadline, [&] { return flooded().size() >= kFlood; })) << flooded().size();
      const std::string marker = new_marker();
      for (const Pod* client : {&attacker(), &neighbour()}) {
        const Finished got = client->get(to, {"--count", "5", "--marker", marker});
        EXPECT_TRUE(got.ok()) << client->name() << ": " << got.out << got.err << node(2).log();
      }
      flush_wire();
      EXPECT_FALSE(wire().contains(marker));
      EXPECT_LT(resets(wire()), 20U) << "of " << kFlood << " SYNs";
    }
  }
  expect_no_plaintext(wire(), "the wire");
  EXPECT_EQ(victim_veth.lost(), 0U);
}

}  // namespace
}  // namespace weft::test
