// SPDX-License-Identifier: Apache-2.0
#include "test/netns/attack_fixture.h"

#include <cstdlib>
#include <filesystem>
#include <iterator>

namespace weft::test {
namespace {

constexpr milliseconds kCountDeadline{3000};

using Sysctls = std::vector<std::pair<std::string, std::string>>;
// Nobody else can have the addresses, and to find that out takes two seconds a pod.
const std::pair<std::string, std::string> kNoDad{"net/ipv6/conf/default/accept_dad", "0"};
Sysctls without_dad(Sysctls others) {
  others.push_back(kNoDad);
  return others;
}

const char* name_of(Way way) { return way == Way::kPacketSocket ? "from_pod" : "guard"; }

}  // namespace

std::uint64_t packets(const Node& node, const std::string& program, const std::string& reason) {
  const std::string text = node.metrics();
  const std::string start = "weft_bpf_packets_total{program=\"" + program + "\",";
  const std::string end = "reason=\"" + reason + "\"} ";
  for (std::size_t at = text.find(start); at != std::string::npos; at = text.find(start, at + 1)) {
    const std::string line = text.substr(at, text.find('\n', at) - at);
    const auto found = line.find(end);
    if (found != std::string::npos) return std::strtoull(line.c_str() + found + end.size(), nullptr, 10);
  }
  throw TestError("the metrics of " + node.name() + " have no counter of " + program + " for \"" + reason + "\"");
}

std::size_t open_descriptors(pid_t pid) {
  const std::filesystem::directory_iterator entries("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

void AttackTest::SetUp() {
  WEFT_NEEDS_ROOT();
  mesh_ = std::make_unique<Mesh>();
  for (int i = 1; i <= 2; ++i) node(i).netns().sysctl(kNoDad.first, kNoDad.second);
  attacker_ = &mesh_->add_pod(1, "shop", "attacker", {.enrolled = true, .sysctls = without_dad(attacker_sysctls())});
  neighbour_ = &mesh_->add_pod(1, "shop", "neighbour", {.enrolled = true, .sysctls = without_dad({})});
  control_ = &mesh_->add_pod(1, "shop", "control", {.enrolled = false, .sysctls = without_dad({})});
  victim_ = &mesh_->add_pod(2, "bank", "victim", {.enrolled = true, .sysctls = without_dad(victim_sysctls())});
  outside_ = &mesh_->add_pod(2, "bank", "outside", {.enrolled = false, .sysctls = without_dad({})});
  victim_app_ = &victim_->serve();
  outside_->serve();
  wire_ = std::make_unique<Capture>(node(1).netns(), Node::kWire);
  veth_ = std::make_unique<Capture>(node(1).netns(), attacker_->host_interface());
  // Addresses of the next hops are known from now on: no packet of a test waits for one.
  for (const bool v6 : {false, true}) {
    const auto to = [&](const Pod& pod) { return v6 ? pod.v6() : pod.v4(); };
    ASSERT_TRUE(attacker_->get(to(*victim_)).ok()) << node(1).log();
    ASSERT_TRUE(attacker_->get(to(*outside_)).ok()) << node(1).log();
    ASSERT_TRUE(control_->get(to(*victim_)).ok()) << node(2).log();
  }
  wire_->clear();
  veth_->clear();
}

void AttackTest::TearDown() {
  if (!wire_) return;
  EXPECT_EQ(wire_->lost(), 0U) << "the capture of the wire is incomplete";
  EXPECT_EQ(veth_->lost(), 0U) << "the capture of the veth is incomplete";
  for (int i = 1; i <= 2; ++i) {
    if (!node(i).has_agent()) continue;
    EXPECT_TRUE(node(i).agent().running()) << node(i).log();
    node(i).stop_agent();
  }
}

std::string AttackTest::new_marker() { return "weft-attack-" + std::to_string(++markers_) + "-secret"; }

Link AttackTest::link_of(const Pod& pod) {
  return link_between(pod.netns(), "eth0", pod.node().netns(), pod.host_interface());
}

TcpPacket AttackTest::syn(const Pod& from, bool v6, const std::string& payload) {
  const std::uint16_t port = ++next_port_;
  return {.source = v6 ? from.v6(port) : from.v4(port),
          .destination = v6 ? victim().v6() : victim().v4(),
          .payload = payload};
}

void AttackTest::send(const Pod& from, Way way, const std::vector<std::string>& frames) {
  const PacketSender sender(from.netns(), "eth0", way);
  for (const auto& one : frames) sender.send(one);
}

bool AttackTest::on_wire(const std::string& marker, milliseconds deadline) {
  return eventually(deadline, [&] { return wire().contains(marker); });
}

void AttackTest::flush_wire() {
  const std::string marker = new_marker();
  send(control(), Way::kPacketSocket, {frame(link_of(control()), syn(control(), false, marker).bytes())});
  ASSERT_TRUE(on_wire(marker)) << "a plain frame of a pod outside the mesh does not reach the wire";
}

void AttackTest::expect_stopped(const Attack& attack) {
  SCOPED_TRACE(attack.name);
  if (attack.passes_outside) {
    const std::string marker = new_marker();
    send(control(), Way::kQdiscBypass, attack.make(link_of(control()), syn(control(), attack.v6, marker)));
    EXPECT_TRUE(on_wire(marker)) << "not even a pod outside the mesh gets it through: the attack is none";
  }
  if (!attack.from_pod.empty()) expect_stopped(attack, Way::kPacketSocket);
  if (!attack.guard.empty()) expect_stopped(attack, Way::kQdiscBypass);
}

void AttackTest::expect_stopped(const Attack& attack, Way way) {
  SCOPED_TRACE(std::string("to be stopped by ") + name_of(way));
  const std::string& reason = way == Way::kPacketSocket ? attack.from_pod : attack.guard;
  const std::string marker = new_marker();
  const auto frames = attack.make(link_of(attacker()), syn(attacker(), attack.v6, marker));
  const auto before = packets(node(1), name_of(way), reason);
  send(attacker(), way, frames);
  EXPECT_TRUE(eventually(kCountDeadline, [&] { return packets(node(1), name_of(way), reason) > before; }))
      << "no packet was counted for \"" << reason << "\"; the counters:\n"
      << node(1).metrics();
  flush_wire();
  EXPECT_FALSE(wire().contains(marker)) << "the payload is on the wire in the clear";
  EXPECT_EQ(victim_app().out().find(marker), std::string::npos) << "the payload reached the application";
}

void AttackTest::expect_no_plaintext(const Capture& capture, const std::string& where) {
  const auto leaked = capture.segments([&](const Segment& s) {
    const auto is = [&](const Pod& pod, const Endpoint& end) {
      return end.address == pod.address_v4() || end.address == pod.address_v6();
    };
    const bool between = (is(attacker(), s.source) && is(victim(), s.destination)) ||
                         (is(victim(), s.source) && is(attacker(), s.destination));
    return between && s.payload_bytes > 0 && s.source.port != 15008 && s.destination.port != 15008;
  });
  EXPECT_EQ(leaked.size(), 0U) << "segments with plaintext on " << where << "; the first: "
                               << (leaked.empty() ? ""
                                                  : leaked[0].source.to_string() + " to " +
                                                        leaked[0].destination.to_string() + ": " + leaked[0].payload);
}

}  // namespace weft::test
