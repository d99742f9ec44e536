// SPDX-License-Identifier: Apache-2.0
/// A client whose server closes first may use its port again at once; the agent's side of the old connection is in
/// TIME_WAIT then, which must not swallow the new one.

#include <sys/socket.h>

#include <array>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using TimeWait = MeshTest;
using ::testing::HasSubstr;

double ended(const Node& node, const std::string& program) {
  return metric(node.metrics(), "weft_bpf_packets_total",
                {"program=\"" + program + "\"", "reason=\"ends the TIME_WAIT of its tuple, comes back\""});
}

/// Asks from this very port and reads until the server has closed, so that the client never closes first. A SYN that is
/// lost is sent again after 1 s: the time for the connect is less.
std::string ask(const Pod& pod, const Endpoint& from, const Endpoint& to) {
  return run_in(pod.netns(), [&]() -> std::string {
    const Fd fd(::socket(from.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const timeval limit{0, 900'000};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    const auto own = from.to_sockaddr(), there = to.to_sockaddr();
    if (::bind(fd.get(), own.get(), own.length) != 0) return std::string("bind: ") + ::strerror(errno);
    if (::connect(fd.get(), there.get(), there.length) != 0) return std::string("connect: ") + ::strerror(errno);
    const std::string request = "GET /again HTTP/1.0\r\n\r\n";
    if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0)
      return std::string("send: ") + ::strerror(errno);
    std::string answer;
    std::array<char, 4096> room{};
    ssize_t n = 0;
    while ((n = ::recv(fd.get(), room.data(), room.size(), 0)) > 0)
      answer.append(room.data(), static_cast<std::size_t>(n));
    return n == 0 ? answer : std::string("recv: ") + ::strerror(errno);
  });
}

TEST_F(TimeWait, APodMayUseItsPortAgainAtOnce) {
  const double before = ended(node1(), "deliver");
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ask(*client, {client->address_v4(), 40123}, db->v4()), HasSubstr("server=db"));
    EXPECT_THAT(ask(*client, {client->address_v6(), 40123}, db->v6()), HasSubstr("server=db"));
  }
  EXPECT_EQ(ended(node1(), "deliver"), before + 4);
}

TEST_F(TimeWait, SoMayAPlaintextClientOfACheckedPod) {
  // A policy about ports makes the agent look at plaintext.
  mesh().set_policy(deny_policy("bank", "not-9", {{"destinationPorts", {9}}}));
  const double before = ended(node2(), "to_pod");
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(ask(*outside, {outside->address_v4(), 40124}, db->v4()), HasSubstr("server=db"));
    EXPECT_THAT(ask(*outside, {outside->address_v6(), 40124}, db->v6()), HasSubstr("server=db"));
  }
  EXPECT_EQ(ended(node2(), "to_pod"), before + 4);
  mesh().remove_policy("bank", "not-9");
}

}  // namespace
}  // namespace weft::test
