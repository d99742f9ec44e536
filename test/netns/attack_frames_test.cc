// SPDX-License-Identifier: Apache-2.0
/// Frames that a pod with CAP_NET_RAW makes by hand, to get a plaintext SYN with data past its own capture program or,
/// past TC, past the guard.

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

using Frames = std::vector<std::string>;

constexpr const char* kFragment = "a fragment of TCP, or one that may be";
constexpr const char* kVlan = "a VLAN tag";
constexpr const char* kTooDeep = "too many VLAN tags or IPv6 extension headers";
constexpr const char* kSourceRoute = "source routed, or options that may hide it";
constexpr const char* kForeign = "a source that is not the pod's";
constexpr const char* kBypass = "plaintext into the mesh past the agent";
constexpr const char* kCapturedNew = "a new connection to the mesh";

auto tagged(std::vector<Tag> tags) {
  return [tags](const Link& link, const TcpPacket& packet) { return Frames{frame(link, packet.bytes(), tags)}; };
}

auto extended(std::vector<Extension> extensions) {
  return [extensions](const Link& link, TcpPacket packet) {
    packet.extensions = extensions;
    return Frames{frame(link, packet.bytes())};
  };
}

auto fragmented(bool in_order) {
  return [in_order](const Link& link, const TcpPacket& packet) {
    const auto [first, second] = in_fragments(packet.bytes());
    return in_order ? Frames{frame(link, first), frame(link, second)} : Frames{frame(link, second), frame(link, first)};
  };
}

class FrameAttack : public SharedAttackTest<FrameAttack> {};

TEST_F(FrameAttack, TinyFragmentsInBothOrders) {
  for (const bool v6 : {false, true}) {
    const std::string family = v6 ? "IPv6" : "IPv4";
    for (const bool in_order : {true, false}) {
      expect_stopped({.name = family + (in_order ? ", first one first" : ", last one first"),
                      .make = fragmented(in_order),
                      .v6 = v6,
                      .passes_outside = true,
                      .from_pod = kFragment,
                      .guard = kFragment});
    }
  }
}

TEST_F(FrameAttack, VlanTagsOnTheRoutedVeth) {
  constexpr std::uint16_t kQ = 0x8100, kAd = 0x88a8;
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    const auto expect = [&](std::string name, std::vector<Tag> tags, const char* from_pod, const char* guard,
                            bool passes_outside = true) {
      expect_stopped({.name = std::move(name),
                      .make = tagged(std::move(tags)),
                      .v6 = v6,
                      .passes_outside = passes_outside,
                      .from_pod = from_pod,
                      .guard = guard});
    };
    expect("VLAN 0", {{kQ, 0}}, kVlan, kVlan);
    expect("VLAN 0 twice", {{kQ, 0}, {kQ, 0}}, kVlan, kVlan);
    expect("VLAN 0 three times", {{kQ, 0}, {kQ, 0}, {kQ, 0}}, kTooDeep, kVlan);
    expect("VLAN 0 four times", {{kQ, 0}, {kQ, 0}, {kQ, 0}, {kQ, 0}}, kTooDeep, kTooDeep);
    expect("802.1ad", {{kAd, 0}}, kVlan, kVlan);
    expect("802.1ad around 802.1Q", {{kAd, 0}, {kQ, 0}}, kVlan, kVlan);
    expect("VLAN 5", {{kQ, 5}}, kVlan, kVlan, false);
  }
}

// A bridge hands on what a router would not: VLAN 5 too.
TEST_F(FrameAttack, VlanTagsOnABridge) {
  const Netns beyond("beyond");
  connect_veth(node(1).netns(), "port", beyond, "eth0");
  const Capture behind_bridge(beyond, "eth0");
  node(1).netns().ip("link add bridge type bridge");
  node(1).netns().ip("link set bridge up");
  node(1).netns().ip("link set port master bridge");
  for (const Pod* pod : {&attacker(), &control()}) {
    node(1).netns().ip("link set " + pod->host_interface() + " master bridge");
  }
  // Unknown to the bridge, so it floods the frame to every port.
  const Mac nobody{2, 0, 0, 0, 0, 9};
  const auto send_from = [&](const Pod& pod, Way way, bool v6, const Tag& tag) {
    const std::string marker = new_marker();
    Link link = link_of(pod);
    link.destination = nobody;
    send(pod, way, {frame(link, syn(pod, v6, marker).bytes(), {tag})});
    return marker;
  };
  const auto crossed = [&](const std::string& marker) {
    return eventually(milliseconds(3000), [&] { return behind_bridge.contains(marker); });
  };
  for (const bool v6 : {false, true}) {
    for (const Tag& tag : {Tag{0x8100, 0}, {0x88a8, 0}, {0x8100, 5}, {0x88a8, 5}}) {
      SCOPED_TRACE("type " + std::to_string(tag.type) + ", VLAN " + std::to_string(tag.vlan) +
                   (v6 ? ", IPv6" : ", IPv4"));
      const auto dropped = packets(node(1), "guard", kVlan);
      const std::string bypassing = send_from(attacker(), Way::kQdiscBypass, v6, tag);
      EXPECT_TRUE(eventually(milliseconds(3000), [&] { return packets(node(1), "guard", kVlan) > dropped; }));
      const std::string plain = send_from(attacker(), Way::kPacketSocket, v6, tag);
      EXPECT_TRUE(crossed(send_from(control(), Way::kPacketSocket, v6, tag)))
          << "the bridge does not hand it on from anybody";
      EXPECT_FALSE(behind_bridge.contains(bypassing));
      EXPECT_FALSE(behind_bridge.contains(plain));
    }
  }
  node(1).netns().ip("link del bridge");
}

TEST_F(FrameAttack, PastTheQueueingDiscipline) {
  const auto plain = [](const Link& link, const TcpPacket& packet) { return Frames{frame(link, packet.bytes())}; };
  for (const bool v6 : {false, true}) {
    expect_stopped({.name = "SYN with data", .make = plain, .v6 = v6, .guard = kBypass});
    const IpAddress foreign = v6 ? neighbour().address_v6() : neighbour().address_v4();
    expect_stopped({.name = "a neighbour's source",
                    .make =
                        [&](const Link& link, TcpPacket packet) {
                          packet.source.address = foreign;
                          return Frames{frame(link, packet.bytes())};
                        },
                    .v6 = v6,
                    .passes_outside = false,
                    .guard = kForeign});
    expect_stopped({.name = "odd flags beside SYN",
                    .make =
                        [](const Link& link, TcpPacket packet) {
                          packet.flags = kSyn | kFin | kPsh | 0xe0;  // URG, ECE, CWR
                          return Frames{frame(link, packet.bytes())};
                        },
                    .v6 = v6,
                    .guard = kBypass});
  }
  expect_stopped({.name = "an ethertype of nobody",
                  .make = [](const Link& link,
                             const TcpPacket& packet) { return Frames{frame(link, packet.bytes(), {}, 0x88b5)}; },
                  .passes_outside = false,
                  .guard = "neither ARP nor IP"});
  // The guard minds the mesh alone: the same SYN to a pod outside of it goes its way.
  const std::string marker = new_marker();
  TcpPacket elsewhere = syn(attacker(), false, marker);
  elsewhere.destination = outside().v4();
  send(attacker(), Way::kQdiscBypass, {frame(link_of(attacker()), elsewhere.bytes())});
  EXPECT_TRUE(on_wire(marker));
}

// Guard keeps no state, so what belongs to no connection gets as far as any datagram does. Nobody takes it.
TEST_F(FrameAttack, SegmentsOfNoConnection) {
  for (const bool v6 : {false, true}) {
    for (const Way way : {Way::kPacketSocket, Way::kQdiscBypass}) {
      SCOPED_TRACE(std::string(v6 ? "IPv6" : "IPv4") + (way == Way::kQdiscBypass ? " past the qdisc" : ""));
      const std::string marker = new_marker();
      TcpPacket segment = syn(attacker(), v6, marker);
      segment.flags = kPsh | kAck;
      const Endpoint from = segment.source;
      send(attacker(), way, {frame(link_of(attacker()), segment.bytes())});
      EXPECT_TRUE(on_wire(marker));
      const auto is_reset = [&](const Segment& s) { return s.destination == from && (s.flags & Segment::kRst) != 0; };
      EXPECT_TRUE(eventually(milliseconds(3000), [&] { return !wire().segments(is_reset).empty(); }));
      EXPECT_EQ(victim_app().out().find(marker), std::string::npos) << "it reached the application";
    }
  }
}

TEST_F(FrameAttack, ByXdpSocket) {
  const auto xdp = [&](const Pod& pod, TcpPacket packet) {
    return send_by_xdp(pod.netns(), "eth0", frame(link_of(pod), packet.bytes()));
  };
  const std::string control_marker = new_marker();
  const std::string problem = xdp(control(), syn(control(), false, control_marker));
  if (!problem.empty()) GTEST_SKIP() << problem;
  EXPECT_TRUE(on_wire(control_marker)) << "AF_XDP sends nothing even from a pod outside the mesh";
  for (const bool v6 : {false, true}) {
    const std::string marker = new_marker();
    const auto before = packets(node(1), "guard", kBypass);
    const auto met = packets(node(1), "from_pod", kCapturedNew);
    ASSERT_EQ(xdp(attacker(), syn(attacker(), v6, marker)), "");
    EXPECT_TRUE(eventually(milliseconds(3000), [&] { return packets(node(1), "guard", kBypass) > before; }));
    EXPECT_EQ(packets(node(1), "from_pod", kCapturedNew), met) << "AF_XDP does not go past TC: the test tests nothing";
    flush_wire();
    EXPECT_FALSE(wire().contains(marker));
    EXPECT_EQ(victim_app().out().find(marker), std::string::npos);
  }
}

TEST_F(FrameAttack, Ipv6Headers) {
  const IpAddress last = victim().address_v6();
  const auto expect = [&](std::string name, std::vector<Extension> extensions, std::string from_pod, std::string guard,
                          bool passes_outside = true) {
    expect_stopped({.name = std::move(name),
                    .make = extended(std::move(extensions)),
                    .v6 = true,
                    .passes_outside = passes_outside,
                    .from_pod = std::move(from_pod),
                    .guard = std::move(guard)});
  };
  expect("plain", {}, kCapturedNew, kBypass);
  expect("destination options", {destination_options()}, kCapturedNew, kBypass);
  expect("hop-by-hop options", {hop_options()}, kCapturedNew, kBypass);
  expect("both", {hop_options(), destination_options()}, kCapturedNew, kBypass);
  expect("six headers", std::vector<Extension>(6, destination_options()), kCapturedNew, kBypass);
  expect("seven headers", std::vector<Extension>(7, destination_options()), kTooDeep, kTooDeep);
  expect("nine headers", std::vector<Extension>(9, destination_options()), kTooDeep, kTooDeep);
  expect("atomic fragment", {atomic_fragment()}, kFragment, kFragment);
  expect("atomic fragment behind options", {destination_options(), atomic_fragment()}, kFragment, kFragment);
  expect("segment routing", {segment_routing(last)}, kSourceRoute, kSourceRoute);
}

// To an address outside the mesh first, from where the last segment leads into it.
TEST_F(FrameAttack, Ipv6SegmentRoutingByWayOfAnAddressOutside) {
  expect_stopped({.name = "segment routing",
                  .make =
                      [this](const Link& link, TcpPacket packet) {
                        packet.extensions = {segment_routing(packet.destination.address)};
                        packet.destination.address = outside().address_v6();
                        return Frames{frame(link, packet.bytes())};
                      },
                  .v6 = true,
                  .from_pod = kSourceRoute,
                  .guard = kSourceRoute});
}

}  // namespace
}  // namespace weft::test
