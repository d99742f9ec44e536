// SPDX-License-Identifier: Apache-2.0
/// Plaintext into a pod that takes none, from somebody who pretends to be the node, a probe of it, or another pod.
/// Behind a bridge: there a sender's socket is still the packet's where it meets the pod.

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <functional>

#include "test/netns/attack_fixture.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kDeadline{10'000};
constexpr const char* kRefused = "no plaintext into this pod";
const std::vector<std::string> kImpatient{"--connect-timeout", "0.4", "--timeout", "1"};

class NodeAttack : public SharedAttackTest<NodeAttack> {
 public:
  static AttackOptions mesh_options() { return {.primary = Primary::kBridge}; }

 protected:
  void SetUp() override {
    SharedAttackTest::SetUp();
    if (!has_mesh()) return;
    for (const char* file : {"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"}) {
      const std::string path = std::string("net/bridge/") + file;
      if (std::filesystem::exists("/proc/sys/" + path)) node(2).netns().sysctl(path, "0");
    }
    victim_veth_ = std::make_unique<Capture>(node(2).netns(), victim().host_interface());
    outside_veth_ = std::make_unique<Capture>(node(2).netns(), outside().host_interface());
  }
  void TearDown() override {
    if (has_mesh()) mesh().remove_policy("bank", "mesh-only");
    SharedAttackTest::TearDown();
  }

  /// The node's address on the bridge, which it speaks to its pods from.
  static IpAddress gateway(bool v6) { return *IpAddress::parse(v6 ? "fd71:0:0:2::1" : "10.71.2.1"); }
  Finished from_node(const Endpoint& to, std::vector<std::string> before = {}, std::vector<std::string> more = {}) {
    before.insert(before.end(), {program("weft-testapp"), "get", to.to_string()});
    before.insert(before.end(), more.begin(), more.end());
    return run(before, {.netns = &node(2).netns(), .environment = {}, .input = {}});
  }
  /// From here on the victim takes no plaintext.
  void close_victim() { mesh().set_policy(deny_policy("bank", "mesh-only", plaintext())); }

  /// Whether the pod has answered a SYN from there.
  static bool answered(const Capture& veth, const Endpoint& from) {
    return !veth.segments([&](const Segment& s) {
                  return s.destination == from && (s.flags & Segment::kSyn) != 0 && (s.flags & Segment::kAck) != 0;
                })
                .empty();
  }
  /// Puts a SYN from `from` before the pod that is outside the mesh, which answers, and before the victim, which does
  /// not.
  void expect_refused(const Endpoint& from, const std::function<void(const Pod& to, const std::string& packet)>& put) {
    SCOPED_TRACE("from " + from.to_string());
    const bool v6 = from.address.is_v6();
    const std::string marker = new_marker();
    const auto syn_to = [&](const Pod& to) {
      return TcpPacket{.source = from, .destination = of(to, v6), .payload = marker}.bytes();
    };
    const auto refused = packets(node(2), "to_pod", kRefused);
    const auto passed = packets(node(2), "to_pod", "a connection from the node itself");
    put(victim(), syn_to(victim()));
    EXPECT_TRUE(eventually(kDeadline, [&] { return packets(node(2), "to_pod", kRefused) > refused; }))
        << node(2).metrics();
    put(outside(), syn_to(outside()));
    EXPECT_TRUE(eventually(kDeadline, [&] { return answered(*outside_veth_, from); }))
        << "not even the control answers";
    EXPECT_FALSE(answered(*victim_veth_, from));
    EXPECT_EQ(packets(node(2), "to_pod", "a connection from the node itself"), passed);
  }
  /// The frame that the packet comes to the pod in on its bridge.
  static std::string bridged(const Pod& to, const std::string& packet) {
    const Mac mac = link_between(to.netns(), "eth0", to.node().netns(), to.host_interface()).source;
    return frame({.source = {2, 0, 0, 0, 0, 9}, .destination = mac}, packet);
  }

  std::unique_ptr<Capture> victim_veth_, outside_veth_;
};

TEST_F(NodeAttack, NeighboursAreNotTheNode) {
  // One that Weft does not know, on the same bridge; and one behind it whose packets get the node's address.
  Pod& stranger = mesh().add_pod(2, "other", "stranger", {.enrolled = false, .weft_cni = false});
  const Netns behind("behind");
  connect_veth(node(2).netns(), "behind", behind, "eth0");
  for (const auto& [netns, interface, number] : {std::tuple{&node(2).netns(), "behind", "1"}, {&behind, "eth0", "2"}}) {
    netns->ip(std::string("addr add 10.76.0.") + number + "/24 dev " + interface);
    netns->ip(std::string("addr add fd76::") + number + "/64 nodad dev " + interface);
  }
  behind.ip("route add default via 10.76.0.1");
  behind.ip("-6 route add default via fd76::1");
  must_run({"nft", "-f", "-"}, {.netns = &node(2).netns(),
                                .environment = {},
                                .input = "table inet own {\n chain out {\n type nat hook postrouting priority 100\n"
                                         " iifname behind masquerade\n }\n}\n"});
  const std::vector<std::pair<const char*, const Netns*>> all{
      {"a neighbour outside the mesh", &outside().netns()},
      {"a neighbour that Weft does not know", &stranger.netns()},
      {"somebody with the node's address", &behind},
      {"a pod of another node", &control().netns()}};
  const auto get = [&](const Netns& from, const Pod& to, bool v6, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{program("weft-testapp"), "get", of(to, v6).to_string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments, {.netns = &from, .environment = {}, .input = {}});
  };
  for (const bool v6 : {false, true}) {
    for (const auto& [who, from] : all) EXPECT_TRUE(get(*from, victim(), v6, {}).ok()) << who << " before";
  }
  close_victim();
  const auto recorded = packets(node(2), "to_pod_host", "a connection from the node itself, recorded");
  for (const bool v6 : {false, true}) {
    for (const auto& [who, from] : all) {
      SCOPED_TRACE(std::string(who) + (v6 ? " by IPv6" : " by IPv4"));
      const auto before = packets(node(2), "to_pod", kRefused);
      EXPECT_FALSE(get(*from, victim(), v6, kImpatient).ok());
      EXPECT_GT(packets(node(2), "to_pod", kRefused), before);
    }
    EXPECT_TRUE(attacker().get(of(victim(), v6)).ok()) << "nor does the mesh get in any more";
  }
  EXPECT_EQ(packets(node(2), "to_pod_host", "a connection from the node itself, recorded"), recorded);
  must_run({"nft", "delete", "table", "inet", "own"}, {.netns = &node(2).netns(), .environment = {}, .input = {}});
  mesh().remove_pod(stranger);
}

// As documented: whoever has the node's network is the node, with or without privileges and whatever its cgroup.
TEST_F(NodeAttack, ProcessesOfTheNodePass) {
  close_victim();
  const std::string enter =
      "for tree in /sys/fs/cgroup /sys/fs/cgroup/*; do\n"
      "  [ -e \"$tree/cgroup.procs\" ] || continue\n"
      "  rmdir \"$tree\"/weftt-* 2>/dev/null\n"  // of tests that were killed
      "  group=$tree/weftt-$$\n"
      "  mkdir \"$group\" 2>/dev/null && echo $$ >\"$group/cgroup.procs\" && break\n"
      "  rmdir \"$group\" 2>/dev/null\n"
      "done\n"
      "grep -q \"weftt-$$\" /proc/self/cgroup || { echo no cgroup; exit 9; }\n"
      "\"$@\"\nstatus=$?\n"
      "echo 0 >\"$tree/cgroup.procs\"; rmdir \"$group\"\nexit $status\n";
  const std::vector<std::pair<const char*, std::vector<std::string>>> all{
      {"root", {}},
      {"nobody", {"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"}},
      {"one in a cgroup of its own", {"bash", "-c", enter, "bash"}}};
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(outside().get(of(victim(), v6), kImpatient).ok()) << "nothing is refused";
    for (const auto& [who, as] : all) {
      const Finished got = from_node(of(victim(), v6), as);
      if (got.out == "no cgroup\n") {
        std::printf("no cgroup can be made here: not tried\n");
        continue;
      }
      EXPECT_TRUE(got.ok()) << who << ": " << got.out << got.err;
    }
  }
}

/// Drops what leaves the node's end of a pod's veth behind to_pod_host, as long as it lives.
class Hole {
 public:
  explicit Hole(const Pod& pod) {
    const bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 2},
                                {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
    const Fd loaded(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "drop_all", "GPL", program, 2, nullptr));
    run_in(pod.node().netns(), [&] {
      constexpr std::uint32_t kTcxEgress = 47;
      bpf_attr attr{};
      attr.link_create.prog_fd = static_cast<std::uint32_t>(loaded.get());
      attr.link_create.target_ifindex = ::if_nametoindex(pod.host_interface().c_str());
      attr.link_create.attach_type = kTcxEgress;
      link_.reset(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr)));
    });
    if (!link_) throw TestError("attach a program behind to_pod_host: refused");
  }
  Hole(const Hole&) = delete;
  Hole& operator=(const Hole&) = delete;
  ~Hole() { bpf_link_detach(link_.get()); }

 private:
  Fd link_;
};

TEST_F(NodeAttack, TheTupleOfAProbeForged) {
  Pod& stranger = mesh().add_pod(2, "other", "stranger", {.enrolled = false, .weft_cni = false});
  const auto put_by_stranger = [&](const Pod& to, const std::string& packet) {
    PacketSender(stranger.netns(), "eth0", Way::kPacketSocket).send(bridged(to, packet));
  };
  close_victim();
  std::uint16_t port = 33'000;
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    // While the node's connection lives, and when it has gone.
    Endpoint probe{gateway(v6), ++port};
    Process held =
        Process::start({program("weft-testapp"), "hold", of(victim(), v6).to_string(), "--from", probe.to_string()},
                       {.netns = &node(2).netns(), .environment = {}, .input = {}});
    ASSERT_TRUE(held.wait_for_output("held ", kDeadline)) << held.out() << held.err();
    victim_veth_->clear();
    expect_refused(probe, put_by_stranger);
    EXPECT_TRUE(held.running()) << held.out();
    held.kill();
    victim_veth_->clear();
    expect_refused({probe.address, probe.port}, put_by_stranger);
    // A tuple that the node is about to use.
    probe.port = ++port;
    expect_refused(probe, put_by_stranger);
    EXPECT_TRUE(from_node(of(victim(), v6), {}, {"--from", probe.to_string()}).ok()) << "the forger keeps a probe out";
  }
  if (!kernel_has_tcx()) GTEST_SKIP() << "what follows loses a packet behind to_pod_host by TCX";
  // A probe that was recorded and never came: its tuple would let in who comes past to_pod_host within a second, but
  // not who meets it.
  const std::string recorded = "a connection from the node itself, recorded";
  const auto lose_a_probe = [&](bool v6) {
    const Endpoint probe{gateway(v6), ++port};
    const Hole hole(victim());
    const auto before = packets(node(2), "to_pod_host", recorded);
    const Process lost =
        Process::start({program("weft-testapp"), "get", of(victim(), v6).to_string(), "--from", probe.to_string()},
                       {.netns = &node(2).netns(), .environment = {}, .input = {}});
    EXPECT_TRUE(eventually(kDeadline, [&] { return packets(node(2), "to_pod_host", recorded) > before; }));
    return probe;
  };
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    EXPECT_TRUE(eventually(kDeadline, [&] {
      const Endpoint probe = lose_a_probe(v6);
      const std::string packet = TcpPacket{.source = probe, .destination = of(victim(), v6)}.bytes();
      PacketSender(node(2).netns(), victim().host_interface(), Way::kQdiscBypass).send(bridged(victim(), packet));
      return eventually(milliseconds(300), [&] { return answered(*victim_veth_, probe); });
    })) << "the record lets nobody in: this shows nothing";
    expect_refused(lose_a_probe(v6), put_by_stranger);
  }
  mesh().remove_pod(stranger);
}

TEST_F(NodeAttack, SourcesForgedOnTheWire) {
  close_victim();
  const Link wire = link_between(node(1).netns(), Node::kWire, node(2).netns(), Node::kWire);
  const auto put_on_wire = [&](const Pod&, const std::string& packet) {
    PacketSender(node(1).netns(), Node::kWire, Way::kPacketSocket).send(frame(wire, packet));
  };
  for (const bool v6 : {false, true}) {
    for (const IpAddress& source : {of(attacker(), v6).address, of(neighbour(), v6).address, of(control(), v6).address,
                                    *IpAddress::parse(v6 ? "fd70::1" : "10.70.0.1")}) {
      expect_refused({source, 34'000}, put_on_wire);
    }
  }
}

// What a VXLAN tunnel carries comes out on the bridge, whoever sent it to the node: as the node, as the victim's
// neighbour, as the victim itself, as a pod of the mesh.
TEST_F(NodeAttack, InnerSourcesOfVxlanForged) {
  constexpr std::uint16_t kVxlan = 4789;
  const Finished made = run({"ip", "-n", node(2).netns().name(), "link", "add", "vxlan0", "type", "vxlan", "id", "7",
                             "dstport", std::to_string(kVxlan), "local", node(2).address_v4().to_string()});
  if (!made.ok()) GTEST_SKIP() << "this kernel has no VXLAN: " << made.err;
  node(2).netns().ip("link set vxlan0 up master cni0");
  close_victim();
  const Fd socket = run_in(node(1).netns(), [] { return Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)); });
  const auto put_by_tunnel = [&](const Pod& to, const std::string& packet) {
    const std::string header("\x08\x00\x00\x00\x00\x00\x07\x00", 8);  // flags, and the number of the network
    const std::string datagram = header + bridged(to, packet);
    const auto there = Endpoint{node(2).address_v4(), kVxlan}.to_sockaddr();
    EXPECT_EQ(::sendto(socket.get(), datagram.data(), datagram.size(), 0, there.get(), there.length),
              static_cast<ssize_t>(datagram.size()));
  };
  for (const bool v6 : {false, true}) {
    for (const IpAddress& source : {gateway(v6), of(neighbour(), v6).address, of(attacker(), v6).address,
                                    *IpAddress::parse(v6 ? "fd70::2" : "10.70.0.2")}) {
      expect_refused({source, 35'000}, put_by_tunnel);
    }
  }
  node(2).netns().ip("link del vxlan0");
}

}  // namespace
}  // namespace weft::test
