// SPDX-License-Identifier: Apache-2.0
/// Attachments and their life: how the kernel holds the programs, and what agents and pods that go leave behind.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

#include "bpf/attach.h"
#include "bpf/hook.h"
#include "cni-plugin/registration.h"
#include "test/kernel/kernel_fixture.h"
#include "test/netns/attack_packet.h"
#include "test/netns/attack_raw.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr milliseconds kSoon{10'000};
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

TEST_F(KernelMesh, EveryProgramIsAttachedTheKernelsWay) {
  constexpr std::uint32_t kTcxLink = 11;  // BPF_LINK_TYPE_TCX, newer than Debian 12's header
  for (Pod* pod : {client, server, outside}) {
    for (const auto& hook : bpf::kHooks) {
      SCOPED_TRACE(pod->name() + " " + hook.name);
      struct stat found {};
      ASSERT_EQ(::lstat(pin(*pod, hook.name).c_str(), &found), 0);
      EXPECT_EQ(S_ISLNK(found.st_mode), !kernel_has_tcx());  // a clsact filter has a record
      if (!kernel_has_tcx()) continue;
      const Fd link(bpf_obj_get(pin(*pod, hook.name).c_str()));
      bpf_link_info info{};
      std::uint32_t length = sizeof info;
      ASSERT_EQ(bpf_obj_get_info_by_fd(link.get(), &info, &length), 0);
      EXPECT_EQ(static_cast<std::uint32_t>(info.type), kTcxLink);
    }
    EXPECT_EQ(check(*pod), "");
  }
}

/// A program of somebody else that accepts every packet, so that what is behind it never runs.
Fd accept_all() {
  const bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
                              {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  Fd fd(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "accept_all", "GPL", program, 2, nullptr));
  if (!fd) throw TestError("load a program of two instructions: refused");
  return fd;
}

/// Attaches a program on the ingress of a node's interface as another agent does, ahead of what is there. Gives the
/// link's descriptor, or none where it is a filter, which stays.
Fd attach_ahead(const Node& node, const std::string& interface, int program) {
  return run_in(node.netns(), [&] {
    const unsigned ifindex = ::if_nametoindex(interface.c_str());
    if (kernel_has_tcx()) {
      constexpr std::uint32_t kTcxIngress = 46, kBefore = 8;
      bpf_attr attr{};
      attr.link_create.prog_fd = static_cast<std::uint32_t>(program);
      attr.link_create.target_ifindex = ifindex;
      attr.link_create.attach_type = kTcxIngress;
      attr.link_create.flags = kBefore;
      Fd link(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr)));
      if (!link) throw TestError("attach a foreign program by TCX: refused");
      return link;
    }
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = BPF_TC_INGRESS;
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.prog_fd = program;
    options.handle = 1;
    options.priority = 1;
    if (bpf_tc_attach(&hook, &options) != 0) throw TestError("attach a foreign filter: refused");
    return Fd();
  });
}

/// What the guard is for: a SYN in the clear that does not pass from_pod. True when it came to the wire all the same.
bool bypass_gets_through(const Pod& from, const Pod& to) {
  static int number = 0;
  const std::string marker = "secret-past-" + std::to_string(++number) + ".";
  const auto stopped = [&] {
    return metric(from.node().metrics(), "weft_bpf_packets_total",
                  {"program=\"guard\"", "reason=\"plaintext into the mesh past the agent\""});
  };
  const Capture wire(from.node().netns(), Node::kWire);
  const double before = stopped();
  const TcpPacket syn{.source = from.v4(40'000), .destination = to.v4(), .payload = marker};
  const Link link = link_between(from.netns(), "eth0", from.node().netns(), from.host_interface());
  PacketSender(from.netns(), "eth0", Way::kQdiscBypass).send(frame(link, syn.bytes()));
  EXPECT_TRUE(eventually(kSoon, [&] { return stopped() > before || wire.contains(marker); })) << "it is nowhere";
  return wire.contains(marker);
}

TEST_F(KernelMesh, WeftIsAheadOfProgramsThatWereThereBefore) {
  Pod& pod = mesh().add_pod(1, "shop", "crowded");
  EXPECT_TRUE(pod.get(server->v4()).ok());
  EXPECT_FALSE(bypass_gets_through(pod, *server));

  const Fd foreign = accept_all();
  const Fd link = attach_ahead(node1(), pod.host_interface(), foreign.get());
  EXPECT_TRUE(bypass_gets_through(pod, *server)) << "a program ahead hides nothing: this test shows nothing";

  run_in(node1().netns(), [&] {
    const bpf::Target target{.root = node1().bpf_root(),
                             .attachment = bpf::attachment_id(pod.container_id(), "eth0"),
                             .pod_netns = pod.netns().fd(),
                             .ifindex = run_in(pod.netns(), [] { return ::if_nametoindex("eth0"); }),
                             .host_ifindex = ::if_nametoindex(pod.host_interface().c_str())};
    ASSERT_TRUE(bpf::detach(target.root, target.attachment));
    const auto attached = bpf::attach(target);
    ASSERT_TRUE(attached) << attached.error().message();
  });
  EXPECT_FALSE(bypass_gets_through(pod, *server));
  EXPECT_EQ(check(pod), "");
  mesh().remove_pod(pod);
}

/// The clsact qdisc of an interface goes, with all filters.
void delete_qdisc(const Netns& netns, const std::string& interface) {
  run({"tc", "qdisc", "del", "dev", interface, "clsact"}, {.netns = &netns, .environment = {}, .input = {}});
}

// Before 6.6 a pod with CAP_NET_ADMIN can take the programs off its own end. TCX links stay whatever it does.
TEST_F(KernelMesh, APodThatDeletesItsQdiscIsFoundAndStaysGuarded) {
  Pod& pod = mesh().add_pod(1, "shop", "digger");
  ASSERT_TRUE(has_its_links(pod));
  expect_captured(pod, *server, false);
  delete_qdisc(pod.netns(), "eth0");
  const Capture wire(node1().netns(), Node::kWire);
  const auto bypasses = [&] {
    return metric(node1().metrics(), "weft_bpf_packets_total", {"program=\"guard\"", "verdict=\"drop\""});
  };
  for (const bool v6 : {false, true}) {
    const double before = bypasses();
    const Finished answer = pod.get(of(*server, v6), {"--connect-timeout", "2", "--marker", "secret-dug"});
    EXPECT_EQ(answer.ok(), kernel_has_tcx()) << ::testing::PrintToString(answer);
    EXPECT_EQ(bypasses() > before, !kernel_has_tcx());
  }
  EXPECT_TRUE(pod.get(outside->v4(), {"--marker", "in-the-clear"}).ok()) << "what is not of the mesh no longer leaves";
  EXPECT_TRUE(eventually(kSoon, [&] { return wire.contains("in-the-clear"); }));
  EXPECT_FALSE(wire.contains("secret-dug"));
  EXPECT_TRUE(plaintext_between(wire, pod, *server).empty());
  EXPECT_EQ(wire.lost(), 0U);
  if (kernel_has_tcx()) {
    EXPECT_EQ(check(pod), "");
    mesh().remove_pod(pod);
    return;
  }
  EXPECT_THAT(check(pod), HasSubstr("from_pod on ifindex"));
  // The guard it is: without it the same connection gets out.
  delete_qdisc(node1().netns(), pod.host_interface());
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(pod.get(of(*server, v6), {"--marker", "secret-unguarded"}).ok()) << "this test shows nothing";
  }
  EXPECT_TRUE(eventually(kSoon, [&] { return wire.contains("secret-unguarded"); }));
  // An agent that starts puts both ends back, and one that looks does with each look.
  const auto restart = [] {
    node1().stop_agent();
    node1().start_agent();
  };
  ::setenv("WEFT_RECONCILE_INTERVAL_MS", "500", 1);
  restart();
  ::unsetenv("WEFT_RECONCILE_INTERVAL_MS");
  EXPECT_TRUE(eventually(kSoon, [&] { return check(pod).empty(); })) << check(pod);
  delete_qdisc(pod.netns(), "eth0");
  const auto mended = [] {
    return metric(node1().metrics(), "weft_reconcile_actions_total", {"action=\"mended\""}) >= 1;
  };
  EXPECT_TRUE(eventually(kSoon, [&] { return mended() && check(pod).empty(); })) << check(pod);
  for (const bool v6 : {false, true}) expect_captured(pod, *server, v6);
  mesh().remove_pod(pod);
  restart();
}

/// What the agent has written down of a pod.
json record_of(Mesh& mesh, const Pod& pod) {
  const std::string folder = mesh.folder().path() + "/" + pod.node().name() + "/run";
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const json record = json::parse(read_file(entry.path()), nullptr, false);
    if (record.is_object() && record.value("containerId", "") == pod.container_id()) return record;
  }
  throw TestError("no record of " + pod.name() + " in " + folder);
}

TEST_F(KernelMesh, ARegistrationIsOfOneNetnsWithAndWithoutCookies) {
  const json record = record_of(mesh(), *client);
  EXPECT_EQ(record.at("netnsInode").get<std::uint64_t>(), client->netns().inode());
  EXPECT_EQ(record.at("netnsCookie").get<std::uint64_t>() != 0, kernel_has_netns_cookie());
  cni::Request request;
  request.verb = cni::Verb::kCheck;
  request.key = {client->container_id(), "eth0"};
  request.netns_inode = client->netns().inode();
  const auto same = cni::call(node1().socket(), request, 5000);
  ASSERT_TRUE(same) << same.error().message();
  EXPECT_FALSE(same->error) << same->error->message();
  request.netns_inode = server->netns().inode();
  const auto other = cni::call(node1().socket(), request, 5000);
  ASSERT_TRUE(other) << other.error().message();
  EXPECT_TRUE(other->error) << "another netns under the name of a pod is let through";
}

/// Pins, registrations and map entries of the node, one a line.
std::string traces(Mesh& mesh, Node& node) {
  std::string found;
  for (const auto& folder : {node.bpf_root() + "/links", mesh.folder().path() + "/" + node.name() + "/run"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (entry.path().filename() != "pins" && !entry.is_socket()) found += entry.path().string() + "\n";
    }
  }
  for (const char* map : {"pods", "interfaces"}) {
    found += must_run({"bpftool", "-j", "map", "dump", "pinned", node.bpf_root() + "/maps/" + map}) + "\n";
  }
  return found + node.netns().ip("-br link show type veth");
}

TEST_F(KernelMesh, DelLeavesNothing) {
  const std::string before = traces(mesh(), node1());
  Pod& pod = mesh().add_pod(1, "shop", "brief");
  EXPECT_TRUE(pod.get(server->v6()).ok());
  Process held = pod.hold(server->v4());
  EXPECT_NE(traces(mesh(), node1()), before);
  mesh().remove_pod(pod);
  EXPECT_TRUE(held.wait(kSoon).has_value()) << "a process of the deleted pod lives on";
  EXPECT_EQ(traces(mesh(), node1()), before);
  EXPECT_THAT(node1().admin("/config_dump"), Not(HasSubstr("brief")));
}

/// Transfers from the client to the server, both ways and in both families, which would take minutes; with what is seen
/// of them on the wire and on the host's end of one of the two.
class CutTransfers {
 public:
  CutTransfers(const Pod& from, const Pod& to, const Pod& watched)
      : from_(from),
        to_(to),
        veth_(watched.node().netns(), watched.host_interface()),
        wire_(from.node().netns(), Node::kWire) {
    for (const auto& target : {to.v4(), to.v6()}) {
      const auto frames = wire_.frames();
      transfers_.push_back(
          from.start({program("weft-testapp"), "bulk", target.to_string(), "--send", "900000000", "--receive",
                      "900000000", "--read-rate", "1000000", "--server-read-rate", "1000000", "--timeout", "3"}));
      constexpr std::size_t kInTheMiddle = 100;
      if (!eventually(kSoon, [&] { return wire_.frames() > frames + kInTheMiddle; })) {
        throw TestError("the transfer does not begin: " + transfers_.back().out() + transfers_.back().err());
      }
    }
  }
  void expect_ended() {
    for (auto& transfer : transfers_) {
      EXPECT_TRUE(transfer.wait(milliseconds(20'000)).has_value()) << "the client never noticed";
    }
  }
  void expect_no_leak(const std::function<std::vector<Segment>(const Capture&, const Pod&, const Pod&)>& plaintext) {
    for (const Capture* capture : {&veth_, &wire_}) {
      EXPECT_TRUE(plaintext(*capture, from_, to_).empty());
      EXPECT_EQ(capture->lost(), 0U);
    }
  }

 private:
  const Pod &from_, &to_;
  const Capture veth_, wire_;
  std::vector<Process> transfers_;
};

TEST_F(KernelMesh, AKilledAgentLeaksNoByteAndTheNextTakesItsPodsUp) {
  CutTransfers transfers(*client, *server, *client);
  node1().kill_agent();
  transfers.expect_ended();
  for (const bool v6 : {false, true}) {
    const Finished away = client->get(of(*server, v6), kImpatient);
    EXPECT_FALSE(away.ok()) << ::testing::PrintToString(away);
    const Finished past = client->get(of(*outside, v6));
    EXPECT_TRUE(past.ok()) << "non-mesh traffic noticed: " << ::testing::PrintToString(past);
  }
  node1().start_agent();
  EXPECT_EQ(check(*client), "");
  for (const bool v6 : {false, true}) expect_captured(*client, *server, v6);
  transfers.expect_no_leak(plaintext_between);
}

TEST_F(KernelMesh, AKilledAgentOfTheServerLeaksNoByte) {
  CutTransfers transfers(*client, *server, *server);
  node2().kill_agent();
  transfers.expect_ended();
  node2().start_agent();
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(eventually(kSoon, [&] { return client->get(of(*server, v6)).ok(); }));
  }
  EXPECT_EQ(check(*server), "");
  transfers.expect_no_leak(plaintext_between);
}

TEST_F(KernelMesh, AnAgentEndsWellAndTheNextReplacesThePrograms) {
  const auto id = [&] {
    const Fd fd(bpf_obj_get((node1().bpf_root() + "/programs/from_pod").c_str()));
    bpf_prog_info info{};
    std::uint32_t length = sizeof info;
    EXPECT_EQ(bpf_obj_get_info_by_fd(fd.get(), &info, &length), 0);
    return info.id;
  };
  const auto before = id();
  node1().stop_agent();  // throws on anything but exit status 0
  node1().start_agent();
  EXPECT_NE(id(), before);
  EXPECT_EQ(check(*client), "");  // each hook has the new program
  expect_captured(*client, *server, false);
}

}  // namespace
}  // namespace weft::test
