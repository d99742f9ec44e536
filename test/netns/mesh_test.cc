// SPDX-License-Identifier: Apache-2.0
/// Traffic of pods in the mesh and outside of it, over the real chain, programs and agents on two nodes.

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using MeshTraffic = MeshTest;

TEST_F(MeshTraffic, PodsReachEachOtherAcrossNodesAndTheWireCarriesOnlyTheTunnel) {
  const Capture wire(node1().netns(), Node::kWire);
  EXPECT_THAT(client->get(db->v4(), {"--marker", "secret-v4"}), IsAnswer("db", client->address_v4()));
  EXPECT_THAT(client->get(db->v6(), {"--marker", "secret-v6"}), IsAnswer("db", client->address_v6()));
  EXPECT_THAT(db->get(client->v4(), {"--marker", "secret-back"}), IsAnswer("client", db->address_v4()));
  EXPECT_THAT(db->get(client->v6(), {"--marker", "secret-back"}), IsAnswer("client", db->address_v6()));
  EXPECT_FALSE(
      wire.segments([](const Segment& s) { return s.destination.port == 15008 && s.payload_bytes > 0; }).empty());
  EXPECT_TRUE(wire.segments([](const Segment& s) { return is_clear_between(s, *client, *db); }).empty());
  EXPECT_FALSE(wire.contains("secret-"));
  EXPECT_EQ(wire.lost(), 0U);
}

TEST_F(MeshTraffic, PodsOnOneNodeReachEachOtherThroughTheTunnelToo) {
  const Capture veth(node1().netns(), web1->host_interface());
  EXPECT_THAT(client->get(web1->v4(), {"--marker", "secret-v4"}), IsAnswer("web1", client->address_v4()));
  EXPECT_THAT(client->get(web1->v6(), {"--marker", "secret-v6"}), IsAnswer("web1", client->address_v6()));
  EXPECT_FALSE(
      veth.segments([](const Segment& s) { return s.destination.port == 15008 && s.payload_bytes > 0; }).empty());
  EXPECT_TRUE(veth.segments([](const Segment& s) { return is_clear_between(s, *client, *web1); }).empty());
  EXPECT_FALSE(veth.contains("secret-"));
  EXPECT_EQ(veth.lost(), 0U);
}

TEST_F(MeshTraffic, TheAccessLogNamesBothIdentitiesOnBothNodes) {
  const std::size_t before1 = node1().log().size(), before2 = node2().log().size();
  ASSERT_TRUE(client->get(db->v4()).ok());
  ASSERT_TRUE(web1->get(db->v4()).ok());
  for (const Pod* from : {client, web1}) {
    const std::vector<std::string> words{"connection complete", "src.identity=" + from->identity(),
                                         "dst.identity=" + db->identity(), "src.workload=" + from->name(),
                                         "src.addr=" + from->address_v4().to_string() + ":"};
    EXPECT_TRUE(eventually(milliseconds(5000), [&] { return log_lines(node1().log(), before1, words).size() == 1; }));
    EXPECT_TRUE(eventually(milliseconds(5000), [&] { return log_lines(node2().log(), before2, words).size() == 1; }));
  }
  EXPECT_GT(metric(node2().metrics(), "istio_tcp_connections_closed_total",
                   {"reporter=\"destination\"", "source_principal=\"" + client->identity() + "\"",
                    "connection_security_policy=\"mutual_tls\""}),
            0);
}

TEST_F(MeshTraffic, AServiceLeadsToBothBackendsAndHasNoOtherPort) {
  const auto [v4, v6] = mesh().add_service("shop", "web", 80, Pod::kPort, {web1, web2});
  for (const auto& vip : {v4, v6}) {
    const Finished answers = client->get({vip, 80}, {"--count", "20"});
    EXPECT_TRUE(answers.ok()) << ::testing::PrintToString(answers);
    EXPECT_THAT(answers.out, HasSubstr("server=web1"));
    EXPECT_THAT(answers.out, HasSubstr("server=web2"));
    const IpAddress& own = vip.is_v6() ? client->address_v6() : client->address_v4();
    EXPECT_THAT(answers, IsAnswer(field(answers.out, "server"), own));
    const Finished unknown = client->get({vip, 81});
    EXPECT_FALSE(unknown.ok());
    EXPECT_THAT(unknown.out, AnyOf(HasSubstr("Connection refused"), HasSubstr("reset")));
  }
}

TEST_F(MeshTraffic, AServiceThatLeadsBackToTheCallerIsAnswered) {
  const auto [v4, v6] = mesh().add_service("shop", "loop", 80, Pod::kPort, {client});
  EXPECT_EQ(field(client->get({v4, 80}).out, "server"), "client");
  EXPECT_EQ(field(client->get({v6, 80}).out, "server"), "client");
}

TEST_F(MeshTraffic, APodMayListenOnAPortThatItCallsElsewhere) {
  constexpr std::uint16_t kPort = 9191;
  db->serve(kPort);
  for (const auto& [to, own] : {std::pair{db->v4(kPort), client->v4(kPort)}, {db->v6(kPort), client->v6(kPort)}}) {
    const Process held = client->hold(to);
    Process& server = client->serve(kPort);
    EXPECT_THAT(web1->get(own), IsAnswer("client", to.address.is_v4() ? web1->address_v4() : web1->address_v6()));
    server.kill();
  }
}

TEST_F(MeshTraffic, APodReachesItselfWithoutTheMesh) {
  for (const auto& own : {client->v4(), client->v6()}) expect_untouched(client->get(own), "client");
}

TEST_F(MeshTraffic, WhatIsNotOfTheMeshPassesUntouchedInBothDirections) {
  for (const auto& to : {outside->v4(), outside->v6()}) {
    expect_untouched(client->get(to), "outside");
    expect_untouched(db->get(to), "outside");
  }
  for (const Pod* server : {web1, web2}) {
    expect_untouched(outside->get(server->v4()), server->name());
    expect_untouched(outside->get(server->v6()), server->name());
  }
}

TEST_F(MeshTraffic, MarksOfTheApplicationDoNotExemptIt) {
  const Capture veth(node1().netns(), client->host_interface());
  // Weft's capture mark, and those of Istio's proxy.
  for (const int mark : {0x1000, 0x539, 0x111}) {
    for (const auto& to : {db->v4(), db->v6(), web1->v4(), web1->v6()}) {
      SCOPED_TRACE(std::to_string(mark) + " to " + to.to_string());
      const Finished answer = client->get(to, {"--mark", std::to_string(mark), "--marker", "secret-marked"});
      EXPECT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
    }
  }
  EXPECT_FALSE(veth.contains("secret-marked"));
  EXPECT_EQ(veth.lost(), 0U);
}

}  // namespace
}  // namespace weft::test
