// SPDX-License-Identifier: Apache-2.0
#include "test/netns/attack_fixture.h"

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <sstream>

#include "test/netns/attack_cases.h"

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

std::vector<Endpoint> listeners_in(const Pod& pod) {
  const std::string table = run_in(pod.netns(), [] { return read_file("/proc/thread-self/net/tcp6"); });
  std::istringstream lines(table);
  std::vector<Endpoint> found;
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string slot, local, remote, state;
    fields >> slot >> local >> remote >> state;
    if (state != "0A") continue;
    const auto port = static_cast<std::uint16_t>(std::stoul(local.substr(local.find(':') + 1), nullptr, 16));
    found.push_back({*IpAddress::parse("::1"), port});
  }
  return found;
}

Process squat(const Pod& pod, std::uint16_t port) {
  Process server = pod.start({program("weft-testapp"), "serve", "--name", "squatter", "--port", std::to_string(port)});
  if (!server.wait_for_output("serving name=", milliseconds(10'000))) {
    throw TestError("no server on port " + std::to_string(port) + " of " + pod.name() + ": " + server.out());
  }
  return server;
}

std::size_t connections_of(const Process& squatter) {
  constexpr std::string_view kTaken = "connection client=";
  const std::string out = squatter.out();
  std::size_t found = 0;
  for (auto at = out.find(kTaken); at != std::string::npos; at = out.find(kTaken, at + 1)) ++found;
  return found;
}

AttackMesh::AttackMesh(const AttackOptions& options)
    : mesh({.agent_arguments = options.agent_arguments, .primary = options.primary}) {
  for (int i = 1; i <= 2; ++i) mesh.node(i).netns().sysctl(kNoDad.first, kNoDad.second);
  const auto add = [&](int node, const char* namespace_name, const char* name, bool enrolled, const Sysctls& sysctls) {
    return &mesh.add_pod(node, namespace_name, name, {.enrolled = enrolled, .sysctls = without_dad(sysctls)});
  };
  attacker = add(1, "shop", "attacker", true, options.attacker_sysctls);
  neighbour = add(1, "shop", "neighbour", true, {});
  control = add(1, "shop", "control", false, {});
  victim = add(2, "bank", "victim", true, options.victim_sysctls);
  outside = add(2, "bank", "outside", false, {});
  victim_app = &victim->serve();
  outside->serve();
  wire = std::make_unique<Capture>(mesh.node(1).netns(), Node::kWire);
  veth = std::make_unique<Capture>(mesh.node(1).netns(), attacker->host_interface());
  // Addresses of the next hops are known from now on: no packet of a test waits for one.
  for (const bool v6 : {false, true}) {
    for (const auto& [from, to] : {std::pair{attacker, victim}, {attacker, outside}, {control, victim}}) {
      const Finished got = from->get(v6 ? to->v6() : to->v4());
      if (!got.ok()) throw TestError(from->name() + " to " + to->name() + ": " + got.out + got.err);
    }
  }
}

void AttackTest::SetUp() {
  WEFT_NEEDS_ROOT();
  own_ = std::make_unique<AttackMesh>(options());
  use(*own_);
}

void AttackTest::use(AttackMesh& mesh) {
  on_ = &mesh;
  wire().clear();
  veth().clear();
}

void AttackTest::TearDown() {
  if (on_ == nullptr) return;
  EXPECT_EQ(wire().lost(), 0U) << "the capture of the wire is incomplete";
  EXPECT_EQ(veth().lost(), 0U) << "the capture of the veth is incomplete";
  if (own_) end(*own_);
  if (!HasFailure() && !IsSkipped()) tell_cases_of(*::testing::UnitTest::GetInstance()->current_test_info());
}

void AttackTest::end(AttackMesh& on) {
  for (int i = 1; i <= 2; ++i) {
    Node& node = on.mesh.node(i);
    if (!node.has_agent()) continue;
    EXPECT_TRUE(node.agent().running()) << node.log();
    node.stop_agent();
  }
}

std::string AttackTest::new_marker() { return "weft-attack-" + std::to_string(++on_->markers) + "-secret"; }

Link AttackTest::link_of(const Pod& pod) {
  return link_between(pod.netns(), "eth0", pod.node().netns(), pod.host_interface());
}

TcpPacket AttackTest::syn(const Pod& from, bool v6, const std::string& payload) {
  const std::uint16_t port = ++on_->next_port;
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

std::string AttackTest::check_attacker() {
  const Finished checked = mesh().chain("check", attacker());
  return checked.ok() ? "" : checked.out + checked.err;
}

Finished AttackTest::try_get(const Endpoint& to, const std::string& marker, std::vector<std::string> arguments,
                             const std::string& connect_timeout_s) {
  arguments.insert(arguments.end(), {"--marker", marker, "--connect-timeout", connect_timeout_s, "--timeout", "2"});
  return attacker().get(to, arguments);
}

void AttackTest::expect_nowhere(const std::string& marker) {
  flush_wire();
  EXPECT_FALSE(wire().contains(marker)) << "the payload is on the wire in the clear";
  EXPECT_FALSE(veth().contains(marker)) << "the payload is on the attacker's veth in the clear";
  expect_no_plaintext(veth(), "the attacker's veth");
  expect_no_plaintext(wire(), "the wire");
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
