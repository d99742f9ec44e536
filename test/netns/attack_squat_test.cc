// SPDX-License-Identifier: Apache-2.0
/// A process of the pod sits on the agent's ports, beside its listeners or in their place while it is away.

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "test/netns/attack_fixture.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kDeadline{20'000};

/// A listener that shares its port with everybody who says the same; invalid where that is refused, errno says why.
Fd join(const Endpoint& at) {
  Fd fd(::socket(at.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  const auto address = at.to_sockaddr();
  if (::bind(fd.get(), address.get(), address.length) != 0 || ::listen(fd.get(), 64) != 0) return {};
  return fd;
}

bool has_taken(const Fd& listener) {
  pollfd waiting{.fd = listener.get(), .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, 0) > 0;
}

class SquatAttack : public SharedAttackTest<SquatAttack> {
 protected:
  /// Connections out of the attacker, into it by the tunnel and in plaintext, which must all work.
  void expect_served() {
    for (const bool v6 : {false, true}) {
      SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
      for (const auto& [from, to] :
           {std::pair{&attacker(), &victim()}, {&victim(), &attacker()}, {&outside(), &attacker()}}) {
        const Finished got = from->get(of(*to, v6), {"--count", "10"});
        EXPECT_TRUE(got.ok()) << from->name() << ": " << got.out << got.err << node(1).log();
        EXPECT_NE(got.out.find("server=" + to->name()), std::string::npos) << got.out;
      }
    }
  }
};

TEST_F(SquatAttack, ListenersJoined) {
  const auto listeners = listeners_in(attacker());
  ASSERT_GE(listeners.size(), 3U) << "outbound, HBONE and plaintext of one worker at least";
  attacker().serve();
  // So that plaintext goes to the agent too.
  mesh().set_policy(deny_policy("shop", "looked-at", {{"destinationPorts", {9}}}));
  std::vector<Fd> joined;
  run_in(attacker().netns(), [&] {
    const Fd first = join({*IpAddress::parse("::1"), 7777}), second = join({*IpAddress::parse("::1"), 7777});
    ASSERT_TRUE(first && second) << "nobody joins anybody here";
    for (const auto& listener : listeners) {
      EXPECT_FALSE(join(listener)) << "it joined " << listener.to_string();
      EXPECT_EQ(errno, EADDRINUSE);
      for (const auto& address : {*IpAddress::parse("::"), *IpAddress::parse("0.0.0.0"), *IpAddress::parse("127.0.0.1"),
                                  attacker().address_v4(), attacker().address_v6()}) {
        if (Fd beside = join({address, listener.port})) joined.push_back(std::move(beside));
      }
    }
  });
  EXPECT_FALSE(joined.empty());
  const auto before = packets(node(1), "to_pod", "handed to a listener of the agent");
  expect_served();
  EXPECT_GE(packets(node(1), "to_pod", "handed to a listener of the agent"), before + 20)
      << "plaintext passed the agent";
  for (const Fd& beside : joined) EXPECT_FALSE(has_taken(beside));
  mesh().remove_policy("shop", "looked-at");
}

TEST_F(SquatAttack, PortsTakenWhileTheAgentIsAway) {
  const auto listeners = listeners_in(attacker());
  const std::vector<std::uint16_t> ports{15001, 15006, 15008};
  std::vector<Process> squatters;
  for (const auto port : ports) squatters.push_back(squat(attacker(), port));
  const Process control_squatter = squat(control(), 15008);
  const std::size_t taken = connections_of(squatters[2]);
  node(1).kill_agent();
  std::vector<Fd> in_their_place;
  run_in(attacker().netns(), [&] {
    for (const auto& listener : listeners) {
      if (std::ranges::find(ports, listener.port) != ports.end() || listener.port == Pod::kPort) continue;
      Fd mine = join(listener);
      EXPECT_TRUE(mine) << listener.to_string();
      in_their_place.push_back(std::move(mine));
    }
  });
  const std::vector<std::string> impatient{"--connect-timeout", "0.4", "--timeout", "0.5"};
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6 ? "IPv6" : "IPv4");
    EXPECT_TRUE(victim().get(of(control(), v6, 15008)).ok()) << "nobody reaches a server on this port";
    EXPECT_FALSE(victim().get(of(attacker(), v6), impatient).ok());
    EXPECT_FALSE(outside().get(of(attacker(), v6, 15008), impatient).ok());
    EXPECT_FALSE(attacker().get(of(victim(), v6), impatient).ok());
  }
  EXPECT_EQ(connections_of(squatters[2]), taken) << squatters[2].out();
  for (const Fd& mine : in_their_place) EXPECT_FALSE(has_taken(mine));

  node(1).start_agent();
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(eventually(kDeadline, [&] { return victim().get(of(attacker(), v6)).ok(); })) << node(2).log();
  }
  expect_served();
  for (const auto& squatter : squatters) EXPECT_EQ(connections_of(squatter), 0U) << squatter.out();
  for (const Fd& mine : in_their_place) EXPECT_FALSE(has_taken(mine));
}

}  // namespace
}  // namespace weft::test
