// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/admin_api.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "agent/admin/certificate_dump.h"
#include "test/unit/agent/admin_fixture.h"
#include "tunnel/base/log.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class AdminApi : public test::AdminFixture {
 protected:
  HttpResponse ask(const std::string& method, const std::string& path, bool loopback = true,
                   std::map<std::string, std::string> query = {}) {
    const auto routes = admin_routes(sources_);
    const auto handler = routes.find({method, path});
    EXPECT_NE(handler, routes.end()) << method << " " << path;
    if (handler == routes.end()) return {};
    return handler->second({method, path, std::move(query), loopback});
  }
};

TEST_F(AdminApi, ConfigDumpHasTheShapeOfTheLocalFormat) {
  const json dump = json::parse(ask("GET", "/config_dump").body);
  const json& workload = dump.at("workloads").at(0);
  EXPECT_EQ(workload.at("workloadIps"), json::array({"10.0.0.5"}));
  EXPECT_EQ(workload.at("protocol"), "HBONE");
  EXPECT_EQ(workload.at("serviceAccount"), "web-sa");
  EXPECT_EQ(workload.at("status"), "Healthy");
  EXPECT_EQ(workload.at("waypoint"), json({{"destination", "shop/way.shop.svc"}, {"hboneMtlsPort", 15008}}));
  EXPECT_EQ(workload.at("services"), json({{"shop/web.shop.svc", {{"80", 8080}}}}));
  const json& service = dump.at("services").at(0);
  EXPECT_EQ(service.at("vips"), json::array({"/10.96.0.1"}));
  EXPECT_EQ(service.at("endpoints").at("Kubernetes//Pod/shop/web").at("port"), json({{"80", 8080}}));
  const json& policy = dump.at("policies").at(0);
  EXPECT_EQ(policy.at("scope"), "Namespace");
  EXPECT_EQ(policy.at("action"), "Deny");
  const json expected = json::parse(R"([[[{"principals": [{"Prefix": "cluster.local/ns/bad"}, {"Presence": []}],
                                          "sourceIps": ["10.1.0.0/16"], "destinationPorts": [8080]}]]])");
  EXPECT_EQ(policy.at("rules"), expected);
  const json& state = dump.at("workloadState").at("Kubernetes//Pod/shop/web");
  EXPECT_EQ(state.at("state"), "Up");
  EXPECT_EQ(state.at("info").at("serviceAccount"), "web-sa");
  EXPECT_EQ(state.at("connections").at("outbound").at(0).at("actualDst"), "10.0.1.7:15008");
  EXPECT_EQ(dump.at("workloadState").size(), 1U);
  EXPECT_TRUE(dump.at("certificates").is_array());
}

TEST_F(AdminApi, ConfigDumpBeforeTheFirstStateIsEmpty) {
  state_.reset();
  const json dump = json::parse(ask("GET", "/config_dump").body);
  EXPECT_TRUE(dump.at("workloads").empty());
  EXPECT_EQ(dump.at("workloadState").size(), 1U);
}

TEST_F(AdminApi, ReadyOnlyWhenNothingIsMissing) {
  EXPECT_EQ(ask("GET", "/healthz/ready").status, 200);
  missing_ = {"no configuration yet"};
  const auto response = ready_routes(sources_).at({"GET", "/healthz/ready"})({});
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body, HasSubstr("no configuration yet"));
}

TEST_F(AdminApi, MetricsCarryTheAgentsOwnFamilies) {
  const auto response = metrics_routes(sources_).at({"GET", "/metrics"})({});
  EXPECT_THAT(response.content_type, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(response.body,
              AllOf(HasSubstr(R"(weft_bpf_packets_total{program="guard",verdict="drop",reason="a VLAN tag"} 3)"),
                    HasSubstr(R"(reason="a \"quoted\" one"} 12)"), HasSubstr(R"(weft_pods{state="enrolled"} 1)"),
                    HasSubstr(R"(weft_pods{state="failed"} 0)"), HasSubstr("weft_registration_errors_total 2"),
                    HasSubstr(R"(istio_build{component="ztunnel",tag="1.2.3"} 1)"),
                    HasSubstr("workload_manager_active_proxy_count 1")));
  EXPECT_THAT(response.body, AllOf(HasSubstr(R"(weft_reconcile_actions_total{action="adopted"} 4)"),
                                   HasSubstr(R"(weft_reconcile_actions_total{action="mended"} 0)"),
                                   HasSubstr("weft_unknown_attachments 1"), HasSubstr("weft_uncaptured_interfaces 2"),
                                   HasSubstr("weft_pod_problems 1"), HasSubstr(R"(weft_pods{state="uncaptured"} 0)")));
  EXPECT_THAT(response.body, Not(HasSubstr("process_open_fds 0\n")));
}

TEST_F(AdminApi, ChangesAreTakenFromLoopbackOnly) {
  EXPECT_EQ(ask("POST", "/quitquitquit", false).status, 403);
  EXPECT_EQ(ask("POST", "/logging", false, {{"level", "trace"}}).status, 403);
  EXPECT_EQ(quits_, 0);
  EXPECT_EQ(ask("POST", "/quitquitquit").status, 200);
  EXPECT_EQ(quits_, 1);
}

TEST_F(AdminApi, LoggingSetsReadsAndResetsTheLevel) {
  const std::string before = log::level();
  const auto routes = admin_routes(sources_);
  const auto& handler = routes.at({"POST", "/logging"});
  const auto with = [&](std::map<std::string, std::string> query) {
    return handler({"POST", "/logging", std::move(query), true});
  };
  EXPECT_EQ(with({{"level", "warn"}}).body, "level=warn\n");
  EXPECT_EQ(log::level(), "warn");
  EXPECT_EQ(with({}).body, "level=warn\n");
  EXPECT_EQ(with({{"level", "shout"}}).status, 400);
  EXPECT_EQ(log::level(), "warn");
  EXPECT_EQ(with({{"level", "reset"}}).body, "level=" + before + "\n");
}

TEST_F(AdminApi, ServesOverHttp) {
  auto server = HttpServer::start("admin", Endpoint::parse("127.0.0.1:0").value(), admin_routes(sources_));
  ASSERT_TRUE(server) << server.error().message();
  const Endpoint address = (*server)->address();
  EXPECT_NE(address.port, 0);
  auto pods = http_request(address, "GET", "/pods", 5'000);
  ASSERT_TRUE(pods) << pods.error().message();
  EXPECT_EQ(pods->status, 200);
  EXPECT_EQ(json::parse(pods->body).at(1).at("name"), "plain");
  EXPECT_EQ(http_request(address, "GET", "/nothing", 5'000)->status, 404);
  EXPECT_EQ(http_request(address, "GET", "/quitquitquit", 5'000)->status, 404);
  EXPECT_EQ(http_request(address, "POST", "/quitquitquit", 5'000)->status, 200);
  EXPECT_EQ(quits_, 1);

  auto taken = HttpServer::start("admin", address, {});
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(taken.error().message(), HasSubstr(address.to_string()));
  server->reset();
  auto closed = http_request(address, "GET", "/pods", 1'000);
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code, ErrorCode::kUnavailable);
}

TEST(CertificateDump, WritesTimesAsRfc3339) {
  EXPECT_EQ(rfc3339(WallTime(std::chrono::seconds(1'700'000'000))), "2023-11-14T22:13:20Z");
  EXPECT_TRUE(certificates_in("no certificate").empty());
}

}  // namespace
}  // namespace weft::admin
