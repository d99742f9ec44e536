// SPDX-License-Identifier: Apache-2.0
/// How connections end, by FIN, RST and half by half: with the mesh between them both applications see what they see
/// without it. And what happens to a connection whose first endpoint fails.

#include "test/netns/endings.h"
#include "test/netns/mesh_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;

constexpr std::uint16_t kScriptPort = 9292;

class MeshEnds : public MeshTest {
 protected:
  static std::string play(const Ending& ending, const Pod& server, const Endpoint& to) {
    return play_ending(ending, client->netns(), server.netns(), to);
  }
};

TEST_F(MeshEnds, LookTheSameWithAndWithoutTheMesh) {
  for (const Ending& ending : endings()) {
    SCOPED_TRACE(ending.name);
    EXPECT_EQ(play(ending, *outside, outside->v4(kScriptPort)), ending.expected) << "without the mesh, IPv4";
    EXPECT_EQ(play(ending, *outside, outside->v6(kScriptPort)), ending.expected) << "without the mesh, IPv6";
    for (const Pod* server : {db, web1}) {
      EXPECT_EQ(play(ending, *server, server->v4(kScriptPort)), ending.expected) << server->name() << ", IPv4";
      EXPECT_EQ(play(ending, *server, server->v6(kScriptPort)), ending.expected) << server->name() << ", IPv6";
    }
  }
}

/// The connection is accepted before its destination is known to work: a refusal can only be a reset, and is one at
/// once.
TEST_F(MeshEnds, ARefusalIsAResetAtOnceAndItsReasonIsInTheLog) {
  for (const Endpoint& to : {db->v4(kScriptPort), db->v6(kScriptPort)}) {
    const std::size_t before = node1().log().size();
    const auto started = std::chrono::steady_clock::now();
    const Dialled client_end = dial_in(client->netns(), to);
    ASSERT_TRUE(client_end.fd) << ::strerror(client_end.error);
    EXPECT_EQ(read_to_end(client_end.fd), "|reset");
    EXPECT_LT(std::chrono::steady_clock::now() - started, milliseconds(2000));
    EXPECT_TRUE(eventually(milliseconds(5000), [&] {
      return log_lines(node1().log(), before, {"dst.hbone_addr=" + to.to_string(), "status 503"}).size() == 1;
    }));
  }
}

class MeshAgain : public MeshTest {
 protected:
  static double failures() {
    return metric(node1().metrics(), "istio_tcp_connections_closed_total",
                  {"source_workload=\"client\"", "response_flags=\"CONNECT\""});
  }
};

TEST_F(MeshAgain, AServiceIsReachedThroughTheEndpointThatWorks) {
  // Only db serves the port: at web2 the connect is refused, and nothing was sent yet.
  const auto [v4, v6] = mesh().add_service("bank", "half", 80, 9494, {db, web2});
  Process& server = db->serve(9494);
  const double before = failures();
  for (const auto& vip : {v4, v6}) {
    for (int i = 0; i < 12; ++i) {
      EXPECT_THAT(client->get({vip, 80}), IsAnswer("db", vip.is_v4() ? client->address_v4() : client->address_v6()));
    }
  }
  EXPECT_EQ(failures(), before) << "an attempt that was made good is no failed connection";
  server.kill();
  ASSERT_TRUE(eventually(milliseconds(5000), [&] { return !server.running(); }));
  const std::size_t offset = node1().log().size();
  EXPECT_FALSE(client->get({v4, 80}).ok());
  // Both are named.
  ASSERT_TRUE(
      eventually(milliseconds(5000), [&] { return !log_lines(node1().log(), offset, {"; then CONNECT"}).empty(); }));
  const std::string line = log_lines(node1().log(), offset, {"; then CONNECT"}).front();
  EXPECT_THAT(line, HasSubstr("CONNECT " + db->v4(9494).to_string() + ": status 503"));
  EXPECT_THAT(line, HasSubstr("CONNECT " + web2->v4(9494).to_string() + ": status 503"));
  EXPECT_EQ(failures(), before + 1);
}

TEST_F(MeshAgain, ADenialIsNotTriedElsewhere) {
  const auto [v4, v6] = mesh().add_service("bank", "pair", 80, Pod::kPort, {db, web2});
  mesh().set_policy(deny_policy("bank", "no-client", principal(*client)));
  int denied = 0, answered = 0;
  for (int i = 0; i < 40 && (denied == 0 || answered == 0); ++i) {
    const Finished got = client->get({v4, 80});
    denied += got.ok() ? 0 : 1;
    answered += field(got.out, "server") == "web2" ? 1 : 0;
    EXPECT_NE(field(got.out, "server"), "db");
  }
  mesh().remove_policy("bank", "no-client");
  EXPECT_GT(denied, 0);
  EXPECT_GT(answered, 0);
}

}  // namespace
}  // namespace weft::test
