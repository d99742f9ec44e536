// SPDX-License-Identifier: Apache-2.0
/// The waypoint's pod in the mesh itself: the agent takes the tunnels for Envoy and tells it by the PROXY protocol who
/// came and where to; what Envoy sends is captured like any pod's, and goes past the waypoint.

#include <sys/socket.h>

#include <iostream>

#include "agent/identity/self_signed.h"
#include "test/netns/hbone_peer.h"
#include "test/netns/steady_load.h"
#include "test/netns/waypoint_fixture.h"
#include "test/support/test_ca.h"
#include "tunnel/proxy/proxy_header.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// Node 1: client, other, and the pod outside, which is not in the mesh. Node 2: web-v1, web-v2, and the waypoint.
class Sandwich : public ::testing::Test {
 protected:
  static constexpr milliseconds kSoon{10'000};
  static constexpr std::uint16_t kTunnelPort = 15088;

  static void SetUpTestSuite() {
    if (!is_root() || Envoy::executable().empty()) return;
    mesh_ = std::make_unique<Mesh>();
    client = add(1, "shop", "client", "client");
    other = add(1, "shop", "other", "other");
    outside = add(1, "legacy", "outside", "outside", false);
    v1 = add(2, "shop", "web-v1", "web");
    v2 = add(2, "shop", "web-v2", "web");
    waypoint = add(2, "infra", "waypoint", "waypoint");
    mesh_->change_workload(*waypoint, tunnelled());
    mesh_->add_service("infra", "waypoint", 15008, 15008, {waypoint});
    std::tie(vip_v4, vip_v6) = mesh_->add_service("shop", "web", 80, Pod::kPort, {v1, v2}, through());
    mesh_->add_service("shop", "plain", 80, Pod::kPort, {v1});
    envoy = std::make_unique<Envoy>(*mesh_, *waypoint, example("waypoint-sandwich/envoy.yaml"),
                                    std::vector<std::pair<std::string, std::string>>{
                                        {"address: 10.0.2.11", "address: " + v1->address_v4().to_string()},
                                        {"address: 10.0.2.21", "address: " + v2->address_v4().to_string()}});
  }
  static void TearDownTestSuite() {
    envoy.reset();
    mesh_.reset();
  }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    if (Envoy::executable().empty()) GTEST_SKIP() << "there is no Envoy (scripts/envoy gets it, WEFT_ENVOY names one)";
    ASSERT_NE(envoy, nullptr) << "the mesh could not be made";
    logs_.mark(*mesh_);
    envoy_before_ = envoy->log().size();
  }
  void TearDown() override {
    if (!envoy) return;
    mesh_->set_policies({});
    if (!HasFailure()) return;
    logs_.tell(*mesh_);
    std::cerr << "---- Envoy:\n" << envoy->log().substr(envoy_before_) << envoy->trouble();
  }

  static Pod* add(int node, const char* namespace_name, const char* name, const char* account, bool enrolled = true) {
    PodOptions options;
    options.service_account = account;
    options.enrolled = enrolled;
    Pod& pod = mesh_->add_pod(node, namespace_name, name, options);
    if (pod.namespace_name() != "infra") pod.serve();
    return &pod;
  }
  static json tunnelled() { return {{"applicationTunnel", {{"protocol", "PROXY"}, {"port", kTunnelPort}}}}; }
  static json through() {
    return {{"waypoint", {{"destination", "infra/waypoint.infra.svc.cluster.local"}, {"hboneMtlsPort", 15008}}}};
  }
  static Endpoint vip(bool v6 = false) { return {v6 ? vip_v6 : vip_v4, 80}; }
  static Node& node1() { return mesh_->node(1); }
  static Node& node2() { return mesh_->node(2); }
  static std::string record_of(const std::string& path) {
    std::vector<std::string> lines;
    (void)eventually(kSoon, [&] { return !(lines = log_lines(envoy->log(), 0, {"path=/" + path + " "})).empty(); });
    return lines.empty() ? "" : lines.front();
  }
  static std::size_t seen(const std::string& path) {
    return log_lines(envoy->log(), 0, {"path=/" + path + " "}).size();
  }

  /// A peer of the mesh that asks the waypoint's agent itself.
  static std::unique_ptr<HbonePeer> peer() {
    const auto ca = agent::SelfSignedCa::load(mesh_->ca_dir());
    if (!ca) throw TestError(ca.error().message());
    auto bundle = (*ca)->issue(state::Identity{"cluster.local", "shop", "peer"});
    if (!bundle) throw TestError(bundle.error().message());
    const auto context = raw_context(*bundle, {});
    return std::make_unique<HbonePeer>(outside->netns(), Endpoint{waypoint->address_v4(), 15008}, context.get());
  }
  static std::string request(const std::string& path) {
    return "GET /" + path + " HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
  }

  static std::unique_ptr<Mesh> mesh_;
  static std::unique_ptr<Envoy> envoy;
  static Pod *client, *other, *outside, *v1, *v2, *waypoint;
  static IpAddress vip_v4, vip_v6;

 private:
  AgentLogs logs_;
  std::size_t envoy_before_ = 0;
};

std::unique_ptr<Mesh> Sandwich::mesh_;
std::unique_ptr<Envoy> Sandwich::envoy;
Pod *Sandwich::client, *Sandwich::other, *Sandwich::outside, *Sandwich::v1, *Sandwich::v2, *Sandwich::waypoint;
IpAddress Sandwich::vip_v4, Sandwich::vip_v6;

TEST_F(Sandwich, EnvoySeesTheVipTheTrueClientAndItsIdentity) {
  const Capture wire(node1().netns(), Node::kWire, 4096);
  for (const bool v6 : {false, true}) {
    const std::string marker = v6 ? "by-ipv6" : "by-ipv4";
    const Finished done = get_from(*client, vip(v6), {"--marker", marker});
    ASSERT_TRUE(done.ok()) << ::testing::PrintToString(done);
    EXPECT_EQ(field(done.out, "server"), "web-v1");
    const std::string from = Endpoint{v6 ? client->address_v6() : client->address_v4(), 1}.to_string();
    EXPECT_THAT(record_of(marker), AllOf(HasSubstr("client=" + client->identity() + " "),
                                         HasSubstr("from=" + from.substr(0, from.size() - 1)),
                                         HasSubstr("to=" + vip(v6).to_string() + " "), HasSubstr("status=200")));
    EXPECT_FALSE(wire.contains(marker)) << "in the clear";
  }
}

TEST_F(Sandwich, RoutesByHeaderAndDeniesByIdentity) {
  EXPECT_EQ(field(get_from(*client, vip(), {"--header", "x-version: v2"}).out, "server"), "web-v2");
  EXPECT_TRUE(get_from(*client, vip(), {"--marker", "reports/a"}).ok());
  EXPECT_THAT(get_from(*other, vip(), {"--marker", "reports/b"}).out, HasSubstr("answer: HTTP/1.1 403"));
}

TEST_F(Sandwich, WhatItSendsGoesPastItWithItsIdentity) {
  const double before = metric(node2().metrics(), "istio_tcp_connections_opened_total",
                               {"reporter=\"source\"", "source_principal=\"" + waypoint->identity() + "\"",
                                "destination_workload=\"web-v1\"", "connection_security_policy=\"mutual_tls\""});
  // To the VIP, from the pod of the waypoint: neither around in a circle nor through Envoy at all.
  const Finished done = get_from(*waypoint, vip(), {"--count", "10", "--marker", "past-it"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_EQ(seen("past-it"), 0U);
  EXPECT_EQ(count_lines(done.out, "server=web-"), 10U);
  ASSERT_TRUE(get_from(*waypoint, v1->v4()).ok());
  EXPECT_GT(metric(node2().metrics(), "istio_tcp_connections_opened_total",
                   {"reporter=\"source\"", "source_principal=\"" + waypoint->identity() + "\"",
                    "destination_workload=\"web-v1\"", "connection_security_policy=\"mutual_tls\""}),
            before);
}

TEST_F(Sandwich, PodsThatAllowTheWaypointAloneAreReachedThroughIt) {
  mesh_->set_policy({{"name", "only-waypoint"},
                     {"namespace", "shop"},
                     {"scope", "Namespace"},
                     {"action", "Allow"},
                     {"rules", json::array({json::array({json::array({principal(*waypoint)})})})}});
  EXPECT_TRUE(get_from(*client, vip()).ok());
  EXPECT_FALSE(get_from(*client, v1->v4()).ok());
}

TEST_F(Sandwich, TheWaypointsOwnPoliciesSeeTheClient) {
  mesh_->set_policy(deny_policy("infra", "not-other", principal(*other)));
  EXPECT_TRUE(get_from(*client, vip()).ok());
  const std::size_t before = node1().log().size();
  EXPECT_FALSE(get_from(*other, vip()).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node1().log(), before,
                      {"direction=outbound", "DENY", "status 401 (denied by the waypoint's policy)"})
                .empty();
  }));
}

TEST_F(Sandwich, AWorkloadsOwnWaypoint) {
  const auto behind = [](bool yes) { mesh_->change_workload(*v1, yes ? through() : json::object()); };
  behind(true);
  const Finished done = get_from(*client, v1->v4(), {"--marker", "to-the-pod"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_THAT(record_of("to-the-pod"),
              AllOf(HasSubstr("to=" + v1->v4().to_string() + " "), HasSubstr("client=" + client->identity() + " ")));
  // What reaches it by a service has nothing to do with that.
  const auto plain = json::parse(run({program("weftctl"), "explain", "shop/client", "plain.shop:80", "-o", "json"},
                                     {.netns = &node1().netns(), .environment = {}, .input = {}})
                                     .out);
  EXPECT_FALSE(plain.at("endpoints")[0].contains("waypoint")) << plain.dump(2);
  behind(false);
  ASSERT_TRUE(get_from(*client, v1->v4(), {"--marker", "to-the-pod-again"}).ok());
  EXPECT_EQ(seen("to-the-pod-again"), 0U);
}

TEST_F(Sandwich, RecordsAndExplanationAgree) {
  const std::size_t before = node2().log().size();
  ASSERT_TRUE(get_from(*client, vip()).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node2().log(), before,
                      {"direction=inbound", "src.identity=" + client->identity(), "dst.workload=waypoint ",
                       "dst.hbone_addr=" + vip().to_string() + " ", "dst.service=web.shop.svc.cluster.local"})
                .empty();
  })) << node2().log().substr(before);
  const auto explained = [](Node& node, const std::string& from, const std::string& to) {
    return json::parse(run({program("weftctl"), "explain", from, to, "-o", "json"},
                           {.netns = &node.netns(), .environment = {}, .input = {}})
                           .out);
  };
  json said = explained(node1(), "shop/client", "web.shop:80");
  EXPECT_EQ(said.at("endpoints")[0].at("workload"), "infra/waypoint") << said.dump(2);
  EXPECT_EQ(said.at("outcome"), "allowed");
  said = explained(node2(), "infra/waypoint", "web.shop:80");
  EXPECT_EQ(said.at("endpoints").size(), 2U) << said.dump(2);
  EXPECT_FALSE(said.at("endpoints")[0].contains("waypoint"));
  // A policy of the tunnel's port: both must say the same of it.
  mesh_->set_policy(deny_policy("infra", "not-the-tunnel", {{"destinationPorts", {kTunnelPort}}}));
  said = explained(node1(), "shop/client", "web.shop:80");
  EXPECT_EQ(said.at("outcome"), "refused") << said.dump(2);
  EXPECT_EQ(said.at("endpoints")[0].at("policy"), "infra/not-the-tunnel");
  EXPECT_FALSE(get_from(*client, vip()).ok());
}

// ---- who else may speak to it

TEST_F(Sandwich, AsksForWhatHasItAsItsWaypointOnly) {
  const auto asked = [](const std::string& authority) {
    const auto one = peer();
    EXPECT_TRUE(one->accepted()) << one->refusal();
    return one->answer(one->connect(authority)).status;
  };
  EXPECT_EQ(asked(vip().to_string()), "200");
  EXPECT_EQ(asked("web.shop.svc.cluster.local:80"), "200");
  EXPECT_EQ(asked(Endpoint({waypoint->address_v4(), 80}).to_string()), "200");
  for (const auto& authority : {std::string("10.96.0.3:80"), v1->v4().to_string(), std::string("8.8.8.8:53")}) {
    EXPECT_EQ(asked(authority), "400") << authority;
  }
  EXPECT_EQ(asked("plain.shop.svc.cluster.local:80"), "503");
}

TEST_F(Sandwich, AHostnameAndDataThatComesRightBehindTheRequest) {
  const auto one = peer();
  ASSERT_TRUE(one->accepted()) << one->refusal();
  // Bytes of the stream are there before the connection to Envoy is: the header goes first all the same.
  for (const auto& authority : {std::string("web.shop.svc.cluster.local:80"), vip().to_string()}) {
    const std::string path = "eager-" + std::to_string(authority.size());
    const auto stream = one->connect(authority);
    one->send(stream, request(path));
    EXPECT_EQ(one->answer(stream).status, "200");
    EXPECT_THAT(one->receive_until(stream, "path=/" + path), HasSubstr("server=web-v1"));
    EXPECT_THAT(record_of(path), AllOf(HasSubstr("client=spiffe://cluster.local/ns/shop/sa/peer "),
                                       HasSubstr("to=" + vip().to_string() + " ")));
  }
}

TEST_F(Sandwich, NobodyElseTellsItWhoCame) {
  const auto forged = proxy::proxy_header({client->address_v4(), 1}, vip(), {"cluster.local", "shop", "client"});
  ASSERT_TRUE(forged.has_value());
  const std::string header(reinterpret_cast<const char*>(forged->data()), forged->size());
  // By HBONE: the agent's header stands before the forged one, which is then no HTTP.
  const auto one = peer();
  const auto stream = one->connect(Endpoint({waypoint->address_v4(), kTunnelPort}).to_string());
  EXPECT_EQ(one->answer(stream).status, "200");
  one->send(stream, header + request("reports/forged-by-hbone"));
  EXPECT_THAT(one->receive_until(stream, "\r\n\r\n"), Not(HasSubstr(" 200 ")));
  // In plaintext: nobody listens for it. Envoy binds loopback in this example; a listener on all addresses shows that
  // the agent refuses by itself.
  const Process everywhere = waypoint->start({program("weft-testapp"), "serve", "--name", "exposed", "--port", "15099",
                                              "--address", waypoint->address_v4().to_string()});
  json elsewhere = tunnelled();
  elsewhere["applicationTunnel"]["port"] = 15099;
  ASSERT_TRUE(eventually(kSoon, [&] {
    return get_from(*outside, {waypoint->address_v4(), 15099}).ok();
  })) << "a port that is no tunnel's takes plaintext";
  const std::size_t before = node2().log().size();
  mesh_->change_workload(*waypoint, elsewhere);
  EXPECT_FALSE(get_from(*outside, {waypoint->address_v4(), 15099}, {"--timeout", "3", "--connect-timeout", "3"}).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node2().log(), before, {"direction=inbound", "DENY", "policy=application_tunnel"}).empty();
  })) << node2().log().substr(before);
  mesh_->change_workload(*waypoint, tunnelled());
  EXPECT_EQ(seen("reports/forged-by-hbone"), 0U);
}

// ---- changes

TEST_F(Sandwich, ComesAndGoesUnderLoadWithoutAFailedRequest) {
  SteadyLoad load;
  for (const bool v6 : {false, true}) {
    load.request(*client, vip(v6), false);
    load.request(*other, vip(v6), true);
  }
  load.expect_all_go_on("with a waypoint");
  for (int round = 0; round < 3; ++round) {
    // Whichever node hears of it first: the waypoint's waits before it refuses what it does not know of.
    for (const auto& order : {std::vector<int>{1, 2}, std::vector<int>{2, 1}}) {
      const std::string first = ", node " + std::to_string(order.front()) + " first";
      mesh_->change_service("shop", "web", json::object(), order);
      load.expect_all_go_on("it has gone" + first);
      mesh_->change_service("shop", "web", through(), order);
      load.expect_all_go_on("it is back" + first);
    }
  }
  std::printf("%zu requests were answered\n", load.answered());
}

TEST_F(Sandwich, WhenItsEnvoyDiesTheConnectionFailsByNameAndNothingGoesPast) {
  envoy->kill();
  const std::size_t before1 = node1().log().size(), before2 = node2().log().size();
  EXPECT_FALSE(get_from(*client, vip(), {"--marker", "to-the-dead"}).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node1().log(), before1,
                      {"direction=outbound", "waypoint infra/waypoint.infra.svc.cluster.local: CONNECT", "status 503"})
                .empty();
  })) << node1().log().substr(before1);
  EXPECT_TRUE(eventually(kSoon, [&] {
    return !log_lines(node2().log(), before2, {"direction=inbound", "connect 127.0.0.1:15088"}).empty();
  })) << node2().log().substr(before2);
  envoy->start();
  EXPECT_TRUE(get_from(*client, vip()).ok());
}

}  // namespace
}  // namespace weft::test
