// SPDX-License-Identifier: Apache-2.0
/// A real Envoy as the waypoint of a service: what it does with the client's requests, who it takes the client for, and
/// how the agents report it all. The clients are plain programs that know nothing of it.

#include "test/netns/waypoint_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Waypoint : public WaypointTest {
 protected:
  void TearDown() override {
    if (mesh_) mesh().set_policies({});
    WaypointTest::TearDown();
  }

  /// What Envoy logged of the request that has this path, when it has.
  static std::string record_of(const std::string& path, const std::string& more = "") {
    const auto lines = seen_by(*envoy, 0, {"path=/" + path + " ", more});
    return lines.empty() ? "" : lines.front();
  }
};

// ---- what it does

TEST_F(Waypoint, CanaryOf90To10OverAThousandConnections) {
  const Capture wire(node1().netns(), Node::kWire, 4096);
  const Finished done = get_from(*client, vip(), {"--count", "1000", "--marker", "canary"});
  ASSERT_TRUE(done.ok()) << done.err << done.out.substr(done.out.size() - std::min<std::size_t>(done.out.size(), 400));
  const std::size_t first = count_lines(done.out, "server=web-v1"), second = count_lines(done.out, "server=web-v2");
  std::printf("version 1: %zu, version 2: %zu of 1000\n", first, second);
  EXPECT_EQ(first + second, 1000U);
  // Four standard deviations of a binomial distribution: one run in 16,000 is further off.
  EXPECT_NEAR(static_cast<double>(first), 900, 38);
  EXPECT_GT(count_lines(done.out, "server=web-v1a"), 0U);
  EXPECT_GT(count_lines(done.out, "server=web-v1b"), 0U);
  EXPECT_FALSE(wire.contains("canary")) << "in the clear on the wire";
}

TEST_F(Waypoint, TestersChooseTheNewVersionByAHeader) {
  const Finished done = get_from(*client, vip(), {"--count", "50", "--header", "x-version: v2"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_EQ(count_lines(done.out, "server=web-v2"), 50U);
  const Finished plain = get_from(*client, vip(), {"--count", "50", "--header", "x-version: v1"});
  EXPECT_GT(count_lines(plain.out, "server=web-v1"), 0U);
}

TEST_F(Waypoint, ByIpv6) {
  const Finished done = get_from(*client, vip(true), {"--count", "20", "--marker", "by-ipv6"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_THAT(record_of("by-ipv6"), HasSubstr("from=[" + client->address_v6().to_string() + "]:"));
}

TEST_F(Waypoint, ManyRequestsOfOneConnectionGoToBothVersions) {
  const Finished done = get_from(*client, vip(), {"--count", "200", "--keep-alive"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_GT(count_lines(done.out, "server=web-v1"), 0U);
  EXPECT_GT(count_lines(done.out, "server=web-v2"), 0U);
}

TEST_F(Waypoint, AnAnswerEndsAsItsServerEndsIt) {
  // Envoy resets the stream of every connection that the server's side closes.
  const std::size_t before = node1().log().size();
  const Finished done = get_from(*client, vip(), {"--count", "20", "--marker", "ended", "--to-end"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  const std::vector<std::string> of_client{"connection complete", "src.workload=client"};
  ASSERT_TRUE(eventually(kSoon, [&] { return log_lines(node1().log(), before, of_client).size() >= 20; }));
  for (const auto& line : log_lines(node1().log(), before, of_client)) EXPECT_THAT(line, Not(HasSubstr("error=")));
}

TEST_F(Waypoint, ASlowReaderGetsWhatCameBeforeTheServerClosed) {
  // No more than a stream's window, 4 MiB: what waits for window in Envoy when its side closes, it throws away.
  for (const bool v6 : {false, true}) {
    const Finished done =
        get_from(*client, vip(v6), {"--marker", "long?bytes=2000000", "--read-rate", "1000000", "--to-end"});
    EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  }
}

TEST_F(Waypoint, ABackendThatFailsIsTriedElsewhere) {
  v1b_server->kill();
  const Finished done = get_from(*client, vip(), {"--count", "200", "--marker", "retried"});
  v1b_server = &v1b->serve();
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_EQ(count_lines(done.out, "server="), 200U);
  EXPECT_EQ(count_lines(done.out, "server=web-v1b"), 0U);
  EXPECT_THAT(seen_by(*envoy, 0, {"path=/retried ", "status=200", "tries=2"}), Not(IsEmpty()));
}

TEST_F(Waypoint, AnInjectedDelay) {
  const Finished done =
      get_from(*client, vip(), {"--marker", "delayed", "--header", "x-envoy-fault-delay-request: 400"});
  ASSERT_TRUE(done.ok()) << ::testing::PrintToString(done);
  // Envoy counts from when its loop woke up, which is a little before the request came.
  EXPECT_GE(std::stod(field(done.out, "ms")), 390);
  EXPECT_THAT(record_of("delayed"), HasSubstr("flags=DI"));
  ASSERT_TRUE(get_from(*client, vip(), {"--marker", "prompt"}).ok());
  EXPECT_THAT(record_of("prompt"), HasSubstr("flags=-"));
}

TEST_F(Waypoint, AnInjectedAbort) {
  const Finished done =
      get_from(*client, vip(), {"--marker", "aborted", "--header", "x-envoy-fault-abort-request: 418"});
  EXPECT_THAT(done.out, HasSubstr("answer: HTTP/1.1 418"));
  EXPECT_THAT(record_of("aborted"), HasSubstr("flags=FI"));
}

TEST_F(Waypoint, DeniesByPath) {
  EXPECT_THAT(get_from(*client, vip(), {"--marker", "admin/users"}).out, HasSubstr("answer: HTTP/1.1 403"));
  EXPECT_TRUE(get_from(*client, vip(), {"--marker", "users"}).ok());
}

TEST_F(Waypoint, DeniesByTheIdentityOfTheCallerWhichItSees) {
  EXPECT_TRUE(get_from(*client, vip(), {"--marker", "reports/1"}).ok());
  EXPECT_THAT(get_from(*other, vip(), {"--marker", "reports/2"}).out, HasSubstr("answer: HTTP/1.1 403"));
  EXPECT_TRUE(get_from(*other, vip(), {"--marker", "free"}).ok());
  EXPECT_THAT(record_of("reports/1"), HasSubstr("client=" + client->identity() + " "));
  EXPECT_THAT(record_of("reports/1"), HasSubstr("from=" + client->address_v4().to_string() + ":"));
  EXPECT_THAT(record_of("reports/2"), HasSubstr("client=" + other->identity() + " "));
}

// ---- who may pass by

TEST_F(Waypoint, DirectAccessIsRefusedWhereTheWaypointAloneIsAllowed) {
  const json only_waypoint = {{"name", "only-waypoint"},
                              {"namespace", "shop"},
                              {"scope", "Namespace"},
                              {"action", "Allow"},
                              {"rules", json::array({json::array({json::array({principal(*waypoint)})})})}};
  EXPECT_TRUE(get_from(*client, v1a->v4()).ok()) << "no policy yet";
  mesh().set_policy(only_waypoint);
  const std::size_t before = node1().log().size();
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(get_from(*client, vip(v6)).ok());
    EXPECT_FALSE(get_from(*client, v6 ? v1a->v6() : v1a->v4()).ok()) << "past the waypoint";
    EXPECT_FALSE(get_from(*client, v6 ? v2->v6() : v2->v4()).ok()) << "past the waypoint";
  }
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node1().log(), before, {"direction=inbound", "src.identity=" + client->identity(), "DENY"})
                .empty();
  }));
}

TEST_F(Waypoint, WhoeverAnswersInItsPlaceMustProveToBeIt) {
  const std::size_t before = node1().log().size();
  const Capture wire(node1().netns(), Node::kWire, 4096);
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}, {"serviceAccount", "somebody-else"}});
  const Finished refused = get_from(*client, vip(), {"--marker", "for-an-impostor"});
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}});
  EXPECT_FALSE(refused.ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node1().log(), before,
                      {"direction=outbound", "response_flags=TLS_FAILURE", "waypoint " + the_waypoint(),
                       "spiffe://cluster.local/ns/infra/sa/somebody-else"})
                .empty();
  })) << node1().log().substr(before);
  EXPECT_FALSE(wire.contains("for-an-impostor"));
  EXPECT_THAT(seen_by(*envoy, 0, {"for-an-impostor"}, 0), IsEmpty());
  EXPECT_TRUE(get_from(*client, vip()).ok()) << "when its entry is right again";
}

TEST_F(Waypoint, ItsServiceMayNameFurtherIdentities) {
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}, {"serviceAccount", "somebody-else"}});
  mesh().change_service("infra", "waypoint", {{"subjectAltNames", {waypoint->identity()}}});
  EXPECT_TRUE(get_from(*client, vip()).ok());
  mesh().change_service("infra", "waypoint", json::object());
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}});
}

// ---- how it is reported

TEST_F(Waypoint, RecordsSayBothHops) {
  const std::size_t before1 = node1().log().size(), before2 = node2().log().size();
  ASSERT_TRUE(get_from(*client, vip(), {"--header", "x-version: v2"}).ok());
  const std::string hop = Endpoint{waypoint->address_v4(), 15008}.to_string();
  const std::vector<std::string> out{"direction=outbound",
                                     "src.identity=" + client->identity(),
                                     "dst.addr=" + hop + " ",
                                     "dst.hbone_addr=" + vip().to_string() + " ",
                                     "dst.service=web.shop.svc.cluster.local",
                                     "dst.workload=waypoint ",
                                     "dst.identity=" + waypoint->identity()};
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node1().log(), before1, out).empty(); }))
      << node1().log().substr(before1);
  const std::vector<std::string> in{"direction=inbound", "src.identity=" + waypoint->identity(),
                                    "dst.hbone_addr=" + v2->v4().to_string(), "dst.workload=web-v2 "};
  // Envoy keeps its connection to the pod open; a denial ends it, and the record with it.
  mesh().set_policy(deny_policy("shop", "end-them", principal(*waypoint)));
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node2().log(), before2, in).empty(); }))
      << node2().log().substr(before2);
}

TEST_F(Waypoint, MetricsNameTheServiceTheWaypointAndTheProtocol) {
  const std::vector<std::string> source{"reporter=\"source\"",
                                        "source_principal=\"" + client->identity() + "\"",
                                        "destination_principal=\"" + waypoint->identity() + "\"",
                                        "destination_workload=\"waypoint\"",
                                        "destination_service=\"web.shop.svc.cluster.local\"",
                                        "destination_service_namespace=\"shop\"",
                                        "request_protocol=\"tcp\"",
                                        "connection_security_policy=\"mutual_tls\""};
  const auto opened = [&](Node& node, const std::vector<std::string>& labels) {
    return metric(node.metrics(), "istio_tcp_connections_opened_total", labels);
  };
  const double before = opened(node1(), source);
  ASSERT_TRUE(get_from(*client, vip(), {"--count", "10", "--header", "x-version: v2"}).ok());
  EXPECT_EQ(opened(node1(), source), before + 10);
  EXPECT_GT(opened(node2(), {"reporter=\"destination\"", "source_principal=\"" + waypoint->identity() + "\"",
                             "source_workload=\"waypoint\"", "destination_workload=\"web-v2\"",
                             "destination_principal=\"" + v2->identity() + "\"",
                             "destination_service=\"web.shop.svc.cluster.local\""}),
            0);
}

TEST_F(Waypoint, LiveConnectionsShowTheHop) {
  Process kept = client->start(
      {program("weft-testapp"), "get", vip().to_string(), "--keep-alive", "--count", "100000000", "--marker", "kept"});
  ASSERT_TRUE(kept.wait_for_output("path=/kept", kSoon)) << kept.out() << kept.err();
  const Finished listed = run({program("weftctl"), "connections", "-o", "json"},
                              {.netns = &node1().netns(), .environment = {}, .input = {}});
  ASSERT_TRUE(listed.ok()) << ::testing::PrintToString(listed);
  const json connections = json::parse(listed.out);
  bool found = false;
  for (const auto& c : connections) {
    if (c.value("destination", "") != vip().to_string()) continue;
    found = true;
    EXPECT_EQ(c.at("hbone"), Endpoint({waypoint->address_v4(), 15008}).to_string());
    EXPECT_EQ(c.at("destinationIdentity"), waypoint->identity());
    EXPECT_EQ(c.at("service"), "shop/web.shop.svc.cluster.local");
  }
  EXPECT_TRUE(found) << connections.dump(2);
}

TEST_F(Waypoint, ExplainSaysWhatHappens) {
  const SpawnOptions here{.netns = &node1().netns(), .environment = {}, .input = {}};
  const auto explained = [&](const std::string& to) {
    return run({program("weftctl"), "explain", "shop/client", to, "-o", "json"}, here);
  };
  const Finished by_service = explained("web.shop:80");
  ASSERT_TRUE(by_service.ok()) << ::testing::PrintToString(by_service);
  const json said = json::parse(by_service.out);
  ASSERT_EQ(said.at("endpoints").size(), 1U) << said.dump(2);
  EXPECT_EQ(said.at("endpoints")[0].at("waypoint"), the_waypoint());
  EXPECT_EQ(said.at("endpoints")[0].at("hbone"), Endpoint({waypoint->address_v4(), 15008}).to_string());
  EXPECT_EQ(said.at("endpoints")[0].at("target"), vip().to_string());
  EXPECT_EQ(said.at("endpoints")[0].at("workload"), "infra/waypoint");
  EXPECT_EQ(said.at("outcome"), "allowed");
  const json direct = json::parse(explained("shop/web-v1a:8080").out);
  EXPECT_FALSE(direct.at("endpoints")[0].contains("waypoint"));
  const Finished table = run({program("weftctl"), "explain", "shop/client", "web.shop:80"}, here);
  EXPECT_THAT(table.out, HasSubstr("waypoint " + the_waypoint()));
}

}  // namespace
}  // namespace weft::test
