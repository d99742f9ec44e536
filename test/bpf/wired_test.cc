// SPDX-License-Identifier: Apache-2.0
#include <netinet/tcp.h>

#include "test/bpf/wired.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

constexpr const char* kUncaptured = "a connection that is not captured";

/// Captured connections out of a pod, with an agent that is a handful of sockets.
class Outbound : public WiredTest {};
INSTANTIATE_TEST_SUITE_P(Both, Outbound, ::testing::Combine(::testing::Values(4, 6), ::testing::Bool()), wired_name);

TEST_P(Outbound, MeshConnectionsMeetTheAgent) {
  auto [app, agent] = captured();
  EXPECT_EQ(*sys::local_endpoint(agent.get()), (Endpoint{f().mesh, 80}));
  EXPECT_EQ(*sys::peer_endpoint(agent.get()), *sys::local_endpoint(app.get()));
  EXPECT_EQ(sys::peer_endpoint(agent.get())->address, a_.address);
  expect_talk(app.get(), agent.get());
  EXPECT_EQ(counter("from_pod", "a new connection to the mesh"), 1U);
  EXPECT_EQ(counter("deliver", "handed to a listener of the agent"), 1U);
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
  EXPECT_EQ(counter("from_pod", "a new connection to outside the mesh"), 0U);
  ASSERT_TRUE(sys::shutdown_write(app.get()));
  EXPECT_EQ(must_receive(agent.get(), 1), "");
  agent.reset();
  EXPECT_EQ(must_receive(app.get(), 1), "");
}

TEST_P(Outbound, OtherConnectionsAreUntouched) {
  Fd server = serve(*netns_, 8080);
  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {a_.gateway, 8080});
  Fd peer = must_accept(server.get());
  EXPECT_EQ(sys::peer_endpoint(peer.get())->address, a_.address);
  expect_talk(app.get(), peer.get());
  EXPECT_TRUE(nobody_waits(outbound_.get()));
  EXPECT_EQ(counter("from_pod", "a new connection to the mesh"), 0U);
  EXPECT_EQ(counter("from_pod", "a captured connection"), 0U);
}

TEST_P(Outbound, PodsThatAreNotEnrolledAreUntouched) {
  Fd server = serve(*netns_, 8080);
  ASSERT_TRUE(capture_->set_destinations({{&b_.gateway, 1}, {}}));
  Fd app = socket_in(*b_.netns, b_.address);
  must_connect(app.get(), {b_.gateway, 8080});
  Fd peer = must_accept(server.get());
  expect_talk(app.get(), peer.get());
  EXPECT_EQ(counter("from_pod", "a new connection to the mesh"), 0U);
}

TEST_P(Outbound, MarksOfTheApplicationDoNotHelp) {
  for (const int mark : {0x1000, 0x539}) {
    Fd app = socket_in(*a_.netns, a_.address);
    ASSERT_TRUE(sys::set_option(app.get(), SOL_SOCKET, SO_MARK, mark));
    ASSERT_TRUE(sys::bind(app.get(), Endpoint{a_.address, 0}.to_sockaddr()));
    must_connect(app.get(), {f().mesh, 80});
    Fd agent = must_accept(outbound_.get());
    expect_talk(app.get(), agent.get());
  }
  // Without an address of its own: the capture route offers IPv4 none, and the application fails by itself.
  Fd app = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(sys::set_option(app.get(), SOL_SOCKET, SO_MARK, 0x1000));
  EXPECT_EQ(connect_error(app.get(), {f().mesh, 80}), v4() ? std::optional<int>(ENETUNREACH) : std::nullopt);
  // Past the capture route: out of eth0 with the mark.
  Fd bound = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(sys::set_option(bound.get(), SOL_SOCKET, SO_MARK, 0x1000));
  ASSERT_EQ(::setsockopt(bound.get(), SOL_SOCKET, SO_BINDTODEVICE, "eth0", 5), 0);
  EXPECT_EQ(connect_error(bound.get(), {f().mesh, 80}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("from_pod", "the capture mark, or back from lo"), 1U);
  EXPECT_EQ(counter("guard", "plaintext into the mesh past the agent"), 0U);
}

TEST_P(Outbound, NothingLeavesWhenTheAgentVanishes) {
  auto [app, agent] = captured();
  expect_talk(app.get(), agent.get());
  vanish(agent);
  must_send(app.get(), "secret");
  EXPECT_EQ(wait_for_error(app.get()), ECONNRESET);
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
  // The same without any listener, and in a pod that has left the mesh since.
  auto [app2, agent2] = captured();
  outbound_.reset();
  vanish(agent2);
  set_pod(a_, 0, false);
  const std::uint64_t sent = counter("from_pod", "a captured connection");
  must_send(app2.get(), "secret");
  if (v4()) {  // no RST from a foreign address: the application waits
    EXPECT_TRUE(eventually(milliseconds(5000), [&] { return counter("from_pod", "a captured connection") > sent; }));
  } else {
    EXPECT_EQ(wait_for_error(app2.get()), ECONNRESET);
  }
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
}

TEST_P(Outbound, WithoutAgentConnectionsWait) {
  outbound_.reset();
  Fd app = socket_in(*a_.netns, a_.address);
  EXPECT_EQ(connect_error(app.get(), {f().mesh, 80}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("deliver", "the agent does not listen"), 1U);
  outbound_ = agent_listener(bpf::Listener::kOutbound);
  Fd agent = must_accept(outbound_.get());  // the client's next SYN
  expect_talk(app.get(), agent.get());
  EXPECT_EQ(counter("guard", "plaintext into the mesh past the agent"), 0U);
}

TEST_P(Outbound, SynCookies) {
  a_.netns->sysctl("net/ipv4/tcp_syncookies", "2");  // always
  a_.netns->sysctl("net/ipv4/tcp_max_syn_backlog", "1");
  for (int i = 0; i < 10; ++i) {
    auto [app, agent] = captured();
    EXPECT_EQ(*sys::local_endpoint(agent.get()), (Endpoint{f().mesh, 80}));
    expect_talk(app.get(), agent.get());
  }
  EXPECT_EQ(counter("deliver", "handed to a listener of the agent"), 20U);  // SYN and ACK
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
}

TEST_P(Outbound, ASocketMayConnectAgain) {
  Fd server = serve(*netns_, 8080);
  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {f().mesh, 80});
  Fd agent = must_accept(outbound_.get());
  const sockaddr none{AF_UNSPEC, {}};
  ASSERT_EQ(::connect(app.get(), &none, sizeof none), 0);
  must_connect(app.get(), {a_.gateway, 8080});
  Fd peer = must_accept(server.get());
  expect_talk(app.get(), peer.get());
}

TEST_P(Outbound, TaggedSocketsLeaveAndOthersDoNot) {
  Fd server = serve(*netns_, 15008);
  ASSERT_TRUE(capture_->set_destinations({{&a_.gateway, 1}, {}}));
  Fd dial = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(capture_->tag_socket(dial.get()));
  must_connect(dial.get(), {a_.gateway, 15008});
  Fd peer = must_accept(server.get());
  expect_talk(dial.get(), peer.get());
  EXPECT_GE(counter("from_pod", "a socket of the agent"), 3U);

  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {a_.gateway, 15008});
  Fd agent = must_accept(outbound_.get());
  EXPECT_TRUE(nobody_waits(server.get()));

  // Plaintext of the agent's own into the mesh ends at the guard.
  Fd wrong = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(capture_->tag_socket(wrong.get()));
  EXPECT_EQ(connect_error(wrong.get(), {a_.gateway, 8080}, milliseconds(100)), ETIMEDOUT);
  EXPECT_GE(counter("guard", "plaintext into the mesh past the agent"), 1U);
}

TEST_P(Outbound, APodsOwnNatDoesNotTurnTheAgentsDial) {
  if (weft::test::run({"nft", "--version"}).status != 0) GTEST_SKIP() << "needs nft";
  Fd server = serve(*netns_, 9000);
  const std::string table = v4() ? "ip t" : "ip6 t", address = v4() ? "ip daddr " : "ip6 daddr ";
  must_run_in(*a_.netns,
              {"nft", "add table " + table + "; add chain " + table +
                          " out { type nat hook output priority -100; }; add rule " + table + " out " + address +
                          f().outside.to_string() + " tcp dport 9000 dnat to " + a_.gateway.to_string()});
  Fd dial = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(capture_->tag_socket(dial.get()));
  EXPECT_EQ(connect_error(dial.get(), {f().outside, 9000}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("from_pod", "a socket of the agent sent elsewhere"), 1U);
  EXPECT_TRUE(nobody_waits(server.get()));
}

}  // namespace
}  // namespace weft::test
