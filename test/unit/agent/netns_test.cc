// SPDX-License-Identifier: Apache-2.0
// Real network namespaces, each of a thread's own: they go with their last descriptor. Needs root.
#include "agent/netns.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <fstream>
#include <thread>

#include "test/unit/agent/fakes.h"
#include "tunnel/base/sys.h"

namespace weft::agent {
namespace {

using ::testing::HasSubstr;

enum class Ipv6 { kOn, kDisabled };

/// A new netns; invalid where this process may not make one.
Fd make_netns(Ipv6 ipv6, bool lo_up) {
  Fd made;
  std::thread([&] {
    if (::unshare(CLONE_NEWNET) < 0) return;
    if (ipv6 == Ipv6::kDisabled) {
      // /proc/sys/net belongs to the netns of the thread that opens it.
      std::ofstream("/proc/sys/net/ipv6/conf/all/disable_ipv6") << "1";
    }
    if (lo_up) {
      const Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      ifreq request{};
      std::snprintf(request.ifr_name, sizeof request.ifr_name, "lo");
      request.ifr_flags = IFF_UP;
      EXPECT_EQ(::ioctl(control.get(), SIOCSIFFLAGS, &request), 0);
    }
    made.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  return made;
}

#define MAKE_NETNS_OR_SKIP(name, ...)      \
  const Fd name = make_netns(__VA_ARGS__); \
  if (!name) GTEST_SKIP() << "needs root to make a network namespace"

TEST(KernelNetns, TellsNamespacesApart) {
  MAKE_NETNS_OR_SKIP(a, Ipv6::kOn, true);
  MAKE_NETNS_OR_SKIP(b, Ipv6::kOn, true);
  KernelNetns netns;
  const auto id_a = netns.identify(a.get()), id_b = netns.identify(b.get()), again = netns.identify(a.get());
  ASSERT_TRUE(id_a) << id_a.error().message();
  ASSERT_TRUE(id_b) << id_b.error().message();
  EXPECT_FALSE(id_a->same(*id_b));
  EXPECT_TRUE(id_a->same(*again));
}

TEST(KernelNetns, RefusesWhatIsNoNetnsAndItsOwn) {
  KernelNetns netns;
  const Fd file(::open("/proc/version", O_RDONLY | O_CLOEXEC));
  const Fd mounts(::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  const Fd own(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  for (int fd : {-1, file.get(), mounts.get(), own.get()}) {
    auto id = netns.identify(fd);
    ASSERT_FALSE(id);
    EXPECT_EQ(id.error().code, ErrorCode::kInvalid);
  }
  EXPECT_THAT(netns.identify(own.get()).error().message(), HasSubstr("hostNetwork"));
  EXPECT_EQ(netns.open("/proc/version").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(netns.open("/run/netns/weft-no-such-netns").error().code, ErrorCode::kNotFound);
}

void expect_listener(int fd) {
  EXPECT_EQ(sys::get_option(fd, SOL_SOCKET, SO_ACCEPTCONN).value(), 1);
  EXPECT_EQ(sys::get_option(fd, SOL_SOCKET, SO_REUSEPORT).value(), 0);
  EXPECT_EQ(sys::get_option(fd, IPPROTO_IPV6, 75 /* IPV6_TRANSPARENT */).value(), 1);
  const auto local = sys::local_endpoint(fd).value();
  EXPECT_TRUE(local.address.is_loopback()) << local.to_string();
  EXPECT_NE(local.port, 0);
}

class ListenersIn : public ::testing::TestWithParam<std::pair<Ipv6, bool>> {};

TEST_P(ListenersIn, ANamespaceAreTransparentAndOnLoopback) {
  MAKE_NETNS_OR_SKIP(fd, GetParam().first, GetParam().second);
  KernelNetns netns;
  auto listeners = netns.open_listeners(fd.get(), 2);
  ASSERT_TRUE(listeners) << listeners.error().message();
  ASSERT_EQ(listeners->size(), 2U);
  std::set<std::uint16_t> ports;
  for (const auto& one : *listeners) {
    for (const Fd* socket : {&one.outbound, &one.inbound_hbone, &one.inbound_plaintext}) {
      expect_listener(socket->get());
      ports.insert(sys::local_endpoint(socket->get()).value().port);
    }
  }
  EXPECT_EQ(ports.size(), 6U);
}

TEST_P(ListenersIn, ANamespaceHasDnsSocketsToo) {
  MAKE_NETNS_OR_SKIP(fd, GetParam().first, GetParam().second);
  KernelNetns netns;
  auto sockets = netns.open_dns_sockets(fd.get(), 2);
  ASSERT_TRUE(sockets) << sockets.error().message();
  ASSERT_EQ(sockets->size(), 2U);
  for (const auto& one : *sockets) {
    for (const auto& [socket, level, transparent] :
         {std::tuple{one.v4.get(), IPPROTO_IP, IP_TRANSPARENT}, {one.v6.get(), IPPROTO_IPV6, 75}}) {
      EXPECT_EQ(sys::get_option(socket, level, transparent).value(), 1);
      EXPECT_EQ(sys::get_option(socket, SOL_SOCKET, SO_REUSEPORT).value(), 0);
      EXPECT_EQ(sys::get_option(socket, SOL_SOCKET, SO_MARK).value(), 0x5000);
      const auto local = sys::local_endpoint(socket).value();
      EXPECT_TRUE(local.address.is_loopback()) << local.to_string();
      EXPECT_NE(local.port, 0);
      EXPECT_NE(local.port, 53);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIpv6Setting, ListenersIn,
                         ::testing::Values(std::pair{Ipv6::kOn, true}, std::pair{Ipv6::kOn, false},
                                           std::pair{Ipv6::kDisabled, true}, std::pair{Ipv6::kDisabled, false}));

TEST(KernelNetns, TheCallingThreadStaysWhereItIs) {
  MAKE_NETNS_OR_SKIP(fd, Ipv6::kOn, true);
  struct stat before {
  }, after{}, inside{}, pod{};
  ASSERT_EQ(::stat("/proc/thread-self/ns/net", &before), 0);
  ASSERT_TRUE(run_in_netns(fd.get(), [&]() -> Result<void> {
    EXPECT_EQ(::stat("/proc/thread-self/ns/net", &inside), 0);
    return {};
  }));
  ASSERT_EQ(::stat("/proc/thread-self/ns/net", &after), 0);
  ASSERT_EQ(::fstat(fd.get(), &pod), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_EQ(inside.st_ino, pod.st_ino);
}

}  // namespace
}  // namespace weft::agent
