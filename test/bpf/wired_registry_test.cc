// SPDX-License-Identifier: Apache-2.0
/// Pods that may go to the registry alone, on wires.
#include "test/bpf/wired.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

constexpr const char* kRefused = "to where the registry names nothing";

class Registry : public WiredTest {
 protected:
  [[nodiscard]] bpf::Settings settings() const override {
    bpf::Settings s = WiredTest::settings();
    s.registry_only = true;
    return s;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Registry, ::testing::Combine(::testing::Values(4, 6), ::testing::Bool()), wired_name);

TEST_P(Registry, UnknownDestinationsMeetTheAgent) {
  Fd server = serve(*netns_, 8080);
  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {a_.gateway, 8080});
  Fd agent = must_accept(outbound_.get());
  EXPECT_EQ(*sys::local_endpoint(agent.get()), (Endpoint{a_.gateway, 8080}));
  sys::close_with_reset(agent);
  EXPECT_EQ(wait_for_error(app.get()), ECONNRESET);
  EXPECT_TRUE(nobody_waits(server.get()));
  EXPECT_EQ(counter("guard", kRefused), 0U);
}

/// A registered name led the agent there.
TEST_P(Registry, TheAgentsSocketsPassTheGuard) {
  Fd server = serve(*netns_, 8080);
  Fd dial = socket_in(*a_.netns, a_.address);
  ASSERT_TRUE(capture_->tag_socket(dial.get()));
  must_connect(dial.get(), {a_.gateway, 8080});
  Fd peer = must_accept(server.get());
  expect_talk(dial.get(), peer.get());
  EXPECT_EQ(counter("guard", kRefused), 0U);
}

TEST_P(Registry, ConnectionsOlderThanEnrolmentLiveOn) {
  Fd server = serve(*netns_, 8080);
  set_pod(a_, 0, false);
  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {a_.gateway, 8080});
  Fd peer = must_accept(server.get());
  set_pod(a_, 0, true);
  expect_talk(app.get(), peer.get());
}

TEST_P(Registry, DatagramsEndAtTheGuardUntilTheirDestinationIsNamed) {
  const Endpoint to{a_.gateway, 8080};
  const auto udp = [this] { return std::move(*sys::socket(v4() ? AF_INET : AF_INET6, SOCK_DGRAM)); };
  Fd server = udp();
  ASSERT_TRUE(sys::bind(server.get(), to.to_sockaddr()));
  Fd app = run_in(*a_.netns, udp);
  ASSERT_TRUE(sys::connect(app.get(), to.to_sockaddr()));
  must_send(app.get(), "first");
  EXPECT_TRUE(eventually(milliseconds(5000), [this] { return counter("guard", kRefused) == 1; }));
  ASSERT_TRUE(capture_->set_registry({{&to.address, 1}, {}}));
  must_send(app.get(), "second");
  EXPECT_EQ(must_receive(server.get(), 6), "second");
  EXPECT_EQ(counter("guard", kRefused), 1U);
}

}  // namespace
}  // namespace weft::test
