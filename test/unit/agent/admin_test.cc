// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/admin_api.h"

#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <functional>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/admin/certificate_dump.h"
#include "agent/control/local_config.h"
#include "test/unit/agent/admin_fixture.h"
#include "tunnel/base/log.h"
#include "tunnel/base/rfc3339.h"

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

TEST_F(AdminApi, WaypointsThatLeadNowhereAreNoted) {
  const auto notes = [&](const char* path, std::size_t index) {
    return json::parse(ask("GET", path).body).at(index).at("notes").dump();
  };
  EXPECT_THAT(notes("/workloads", 0), HasSubstr("waypoint shop/way.shop.svc: there is no such service"));
  EXPECT_EQ(notes("/services", 0), "[]");
  state::Service service = *state_->services().at(0);
  auto way = test::hbone_workload("way", {test::ip("10.0.0.9")});
  way.services["shop/way.shop.svc"] = {};
  state::Service way_service = service;
  way_service.name = "way";
  way_service.hostname = "way.shop.svc";
  way_service.vips.clear();
  const auto make = [&] { state_ = state::State::build({{way}, {service, way_service}, {}}).value(); };
  service.weighted_waypoints = {{{state::NamespacedHostname{"shop", "way.shop.svc"}}, 1},
                                {{state::NamespacedHostname{"shop", "gone.shop.svc"}}, 1}};
  make();
  EXPECT_EQ(notes("/services", 0),
            "[\"waypoint shop/gone.shop.svc: there is no such service: connections are refused\"]");
  service.weighted_waypoints.pop_back();
  make();
  EXPECT_EQ(notes("/services", 0), "[]");
  way.status = state::HealthStatus::kUnhealthy;
  make();
  EXPECT_THAT(notes("/services", 0), HasSubstr("1 unhealthy: connections are refused"));
  service.weighted_waypoints.front().weight = 0;
  make();
  EXPECT_THAT(notes("/services", 0), HasSubstr("its waypoints all have weight 0"));
}

TEST_F(AdminApi, ConfigDumpOfWaypointsCanBeReadAgain) {
  state::Service service = *state_->services().at(0);
  service.waypoint = state::GatewayAddress{state::NetworkAddress{"", test::ip("10.0.0.9")}, 15009};
  service.weighted_waypoints = {{{state::NamespacedHostname{"shop", "way.shop.svc"}, 15008}, 9},
                                {{state::NamespacedHostname{"shop", "new.shop.svc"}, 15010}, 1}};
  service.ingress_use_waypoint = true;
  auto workload = *state_->workloads().at(0);
  workload.application_tunnel = state::ApplicationTunnel{state::ApplicationTunnel::Protocol::kProxy, 15088};
  state_ = state::State::build({{workload}, {service}, {}}).value();
  const json dump = json::parse(ask("GET", "/config_dump").body);
  const json& shown = dump.at("services").at(0);
  EXPECT_EQ(
      shown.at("weightedWaypoints").at(1),
      json::parse(R"({"destination": {"destination": "shop/new.shop.svc", "hboneMtlsPort": 15010}, "weight": 1})"));
  const json file = {{"workloads", dump.at("workloads")}, {"services", dump.at("services")}};
  const auto again = control::parse_local_config("dump", file.dump());
  ASSERT_TRUE(again.has_value()) << again.error().message();
  const state::Service& read = again->services.at(0);
  EXPECT_EQ(read.waypoint, service.waypoint);
  ASSERT_EQ(read.weighted_waypoints.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.weighted_waypoints[i].waypoint, service.weighted_waypoints[i].waypoint);
    EXPECT_EQ(read.weighted_waypoints[i].weight, service.weighted_waypoints[i].weight);
  }
  EXPECT_TRUE(read.ingress_use_waypoint);
  EXPECT_EQ(again->workloads.at(0).application_tunnel, workload.application_tunnel);
  EXPECT_EQ(again->workloads.at(0).waypoint, workload.waypoint);
}

TEST_F(AdminApi, ConfigDumpBeforeTheFirstStateIsEmpty) {
  state_.reset();
  const json dump = json::parse(ask("GET", "/config_dump").body);
  EXPECT_TRUE(dump.at("workloads").empty());
  EXPECT_EQ(dump.at("workloadState").size(), 1U);
}

TEST_F(AdminApi, PodsTellSinceWhenAndHowTheyWereVerified) {
  const json pods = json::parse(ask("GET", "/pods").body);
  const json& web = pods.at(0);
  EXPECT_EQ(web.at("captured"), true);
  EXPECT_NEAR(web.at("ageSeconds").get<double>(), 50 * 3600, 60);
  EXPECT_EQ(web.at("since"), rfc3339(pods_[0].registration.registered_at));
  EXPECT_EQ(web.at("verified").at("by"), "reconciliation");
  EXPECT_NEAR(web.at("verified").at("ageSeconds").get<double>(), 42, 30);
  EXPECT_TRUE(web.at("verified").at("problems").empty());
  EXPECT_EQ(pods.at(1).at("captured"), false);
  EXPECT_FALSE(pods.at(1).contains("since"));
  EXPECT_FALSE(pods.at(1).contains("verified"));
}

TEST_F(AdminApi, ViewsOfTheMeshSayWhatFollows) {
  const json services = json::parse(ask("GET", "/services").body);
  EXPECT_EQ(services.at(0).at("endpointHealth"), json({{"healthy", 1}, {"total", 1}}));
  EXPECT_EQ(services.at(0).at("captured"), true);
  const json policies = json::parse(ask("GET", "/policies").body);
  EXPECT_EQ(policies.at(0).at("workloads"), 1);
  EXPECT_TRUE(policies.at(0).at("notes").empty());

  auto workload = test::hbone_workload("web", {test::ip("10.0.0.5")});
  workload.authorization_policies = {"shop/ghost"};
  workload.status = state::HealthStatus::kUnhealthy;
  workload.services["shop/web.shop.svc"] = {};
  state::Service service = *state_->services().at(0);
  auto policy = agent::test::namespace_policy("empty");
  policy.rules.clear();
  state_ = state::State::build({{workload}, {service}, {policy}}).value();
  EXPECT_EQ(json::parse(ask("GET", "/services").body).at(0).at("endpointHealth").at("healthy"), 0);
  EXPECT_THAT(json::parse(ask("GET", "/workloads").body).at(0).at("notes").dump(), HasSubstr("shop/ghost"));
  const json noted = json::parse(ask("GET", "/policies").body);
  EXPECT_THAT(noted.at(0).at("notes").dump(), HasSubstr("has no rules and never matches"));
  EXPECT_EQ(noted.at(1).at("known"), false);
  EXPECT_EQ(noted.at(1).at("name"), "ghost");
  EXPECT_THAT(noted.at(1).at("notes").dump(), HasSubstr(workload.uid));

  state_.reset();
  for (const char* path : {"/workloads", "/services", "/policies"}) EXPECT_EQ(ask("GET", path).body, "[]\n") << path;
}

TEST_F(AdminApi, CertificatesHaveAState) {
  const WallTime now = Clock::real().wall_now();
  using std::chrono::hours;
  agent::CertManager::Status status;
  status.identity = {"cluster.local", "shop", "web-sa"};
  const auto state_with = [&](WallTime from, WallTime renew, WallTime until) {
    status.valid_from = from;
    status.renew_at = renew;
    status.valid_until = until;
    certificate_status_ = {status};
    return json::parse(ask("GET", "/certificates").body).at(0).at("state").get<std::string>();
  };
  certificate_status_ = {status};
  EXPECT_EQ(json::parse(ask("GET", "/certificates").body).at(0).at("state"), "none");
  EXPECT_EQ(state_with(now - hours(1), now + hours(1), now + hours(2)), "valid");
  EXPECT_EQ(state_with(now - hours(2), now - hours(1), now + hours(1)), "due for renewal");
  EXPECT_EQ(state_with(now - hours(3), now - hours(2), now - hours(1)), "expired");
  EXPECT_EQ(state_with(now + hours(1), now + hours(2), now + hours(3)), "not yet valid");
  status.revoked = "certificate AB was revoked";
  EXPECT_EQ(state_with(now - hours(1), now + hours(1), now + hours(2)), "revoked");
  EXPECT_EQ(json::parse(ask("GET", "/certificates").body).at(0).at("revoked"), "certificate AB was revoked");
  EXPECT_EQ(state_with(now - hours(3), now - hours(2), now - hours(1)), "expired");
}

TEST_F(AdminApi, TheCaAndItsRevocationListsAreTold) {
  const WallTime end(std::chrono::seconds(2'000'000'000));
  ca_.problem = "load the CA from /etc/weft/ca: away";
  ca_.roots = {{.subject = "CN=a", .sha256 = "aa", .not_after = end, .signs = true},
               {.subject = "CN=b", .sha256 = "bb", .not_after = end, .signs = false}};
  ca_.crl = {.file = "/crl.pem", .problem = "", .notes = {"old"}, .lists = {}, .refused = 2};
  ca_.crl.lists = {{.issuer = "CN=a", .this_update = end, .next_update = end, .revoked = 3, .verified = true},
                   {.issuer = "CN=i", .this_update = end, .next_update = {}, .revoked = 1, .verified = false}};
  agent::CertManager::Status status;
  status.identity = {"cluster.local", "shop", "web-sa"};
  status.valid_from = end - std::chrono::hours(1);
  status.valid_until = status.renew_at = end;
  certificate_status_ = {status};

  sources_->egress = {.registry_only = true, .exempt = {Cidr::parse("192.0.2.0/24").value()}};
  const json told = json::parse(ask("GET", "/status").body);
  EXPECT_EQ(told.at("outboundTrafficPolicy"), json({{"mode", "registry-only"}, {"exempt", {"192.0.2.0/24"}}}));
  const json& ca = told.at("ca");
  EXPECT_EQ(told.at("certificateStates"), json({{"not yet valid", 1}}));
  EXPECT_EQ(ca.at("usable"), false);
  EXPECT_EQ(ca.at("problem"), ca_.problem);
  EXPECT_EQ(
      ca.at("roots").at(1),
      json({{"subject", "CN=b"}, {"sha256", "bb"}, {"expirationTime", "2033-05-18T03:33:20Z"}, {"signs", false}}));
  EXPECT_EQ(ca.at("crl").at("usable"), true);
  EXPECT_EQ(ca.at("crl").at("notes"), json({"old"}));
  EXPECT_EQ(ca.at("crl").at("lists").at(0).at("nextUpdate"), "2033-05-18T03:33:20Z");
  EXPECT_FALSE(ca.at("crl").at("lists").at(1).contains("nextUpdate"));

  const auto metrics = metrics_routes(sources_).at({"GET", "/metrics"})({}).body;
  for (const char* line :
       {R"(weft_certificates{state="not yet valid"} 1)", R"(weft_certificates{state="valid"} 0)",
        R"(weft_certificate_expiry_timestamp_seconds{identity="spiffe://cluster.local/ns/shop/sa/web-sa"} 2000000000)",
        R"(weft_certificate_requests_total{result="issued"} 8)",
        R"(weft_certificate_requests_total{result="failed"} 3)", "weft_ca_usable 0",
        R"(weft_root_expiry_timestamp_seconds{sha256="aa",signs="true"} 2000000000)", "weft_crl_usable 1",
        "weft_crl_refused_total 2", R"(weft_crl_revoked_certificates{issuer="CN=a"} 3)",
        R"(weft_crl_next_update_timestamp_seconds{issuer="CN=a"} 2000000000)"}) {
    EXPECT_THAT(metrics, HasSubstr(std::string("\n") + line + "\n"));
  }
  EXPECT_THAT(metrics, Not(HasSubstr(R"(next_update_timestamp_seconds{issuer="CN=i")")));
}

TEST_F(AdminApi, ExplainAnswersOrSaysWhyNot) {
  const auto explain = [this](const char* from, const char* to) {
    return ask("GET", "/explain", true, {{"from", from}, {"to", to}});
  };
  const json said = json::parse(explain("shop/web", "192.0.2.1:80").body);
  EXPECT_EQ(said.at("outcome"), "allowed");
  EXPECT_EQ(said.at("captured"), false);
  EXPECT_EQ(said.at("endpoints").at(0).at("target"), "192.0.2.1:80");
  EXPECT_FALSE(said.at("endpoints").at(0).contains("hbone"));
  captures_all_ = true;
  EXPECT_EQ(json::parse(explain("shop/web", "192.0.2.1:80").body).at("captured"), true);
  EXPECT_EQ(explain("shop/none", "192.0.2.1:80").status, 404);
  EXPECT_EQ(explain("web", "192.0.2.1:80").status, 400);
  EXPECT_EQ(ask("GET", "/explain").status, 400);
  state_.reset();
  EXPECT_EQ(explain("shop/web", "192.0.2.1:80").status, 503);
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

TEST_F(AdminApi, PodsCarryTheirTraffic) {
  const json pods = json::parse(ask("GET", "/pods").body);
  EXPECT_EQ(pods.at(0).at("traffic"), json({{"packetsOut", 3},
                                            {"bytesOut", 300},
                                            {"packetsIn", 2},
                                            {"bytesIn", 130},
                                            {"captured", 9},
                                            {"drops", {{"no plaintext into this pod", 4}}}}));
  EXPECT_FALSE(pods.at(1).contains("traffic"));
}

TEST_F(AdminApi, MetricsCarryTheTrafficOfPodsWithTheirInterfacesAddedUp) {
  pods_.push_back(pods_.front());  // its second interface
  const std::string body = ask("GET", "/metrics").body;
  EXPECT_THAT(
      body,
      AllOf(HasSubstr(R"(weft_pod_packets_total{namespace="shop",pod="web",direction="out"} 6)"),
            HasSubstr(R"(weft_pod_packets_total{namespace="shop",pod="web",direction="in"} 4)"),
            HasSubstr(R"(weft_pod_bytes_total{namespace="shop",pod="web",direction="out"} 600)"),
            HasSubstr(R"(weft_pod_bytes_total{namespace="shop",pod="web",direction="in"} 260)"),
            HasSubstr(R"(weft_pod_drops_total{namespace="shop",pod="web",reason="no plaintext into this pod"} 8)")));
  EXPECT_THAT(body, Not(HasSubstr(R"(pod="plain")")));
}

TEST_F(AdminApi, EventsAsJson) {
  agent::EventQuery asked;
  events_ = [&](const agent::EventQuery& query) {
    asked = query;
    auto unknown = test::refused_event(9);
    unknown.pod.clear();
    unknown.event.protocol = 17;
    unknown.event.source.port = unknown.event.destination.port = 0;
    unknown.event.source.address = {};
    return agent::EventAnswer{.next = 9, .lost = 3, .events = {test::refused_event(5), unknown}};
  };
  const json answer = json::parse(ask("GET", "/events", true, {{"after", "4"}, {"wait_ms", "999999"}}).body);
  EXPECT_EQ(asked.after, 4U);
  EXPECT_EQ(asked.wait, agent::EventLog::kMaxWait);
  EXPECT_EQ(answer.at("next"), 9);
  EXPECT_EQ(answer.at("lost"), 3);
  EXPECT_EQ(answer.at("events").at(0), json({{"sequence", 5},
                                             {"time", "2023-11-14T22:13:20.001500Z"},
                                             {"pod", "shop/web"},
                                             {"program", "to_pod"},
                                             {"verdict", "drop"},
                                             {"reason", "no plaintext into this pod"},
                                             {"source", "10.0.9.9:40000"},
                                             {"destination", "10.0.0.5:8080"},
                                             {"protocol", "TCP"},
                                             {"tcpFlags", "SYN"}}));
  const json& unknown = answer.at("events").at(1);
  EXPECT_EQ(unknown.at("source"), "");
  EXPECT_EQ(unknown.at("destination"), "10.0.0.5");
  EXPECT_EQ(unknown.at("protocol"), "UDP");
  ask("GET", "/events");
  EXPECT_EQ(asked.after, std::nullopt);
  EXPECT_EQ(asked.wait, milliseconds(0));
}

TEST_F(AdminApi, EventsThatCannotBeGiven) {
  EXPECT_EQ(ask("GET", "/events", false).status, 403);
  EXPECT_EQ(ask("GET", "/events", true, {{"after", "-1"}}).status, 400);
  EXPECT_EQ(ask("GET", "/events", true, {{"wait_ms", "soon"}}).status, 400);
  events_ = [](const agent::EventQuery&) -> Result<agent::EventAnswer> { return fail(ErrorCode::kDenied, "4 others"); };
  EXPECT_EQ(ask("GET", "/events").status, 429);
  EXPECT_EQ(ask("GET", "/events").body, "4 others\n");
  events_ = [](const agent::EventQuery&) -> Result<agent::EventAnswer> {
    return fail(ErrorCode::kUnavailable, "it stops");
  };
  EXPECT_EQ(ask("GET", "/events").status, 503);
  events_ = [](const agent::EventQuery&) -> Result<agent::EventAnswer> { return fail(ErrorCode::kInternal, "broken"); };
  EXPECT_EQ(ask("GET", "/events").status, 500);
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

/// Answers one request in no other way than `then` does.
class SilentServer {
 public:
  explicit SilentServer(std::function<void()> then) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(socket_.get(), 1), 0);
    EXPECT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    address_ = Endpoint{IpAddress::parse("127.0.0.1").value(), ntohs(address.sin_port)};
    thread_ = std::jthread([this, then = std::move(then)] {
      const Fd connection(::accept(socket_.get(), nullptr, nullptr));
      std::array<char, 1024> request;
      EXPECT_GT(::recv(connection.get(), request.data(), request.size(), 0), 0);
      then();
    });
  }
  [[nodiscard]] const Endpoint& address() const { return address_; }

 private:
  Fd socket_;
  Endpoint address_;
  std::jthread thread_;
};

TEST(HttpRequest, TellsAnAgentThatEndsFromOneThatIsSlow) {
  const SilentServer ends([] {});
  auto cut = http_request(ends.address(), "GET", "/pods", 60'000);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(cut.error().message(), HasSubstr("is weft-agent running"));

  std::promise<void> asked;
  const SilentServer waits([&asked] { asked.get_future().wait(); });
  auto late = http_request(waits.address(), "GET", "/pods", 50);
  asked.set_value();
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(late.error().message(), HasSubstr("the agent did not answer in time"));
}

TEST(CertificateDump, WritesTimesAsRfc3339) {
  EXPECT_EQ(rfc3339(WallTime(std::chrono::seconds(1'700'000'000))), "2023-11-14T22:13:20Z");
  EXPECT_TRUE(certificates_in("no certificate").empty());
}

}  // namespace
}  // namespace weft::admin
