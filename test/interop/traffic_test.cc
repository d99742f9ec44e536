// SPDX-License-Identifier: Apache-2.0
/// Traffic between pods of weft and pods of a real ztunnel, both ways.

#include <cstring>

#include "test/interop/fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;
using ZtunnelTraffic = ZtunnelTest;

TEST_F(ZtunnelTraffic, BothWaysTheApplicationSeesTheClientAndTheWireOnlyTheTunnel) {
  const Capture wire(weft().netns(), Node::kWire);
  EXPECT_THAT(client->get(zweb->v4(), {"--marker", "secret-there"}), IsAnswer("zweb", client->address_v4()));
  EXPECT_THAT(client->get(zweb->v6(), {"--marker", "secret-there"}), IsAnswer("zweb", client->address_v6()));
  EXPECT_THAT(zclient->get(web->v4(), {"--marker", "secret-back"}), IsAnswer("web", zclient->address_v4()));
  EXPECT_THAT(zclient->get(web->v6(), {"--marker", "secret-back"}), IsAnswer("web", zclient->address_v6()));
  for (const auto& [from, to] : {std::pair{client, zweb}, std::pair{zclient, web}}) {
    for (const Endpoint& gateway : {to->v4(15008), to->v6(15008)}) {
      EXPECT_GT(wire.payload_bytes([&](const Segment& s) { return s.destination == gateway; }), 0U)
          << gateway.to_string();
    }
    EXPECT_TRUE(
        wire.segments([from = from, to = to](const Segment& s) { return is_clear_between(s, *from, *to); }).empty());
  }
  EXPECT_FALSE(wire.contains("secret-"));
  EXPECT_EQ(wire.lost(), 0U);
}

TEST_F(ZtunnelTraffic, BulkIsByteExactInBothDirectionsAtOnce) {
  const std::vector<std::string> plan{"--send", "33554432", "--receive", "33554432"};
  for (const auto& [from, to] : {std::pair{client, zweb}, std::pair{zclient, web}}) {
    for (const Endpoint& server : {to->v4(), to->v6()}) {
      const Finished done = from->bulk(server, plan);
      EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
    }
  }
}

TEST_F(ZtunnelTraffic, ASlowReaderHoldsNobodyElseBack) {
  const std::vector<std::string> slow_server{"--send", "6000000", "--receive", "1000", "--server-read-rate", "2000000"};
  const std::vector<std::string> slow_client{"--send", "1000", "--receive", "6000000", "--read-rate", "2000000"};
  for (const auto& [from, to] : {std::pair{client, zweb}, std::pair{zclient, web}}) {
    for (const auto& plan : {slow_server, slow_client}) {
      Process other = from->hold(to->v4());
      const Finished done = from->bulk(to->v4(), plan);
      EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
      EXPECT_TRUE(other.running()) << other.out();
    }
  }
}

TEST_F(ZtunnelTraffic, ConnectionsOneAfterAnotherShareATunnel) {
  for (const auto& [from, to] : {std::pair{client, zweb}, std::pair{zclient, web}}) {
    const Capture wire(weft().netns(), Node::kWire, 128);
    const Endpoint gateway = to->v4(15008);
    EXPECT_THAT(from->get(to->v4(), {"--count", "150"}), IsAnswer(to->name(), from->address_v4()));
    const auto dials = wire.segments([&](const Segment& s) { return s.is_syn() && s.destination == gateway; });
    EXPECT_LE(dials.size(), 1U);
    EXPECT_EQ(wire.lost(), 0U);
  }
}

TEST_F(ZtunnelTraffic, MoreConnectionsAtOnceThanOneTunnelCarries) {
  // ztunnel lets 200 streams into a tunnel and puts 100 of its own on one; here each family has half of these.
  constexpr int kConnections = 900;
  constexpr std::uint16_t kPort = 9292;
  for (const auto& [from, to] : {std::pair{client, zweb}, std::pair{zclient, web}}) {
    const Fd listener = listen_in(to->netns(), kPort);
    std::vector<std::pair<Fd, Fd>> open;
    for (int i = 0; i < kConnections; ++i) {
      Dialled near = dial_in(from->netns(), i % 2 == 0 ? to->v4(kPort) : to->v6(kPort));
      ASSERT_TRUE(near.fd) << i << ": " << std::strerror(near.error);
      Fd far = accept_from(listener);
      open.emplace_back(std::move(near.fd), std::move(far));
    }
    for (std::size_t i = 0; i < open.size(); ++i) {
      const std::string text = std::to_string(10'000 + i);
      send_all(open[i].first, text);
      EXPECT_EQ(read_some(open[i].second, text.size()), text);
      send_all(open[i].second, text);
      EXPECT_EQ(read_some(open[i].first, text.size()), text);
    }
  }
}

TEST_F(ZtunnelTraffic, EachSideLogsTheOthersIdentityAndWorkload) {
  ASSERT_TRUE(client->get(zweb->v4()).ok());
  ASSERT_TRUE(zclient->get(web->v4()).ok());
  EXPECT_FALSE(weft_logged({"connection complete", "direction=outbound", "src.identity=" + client->identity(),
                            "dst.identity=" + zweb->identity(), "dst.workload=zweb"})
                   .empty());
  EXPECT_FALSE(ztunnel_logged(*ztunnel_of_web, {"connection complete", "direction=\"inbound\"", client->identity(),
                                                zweb->identity(), "src.workload=\"client\""})
                   .empty());
  EXPECT_FALSE(weft_logged({"connection complete", "direction=inbound", "src.identity=" + zclient->identity(),
                            "dst.identity=" + web->identity(), "src.workload=zclient"})
                   .empty());
  EXPECT_FALSE(ztunnel_logged(*ztunnel_of_client, {"connection complete", "direction=\"outbound\"", zclient->identity(),
                                                   web->identity(), "dst.workload=\"web\""})
                   .empty());
}

TEST_F(ZtunnelTraffic, AServiceLeadsToEndpointsOfBoth) {
  const auto [v4, v6] = mesh().add_service("shop", "mixed", 80, Pod::kPort, {web, zweb});
  restart_ztunnels();
  for (const Pod* from : {client, zclient}) {
    for (const auto& vip : {v4, v6}) {
      const Finished answers = from->get({vip, 80}, {"--count", "30"});
      EXPECT_TRUE(answers.ok()) << ::testing::PrintToString(answers);
      EXPECT_THAT(answers.out, HasSubstr("server=web "));
      EXPECT_THAT(answers.out, HasSubstr("server=zweb "));
      const IpAddress& own = vip.is_v6() ? from->address_v6() : from->address_v4();
      EXPECT_THAT(answers, IsAnswer(field(answers.out, "server"), own));
      EXPECT_FALSE(from->get({vip, 81}).ok()) << "a port that the service has not";
    }
  }
}

TEST_F(ZtunnelTraffic, APortWithoutAServerIsA503) {
  for (const Endpoint& to : {zweb->v4(9), zweb->v6(9)}) {
    EXPECT_FALSE(client->get(to).ok());
    EXPECT_FALSE(weft_logged({"direction=outbound", "dst.hbone_addr=" + to.to_string(), "status 503"}).empty());
  }
  for (const Endpoint& to : {web->v4(9), web->v6(9)}) {
    EXPECT_FALSE(zclient->get(to).ok());
    EXPECT_FALSE(ztunnel_logged(*ztunnel_of_client, {"direction=\"outbound\"", to.to_string(), "503"}).empty());
  }
}

TEST_F(ZtunnelTraffic, TunnelsAreMadeAnewAfterTheOtherSideWasStartedAgain) {
  expect_reaches(*client, *zweb);
  expect_reaches(*zclient, *web);
  restart_ztunnels();
  expect_reaches(*client, *zweb);
  expect_reaches(*zclient, *web);
  weft().stop_agent();
  weft().start_agent();
  expect_reaches(*zclient, *web);
  expect_reaches(*client, *zweb);
}

}  // namespace
}  // namespace weft::test
