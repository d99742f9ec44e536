// SPDX-License-Identifier: Apache-2.0
/// A root process of the pod takes the capture programs off, takes their interface elsewhere, or makes one of its own.

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gmock/gmock.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;

constexpr milliseconds kDeadline{10'000};
constexpr std::uint32_t kTcxIngress = 46, kTcxEgress = 47, kBefore = 8;

/// Leaves the calling thread what a container has by default, and CAP_NET_ADMIN.
void become_container_root() {
  std::uint64_t kept = 1ULL << CAP_NET_ADMIN;
  for (const int capability :
       {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP,
        CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_SYS_CHROOT, CAP_MKNOD, CAP_AUDIT_WRITE, CAP_SETFCAP}) {
    kept |= 1ULL << capability;
  }
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2]{};
  for (int i = 0; i < 2; ++i) {
    data[i].effective = data[i].permitted = static_cast<std::uint32_t>(kept >> 32 * i);
  }
  if (::syscall(SYS_capset, &header, data) != 0) throw TestError("give up capabilities: refused");
}

/// A program that lets every packet go on.
Fd go_on() {
  const bpf_insn program[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = -1},
                              {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}};
  Fd fd(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "go_on", "GPL", program, 2, nullptr));
  if (!fd) throw TestError("load a program of two instructions: refused");
  return fd;
}

/// A TCX link of the test's own behind what is there.
Fd link_on(unsigned ifindex, int program) {
  bpf_attr attr{};
  attr.link_create.prog_fd = static_cast<std::uint32_t>(program);
  attr.link_create.target_ifindex = ifindex;
  attr.link_create.attach_type = kTcxEgress;
  return Fd(static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr)));
}

bpf_link_info info_of(int link) {
  bpf_link_info info{};
  std::uint32_t length = sizeof info;
  if (bpf_obj_get_info_by_fd(link, &info, &length) != 0) throw TestError("ask about a link: refused");
  return info;
}

/// BPF_PROG_DETACH without a program: whatever is first. 0 or an errno.
int detach_first(unsigned ifindex, std::uint32_t where) {
  bpf_attr attr{};
  attr.target_fd = ifindex;  // target_ifindex in newer headers than Debian 12's
  attr.attach_type = where;
  attr.attach_flags = kBefore;
  return ::syscall(SYS_bpf, BPF_PROG_DETACH, &attr, sizeof attr) == 0 ? 0 : errno;
}

class DeviceAttack : public SharedAttackTest<DeviceAttack> {
 protected:
  /// A try by each family from a namespace that has the addresses of a pod: the answers that came.
  int answers(const Netns& from, const std::string& marker, const std::string& connect_timeout_s = "0.4") {
    int got = 0;
    for (const auto& to : {victim().v4(), victim().v6()}) {
      Process get = Process::start({program("weft-testapp"), "get", to.to_string(), "--marker", marker,
                                    "--connect-timeout", connect_timeout_s, "--timeout", "2"},
                                   {.netns = &from, .environment = {}, .input = {}});
      if (get.finish(kDeadline).ok()) ++got;
    }
    return got;
  }
  void expect_captured() {
    const auto before = packets(node(1), "deliver", "handed to a listener of the agent");
    const std::string marker = new_marker();
    EXPECT_EQ(answers(attacker().netns(), marker, "5"), 2) << node(1).log();
    EXPECT_GE(packets(node(1), "deliver", "handed to a listener of the agent"), before + 2);
    expect_nowhere(marker);
  }
  /// The same from the control, in the clear.
  void expect_in_the_clear(const Netns& from) {
    const std::string marker = new_marker();
    EXPECT_EQ(answers(from, marker, "5"), 2) << "not even a pod outside the mesh gets through";
    EXPECT_TRUE(on_wire(marker));
  }
  /// Gives an interface of `netns` the addresses and the routes that the chain gave to the pod's eth0.
  static void take_over(const Netns& netns, const std::string& interface, const Pod& pod) {
    const std::string node = std::to_string(pod.node().index());
    netns.ip("link set " + interface + " up");
    for (const bool v6 : {false, true}) {
      const std::string network = v6 ? "fd71:0:0:" + node + "::" : "10.71." + node + ".", gateway = network + "1";
      const std::string address = (v6 ? pod.address_v6() : pod.address_v4()).to_string(), bits = v6 ? "/64" : "/24";
      const std::string family = v6 ? "-6 " : "-4 ", flags = v6 ? " nodad noprefixroute" : " noprefixroute";
      netns.ip(family + "addr replace " + address + bits + " dev " + interface + flags);
      netns.ip(family + "route replace " + gateway + " dev " + interface + " src " + address);
      netns.ip(family + "route replace " + network + (v6 ? "" : "0") + bits + " via " + gateway + " src " + address);
      netns.ip(family + "route replace default via " + gateway);
    }
  }
};

TEST_F(DeviceAttack, ProgramsTakenOff) {
  if (!kernel_has_tcx()) GTEST_SKIP() << "the kernel has no TCX; KernelMesh.APodThatDeletesItsQdisc… is about that";
  const Fd program = go_on();
  libbpf_set_print(nullptr);
  const auto ifindex = [](const Pod& pod) { return run_in(pod.netns(), [] { return ::if_nametoindex("eth0"); }); };
  const auto delete_qdisc = [](const Pod& pod) {
    return run({"tc", "qdisc", "del", "dev", "eth0", "clsact"},
               {.netns = &pod.netns(), .environment = {}, .input = {}});
  };
  const unsigned of_control = ifindex(control()), of_attacker = ifindex(attacker());

  // What the test itself put on the control goes by each of these ways.
  run_in(control().netns(), [&] {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(of_control);
    hook.attach_point = BPF_TC_EGRESS;
    bpf_tc_hook_create(&hook);
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.prog_fd = program.get();
    options.handle = options.priority = 7;
    ASSERT_EQ(bpf_tc_attach(&hook, &options), 0);
  });
  EXPECT_TRUE(delete_qdisc(control()).ok());
  run_in(control().netns(), [&] {
    bpf_attr attr{};
    attr.target_fd = of_control;
    attr.attach_bpf_fd = static_cast<std::uint32_t>(program.get());
    attr.attach_type = kTcxEgress;
    attr.attach_flags = kBefore;
    ASSERT_EQ(::syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr), 0);
    EXPECT_EQ(detach_first(of_control, kTcxEgress), 0) << "with all capabilities";
  });
  const Fd link = run_in(control().netns(), [&] { return link_on(of_control, program.get()); });
  ASSERT_TRUE(link);
  {
    const Fd found(bpf_link_get_fd_by_id(info_of(link.get()).id));
    EXPECT_EQ(bpf_link_detach(found.get()), 0) << "with all capabilities";
    EXPECT_EQ(info_of(link.get()).xdp.ifindex, 0U);  // the kernel's tcx.ifindex stands at the same place
  }

  delete_qdisc(attacker());
  run_in(attacker().netns(), [&] {
    for (const std::uint32_t where : {kTcxIngress, kTcxEgress}) EXPECT_NE(detach_first(of_attacker, where), 0) << where;
    EXPECT_NE(detach_first(1, kTcxIngress), 0) << "lo";
    become_container_root();
    for (const std::uint32_t where : {kTcxIngress, kTcxEgress}) EXPECT_NE(detach_first(of_attacker, where), 0) << where;
    EXPECT_NE(detach_first(1, kTcxIngress), 0) << "lo";
    std::uint32_t next = 0;
    EXPECT_NE(bpf_link_get_next_id(0, &next), 0) << "a container may look for links";
    EXPECT_EQ(errno, EPERM);
    EXPECT_LT(bpf_link_get_fd_by_id(info_of(link.get()).id), 0) << "a container may open a link";
  });
  expect_captured();
  EXPECT_EQ(check_attacker(), "");
}

TEST_F(DeviceAttack, InterfaceRenamed) {
  if (!run({"ip", "-n", control().netns().name(), "link", "set", "eth0", "name", "other0"}).ok()) {
    GTEST_SKIP() << "this kernel renames no interface that is up";
  }
  expect_in_the_clear(control().netns());
  control().netns().ip("link set other0 name eth0");
  attacker().netns().ip("link set eth0 name other0");
  expect_captured();
  EXPECT_THAT(check_attacker(), HasSubstr("eth0"));
  attacker().netns().ip("link set other0 name eth0");
  EXPECT_EQ(check_attacker(), "");
}

// Its programs go along, but there is no agent: the packets come to nothing on the lo over there.
TEST_F(DeviceAttack, InterfaceMovedAway) {
  const Netns elsewhere("elsewhere"), control_elsewhere("elsewhere-c");
  const auto move = [](const Pod& pod, const Netns& from, const Netns& to) {
    from.ip("link set eth0 netns " + to.name());
    take_over(to, "eth0", pod);
  };
  const Process held = attacker().hold(victim().v4(), {"--interval", "0.01", "--timeout", "30"});
  move(attacker(), attacker().netns(), elsewhere);
  move(control(), control().netns(), control_elsewhere);
  expect_in_the_clear(control_elsewhere);
  std::string marker = new_marker();
  EXPECT_EQ(answers(elsewhere, marker), 0);
  EXPECT_THAT(check_attacker(), HasSubstr("eth0"));
  // Rules as the plugin makes them, and a filter that takes for its own what comes in by lo, or sends it out again.
  for (const char* family : {"-4 ", "-6 "}) {
    elsewhere.ip(std::string(family) + "rule add pref 1 fwmark 0x1000/0x1000 lookup 1500");
    elsewhere.ip(std::string(family) + "route add local default dev lo table 1500");
  }
  elsewhere.sysctl("net/ipv4/conf/lo/accept_local", "1");
  for (const char* rule : {"meta pkttype set host", "meta mark set 0 fwd to \"eth0\""}) {
    must_run(
        {"nft", "-f", "-"},
        {.netns = &elsewhere,
         .environment = {},
         .input = std::string("table netdev own {\n chain in {\n type filter hook ingress device lo priority 0\n ") +
                  rule + "\n }\n}\n"});
    EXPECT_EQ(answers(elsewhere, marker), 0);
    must_run({"nft", "delete", "table", "netdev", "own"}, {.netns = &elsewhere, .environment = {}, .input = {}});
  }
  move(control(), control_elsewhere, control().netns());
  expect_nowhere(marker);
  move(attacker(), elsewhere, attacker().netns());
  EXPECT_EQ(check_attacker(), "");
  expect_captured();
}

// Whatever an inner interface sends leaves by eth0 in the end.
TEST_F(DeviceAttack, InterfacesOfItsOwn) {
  const auto masquerade = [](const Pod& pod, const Netns& inner) {
    const Netns& netns = pod.netns();
    connect_veth(netns, "inner", inner, "eth0");
    for (const char* path : {"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}) netns.sysctl(path, "1");
    const std::string number = pod.name() == "control" ? "1" : "2";
    for (const bool v6 : {false, true}) {
      const std::string network = v6 ? "fd75:" + number + "::" : "10.75." + number + ".", bits = v6 ? "/64" : "/24";
      const std::string family = v6 ? "-6 " : "-4 ", nodad = v6 ? " nodad" : "";
      netns.ip(family + "addr add " + network + "1" + bits + " dev inner" + nodad);
      inner.ip(family + "addr add " + network + "2" + bits + " dev eth0" + nodad);
      inner.ip(family + "route add default via " + network + "1");
    }
    must_run({"nft", "-f", "-"}, {.netns = &netns,
                                  .environment = {},
                                  .input = "table inet own {\n chain out {\n type nat hook postrouting priority 100\n"
                                           " oif eth0 iif inner masquerade\n }\n}\n"});
  };
  const auto undo_masquerade = [](const Pod& pod) {
    pod.netns().ip("link del inner");
    for (const char* path : {"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"}) pod.netns().sysctl(path, "0");
    must_run({"nft", "delete", "table", "inet", "own"}, {.netns = &pod.netns(), .environment = {}, .input = {}});
  };
  std::string marker = new_marker();
  {
    SCOPED_TRACE("a veth to an inner namespace, masqueraded");
    const Netns inner("inner"), control_inner("inner-c");
    masquerade(control(), control_inner);
    masquerade(attacker(), inner);
    expect_in_the_clear(control_inner);
    EXPECT_EQ(answers(inner, marker), 0);
    expect_nowhere(marker);
    undo_masquerade(attacker());
    undo_masquerade(control());
  }
  {
    SCOPED_TRACE("a macvlan on eth0 with the pod's own addresses, in an inner namespace");
    const Netns inner("macvlan"), control_inner("macvlan-c");
    for (const auto& [pod, netns] : {std::pair{&control(), &control_inner}, {&attacker(), &inner}}) {
      pod->netns().ip("link add link eth0 name own0 type macvlan mode bridge");
      pod->netns().ip("link set own0 netns " + netns->name());
      take_over(*netns, "own0", *pod);
    }
    expect_in_the_clear(control_inner);
    EXPECT_EQ(answers(inner, marker), 0);
    expect_nowhere(marker);
    for (const Netns* netns : {&inner, &control_inner}) netns->ip("link del own0");
  }
  {
    SCOPED_TRACE("a bridge over eth0 that has the pod's addresses");
    for (const Pod* pod : {&control(), &attacker()}) {
      pod->netns().ip("link add bridge0 type bridge");
      pod->netns().ip("link set eth0 master bridge0");
      pod->netns().ip("addr flush dev eth0 scope global");
      take_over(pod->netns(), "bridge0", *pod);
    }
    expect_in_the_clear(control().netns());
    answers(attacker().netns(), marker);
    expect_nowhere(marker);
    for (const Pod* pod : {&control(), &attacker()}) {
      pod->netns().ip("link del bridge0");
      take_over(pod->netns(), "eth0", *pod);
    }
  }
  expect_captured();
  EXPECT_EQ(check_attacker(), "");
}

}  // namespace
}  // namespace weft::test
