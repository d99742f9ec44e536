// SPDX-License-Identifier: Apache-2.0
/// Sockets with options that used to open ways past captures of this kind: IP options, marks, foreign sources; and the
/// agent's own listeners called by name.

#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <tuple>

#include "test/netns/attack_fixture.h"

namespace weft::test {
namespace {

constexpr const char* kSourceRoute = "source routed, or options that may hide it";
constexpr const char* kForeign = "a source that is not the pod's";
constexpr const char* kAssignFailed = "the listener cannot take it";
constexpr const char* kAssigned = "handed to a listener of the agent";
constexpr const char* kCapturedNew = "a new connection to the mesh";
constexpr const char* kLooped = "the capture mark, or back from lo";

std::string hex(const IpAddress& address) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : address.bytes()) {
    text.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
    text.push_back(kDigits[std::to_integer<unsigned>(byte) & 15]);
  }
  return text;
}

class SocketAttack : public SharedAttackTest<SocketAttack> {};

// IP options move the TCP header; any user may set them.
TEST_F(SocketAttack, IpOptionsOfAnOrdinaryUser) {
  const auto get = [&](std::vector<std::string> as, const std::string& options, const std::string& marker) {
    as.insert(as.end(), {program("weft-testapp"), "get", victim().v4().to_string(), "--marker", marker, "--ip-options",
                         options, "--connect-timeout", "1.5", "--timeout", "2"});
    return attacker().start(as).finish(milliseconds(20'000));
  };
  // Padding; record route with room for three addresses and for nine; a time stamp.
  for (const char* options : {"01010101", "01070f04000000000000000000000000",
                              "07270400000000000000000000000000000000000000000000000000000000000000000000000000",
                              "44080500000000000000000000000000"}) {
    SCOPED_TRACE(options);
    const std::string in_the_clear = new_marker(), marker = new_marker();
    EXPECT_TRUE(control().get(victim().v4(), {"--marker", in_the_clear, "--ip-options", options}).ok());
    EXPECT_TRUE(on_wire(in_the_clear));
    const Finished got = get({"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"}, options, marker);
    EXPECT_NE(got.out.find("server=victim client=" + attacker().address_v4().to_string()), std::string::npos)
        << got.out << got.err << node(1).log();
    expect_nowhere(marker);
  }
  // A loose source route by way of an address outside the mesh and a strict one by way of the gateway: the kernel sends
  // the SYN there. Newer kernels ask for CAP_NET_RAW, which containers have by default.
  const IpAddress gateway = *IpAddress::parse("10.71.1.1");
  for (const auto& [type, hop] : {std::pair{"83", outside().address_v4()}, std::pair{"89", gateway}}) {
    SCOPED_TRACE(type);
    const std::string marker = new_marker();
    const auto before = packets(node(1), "from_pod", kSourceRoute);
    const Finished got = get({}, std::string(type) + "0704" + hex(hop) + "00", marker);
    EXPECT_FALSE(got.ok()) << got.out;
    EXPECT_GT(packets(node(1), "from_pod", kSourceRoute), before) << got.out;
    expect_nowhere(marker);
  }
}

// Weft's own mark, and those that exempt another mesh's proxy.
TEST_F(SocketAttack, MarksExemptNobody) {
  for (const bool v6 : {false, true}) {
    for (const unsigned mark : {0x1000U, 0x539U, 0x111U, 0x1539U, 0xffffffffU}) {
      SCOPED_TRACE(std::to_string(mark) + (v6 ? " IPv6" : " IPv4"));
      const std::string marker = new_marker();
      const auto before = packets(node(1), "deliver", kAssigned);
      std::vector<std::string> arguments = {"--mark", std::to_string(mark)};
      if ((mark & 0x1000U) != 0) {
        // The mark leads to lo, where IPv4 finds no address of its own to send from; nothing may leave then either.
        const Finished any = try_get(v6 ? victim().v6() : victim().v4(), marker, arguments);
        EXPECT_TRUE(any.ok() || any.out.find("unreachable") != std::string::npos) << any.out;
        arguments.insert(arguments.end(),
                         {"--from", (v6 ? attacker().address_v6() : attacker().address_v4()).to_string()});
      }
      const Finished got = try_get(v6 ? victim().v6() : victim().v4(), marker, arguments);
      EXPECT_NE(got.out.find("server=victim"), std::string::npos) << got.out << got.err << node(1).log();
      EXPECT_GT(packets(node(1), "deliver", kAssigned), before);
      expect_nowhere(marker);
    }
  }
}

// Bound to eth0, a marked socket's packets do not take the rule's way to lo.
TEST_F(SocketAttack, MarkedAndBoundToTheInterface) {
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    const auto before = packets(node(1), "from_pod", kLooped);
    const Endpoint to = v6 ? victim().v6() : victim().v4();
    const Fd fd = run_in(attacker().netns(), [&] {
      Fd made(::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      const unsigned mark = 0x1000;
      const std::string device = "eth0";
      EXPECT_EQ(::setsockopt(made.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark), 0);
      EXPECT_EQ(::setsockopt(made.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), 5), 0);
      const auto address = to.to_sockaddr();
      ::connect(made.get(), address.get(), address.length);
      return made;
    });
    EXPECT_TRUE(eventually(milliseconds(3000), [&] { return packets(node(1), "from_pod", kLooped) > before; }));
  }
  flush_wire();
  const auto is_leak = [&](const Segment& s) {
    return s.destination == victim().v4() || s.destination == victim().v6();
  };
  EXPECT_EQ(veth().segments(is_leak).size(), 0U);
}

// A connection in a neighbour's name is neither sent in the clear nor tunnelled under the neighbour's identity.
TEST_F(SocketAttack, ForeignSources) {
  const auto expect_refused = [&](const IpAddress& source, std::vector<std::string> extra,
                                  const std::string& program_name, const std::string& reason) {
    SCOPED_TRACE(source.to_string() + (extra.empty() ? " without mark" : " with mark"));
    const std::string marker = new_marker();
    const auto before = packets(node(1), program_name, reason);
    const std::size_t heard = victim_app().out().size();
    extra.insert(extra.end(), {"--transparent", "--from", source.to_string()});
    const Finished got = try_get(source.is_v4() ? victim().v4() : victim().v6(), marker, extra, "0.3");
    EXPECT_FALSE(got.ok()) << got.out;
    EXPECT_GT(packets(node(1), program_name, reason), before) << got.out << got.err << node(1).metrics();
    EXPECT_EQ(victim_app().out().size(), heard) << victim_app().out();
    expect_nowhere(marker);
  };
  // From a pod that Weft does not know such a SYN goes out.
  Pod& stranger = mesh().add_pod(1, "other", "stranger", {.enrolled = false, .weft_cni = false});
  for (const IpAddress& source : {neighbour().address_v4(), neighbour().address_v6()}) {
    const Endpoint to = source.is_v4() ? victim().v4() : victim().v6();
    (void)stranger.get(to, {"--transparent", "--from", source.to_string(), "--connect-timeout", "0.3"});
    const auto is_forged = [&](const Segment& s) {
      return s.is_syn() && s.source.address == source && s.destination == to;
    };
    EXPECT_TRUE(eventually(milliseconds(3000), [&] { return !wire().segments(is_forged).empty(); }));
  }
  mesh().remove_pod(stranger);
  const std::vector<std::string> mark = {"--mark", "4096"};
  const auto nobody_v4 = *IpAddress::parse("10.99.0.1");
  const auto nobody_v6 = *IpAddress::parse("fd99::1");
  for (const auto& [enrolled, wired, nobody] :
       {std::tuple{neighbour().address_v4(), control().address_v4(), nobody_v4},
        std::tuple{neighbour().address_v6(), control().address_v6(), nobody_v6}}) {
    expect_refused(enrolled, {}, "deliver", kAssignFailed);
    expect_refused(enrolled, mark, "deliver", kAssignFailed);
    expect_refused(wired, {}, "guard", kForeign);
    expect_refused(nobody, {}, "from_pod", kForeign);
    expect_refused(nobody, mark, "deliver", kForeign);
  }
}

// Straight into lo with the mark, as if from_pod had sent it there.
TEST_F(SocketAttack, FramesIntoLoopback) {
  const auto into_lo = [&](std::uint32_t mark, const TcpPacket& packet) {
    PacketSender(attacker().netns(), "lo", Way::kPacketSocket, mark).send(frame({}, packet.bytes()));
  };
  const std::string marker = new_marker();
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    const auto counted = [&](const std::string& reason, std::uint64_t before) {
      return eventually(milliseconds(3000), [&] { return packets(node(1), "deliver", reason) > before; });
    };
    TcpPacket packet = syn(attacker(), v6, marker);
    auto before = packets(node(1), "deliver", kAssigned);
    into_lo(0x1000, packet);
    EXPECT_TRUE(counted(kAssigned, before)) << "its own connection is the agent's like any other";

    packet.source.address = v6 ? neighbour().address_v6() : neighbour().address_v4();
    before = packets(node(1), "deliver", kAssignFailed);
    into_lo(0x1000, packet);
    EXPECT_TRUE(counted(kAssignFailed, before));

    packet.source.address = *IpAddress::parse(v6 ? "fd99::1" : "10.99.0.1");
    before = packets(node(1), "deliver", kForeign);
    into_lo(0x1000, packet);
    EXPECT_TRUE(counted(kForeign, before));

    into_lo(0, syn(attacker(), v6, marker));  // without the mark: the kernel's own business
  }
  expect_nowhere(marker);
  EXPECT_EQ(victim_app().out().find(marker), std::string::npos);
  EXPECT_TRUE(attacker().get(victim().v4()).ok());
}

// The kernel resets what no socket takes from one socket per CPU: a verdict for one connection must not stick to it.
TEST_F(SocketAttack, ResetsOfOneConnectionDoNotCaptureThoseOfAnother) {
  constexpr int kSyns = 50;
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    // The agent answers these, and the attacker's kernel, which sent none of them, resets the answers.
    for (int cpu = 0; cpu < static_cast<int>(std::thread::hardware_concurrency()); ++cpu) {
      std::vector<std::string> frames;
      for (int i = 0; i < kSyns; ++i) frames.push_back(frame(link_of(attacker()), syn(attacker(), v6, "").bytes()));
      run_in(attacker().netns(), [&] {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        EXPECT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
        const PacketSender sender(attacker().netns(), "eth0", Way::kPacketSocket);
        for (const auto& each : frames) sender.send(each);
      });
    }
    const Finished refused = outside().get(v6 ? attacker().v6(9) : attacker().v4(9), {"--connect-timeout", "2"});
    constexpr int kRefused = 3;
    EXPECT_EQ(refused.status, kRefused) << refused.out;
  }
}

/// Connects, waits until the other side closes, and says whether it did within five seconds.
bool is_closed_at_once(const Endpoint& to) {
  const Fd fd(::socket(to.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval timeout{.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  const auto address = to.to_sockaddr();
  if (::connect(fd.get(), address.get(), address.length) != 0) return errno == ECONNREFUSED || errno == ECONNRESET;
  char byte = 0;
  const ssize_t got = ::recv(fd.get(), &byte, 1, 0);
  return got == 0 || (got < 0 && errno == ECONNRESET);
}

// Taken for a captured connection, one connect made an agent dial itself until its descriptors ran out.
TEST_F(SocketAttack, ListenersCalledByName) {
  constexpr std::size_t kConnects = 2000;
  const auto listeners = listeners_in(attacker());
  ASSERT_GE(listeners.size(), 3U) << "outbound, HBONE and plaintext of one worker at least";
  const pid_t agent = node(1).agent().pid();
  const std::size_t before = open_descriptors(agent);
  std::size_t most = 0, left_open = 0;
  run_in(attacker().netns(), [&] {
    for (std::size_t i = 0; i < kConnects; ++i) {
      if (!is_closed_at_once(listeners[i % listeners.size()])) ++left_open;
      if (i % 50 == 0) most = std::max(most, open_descriptors(agent));
    }
  });
  EXPECT_EQ(left_open, 0U);
  EXPECT_LE(most, before + 8) << "descriptors during the connects";
  EXPECT_TRUE(eventually(milliseconds(3000), [&] { return open_descriptors(agent) <= before; }))
      << open_descriptors(agent) << " descriptors after, " << before << " before";
  // By the pod's own address, on which nothing listens, and by the ports under which other meshes' proxies listen.
  run_in(attacker().netns(), [&] {
    for (const auto port : std::initializer_list<std::uint16_t>{15001, 15006, 15008}) {
      for (const auto& address : {attacker().address_v4(), attacker().address_v6(), *IpAddress::parse("127.0.0.1"),
                                  *IpAddress::parse("::1")}) {
        EXPECT_TRUE(is_closed_at_once({address, port})) << address.to_string() << " " << port;
      }
    }
    for (const auto& listener : listeners) {
      EXPECT_TRUE(is_closed_at_once({attacker().address_v6(), listener.port}));
      EXPECT_TRUE(is_closed_at_once({attacker().address_v4(), listener.port}));
    }
  });
  EXPECT_TRUE(attacker().get(victim().v4()).ok()) << node(1).log();
}

// What pods may read is documented; what the agent takes orders on is the node's alone.
TEST_F(SocketAttack, TheAgentsAddressesOnTheNode) {
  const auto node_address = {node(1).address_v4(), *IpAddress::parse("10.71.1.1")};
  for (const auto& address : node_address) {
    EXPECT_FALSE(http_get(attacker().netns(), {address, 15000}, "/config_dump")) << address.to_string();
    EXPECT_TRUE(http_get(attacker().netns(), {address, 15020}, "/metrics")) << address.to_string();
  }
  EXPECT_TRUE(http_get(node(1).netns(), {*IpAddress::parse("127.0.0.1"), 15000}, "/config_dump"));
}

}  // namespace
}  // namespace weft::test
