// SPDX-License-Identifier: Apache-2.0
/// Services behind a waypoint that istiod configures, which is upstream Envoy: what the objects of the Gateway API and
/// of Istio say is what clients get that know nothing of it all.
#include "test/istio/envoy_fixture.h"
#include "test/netns/steady_load.h"
#include "test/netns/waypoint_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr milliseconds kSoon{10'000};
constexpr const char* kUseWaypoint = "istio.io/use-waypoint";

/// The services shop/web and shop/api, both over two pods of version 1 and one of version 2, behind the waypoint
/// shop/waypoint; clients on the other node than the waypoint.
class IstioWaypoint : public IstioEnvoyTest {
 protected:
  static void SetUpTestSuite() {
    if (!make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    client = &made.add_pod(1, "shop", "client");
    other = &made.add_pod(1, "shop", "other");
    v1a = add_web(1, "web-v1a", "v1");
    v1b = add_web(2, "web-v1b", "v1");
    v2 = add_web(2, "web-v2", "v2");
    waypoint = add_istio_waypoint(made, 2, "shop", "waypoint");
    std::tie(web_v4, web_v6) = made.add_service("shop", "web", "web", {v1a, v1b, v2}, {}, {{kUseWaypoint, "waypoint"}});
    std::tie(api_v4, api_v6) = made.add_service("shop", "api", "web", {v1a, v1b, v2}, {}, {{kUseWaypoint, "waypoint"}});
    // The backends of a route.
    add_version("v1", {v1a, v1b});
    add_version("v2", {v2});
    made.wait_for_protocol({client, other, v1a, v1b, v2});
    wait_for_waypoint("web", true);
    wait_for_waypoint("api", true);
  }
  static void TearDownTestSuite() {
    waypoint.envoy.reset();
    IstioEnvoyTest::TearDownTestSuite();
  }
  void SetUp() override {
    IstioEnvoyTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_NE(waypoint.envoy, nullptr) << "the waypoint could not be made";
  }
  void TearDown() override {
    tell_of(waypoint.envoy.get());
    IstioEnvoyTest::TearDown();
  }

  static Pod* add_web(int node, const char* name, const char* version) {
    return &cluster().add_pod(node, "shop", name,
                              {.service_account = "web", .labels = {{"app", "web"}, {"version", version}}});
  }
  static void add_version(const std::string& version, const std::vector<const Pod*>& pods) {
    cluster().add_service("shop", "web-" + version, "web", pods);
    cluster().patch("/api/v1/namespaces/shop/services/web-" + version,
                    {{"spec", {{"selector", {{"app", "web"}, {"version", version}}}}}});
  }
  static Endpoint web(bool v6 = false) { return {v6 ? web_v6 : web_v4, 80}; }
  static Endpoint api(bool v6 = false) { return {v6 ? api_v6 : api_v4, 80}; }

  static void label(const std::string& service, bool there) {
    cluster().patch("/api/v1/namespaces/shop/services/" + service,
                    {{"metadata", {{"labels", {{kUseWaypoint, there ? json("waypoint") : json(nullptr)}}}}}});
  }
  static void set_waypoint(const std::string& service, bool there) {
    label(service, there);
    wait_for_waypoint(service, there);
  }
  /// What Envoy has for the service.
  static std::string behind_it(const std::string& service) {
    return "inbound-vip|80|http|" + service + ".shop.svc.cluster.local";
  }
  /// Until agents and Envoy have it that the service is behind the waypoint, or is not.
  static void wait_for_waypoint(const std::string& service, bool there) {
    wait_for_agents(service, there);
    waypoint.envoy->wait_for_configuration(behind_it(service), there);
  }
  static void wait_for_agents(const std::string& service, bool there) {
    const std::string hostname = service + ".shop.svc.cluster.local";
    cluster().wait_for_dump(hostname + (there ? " behind the waypoint" : " without a waypoint"), [&](const json& dump) {
      return std::ranges::any_of(dump.at("services"), [&](const json& one) {
        return one.at("hostname") == hostname && (one.contains("waypoint") && !one.at("waypoint").is_null()) == there;
      });
    });
  }
  static bool goes_by_waypoint(const Endpoint& to) {
    const auto seen = Endpoint::parse(field(get_from(*client, to).out, "client"));
    return seen && (seen->address == waypoint.pod->address_v4() || seen->address == waypoint.pod->address_v6());
  }

  /// Two canaries of 1000 connections, one by each family.
  static void expect_canary(const Endpoint& v4, const Endpoint& v6, const std::string& marker) {
    for (const Endpoint& to : {v4, v6}) {
      const Capture wire(node(1).netns(), Node::kWire, 4096);
      const Finished done = get_from(*client, to, {"--count", "1000", "--marker", marker});
      ASSERT_TRUE(done.ok()) << done.err
                             << done.out.substr(done.out.size() - std::min<std::size_t>(done.out.size(), 400));
      const std::size_t first = count_lines(done.out, "server=web-v1"), second = count_lines(done.out, "server=web-v2");
      std::printf("  %s: version 1: %zu, version 2: %zu of 1000\n", to.to_string().c_str(), first, second);
      EXPECT_EQ(first + second, 1000U);
      // Four standard deviations of a binomial distribution: one run in 16,000 is further off.
      EXPECT_NEAR(static_cast<double>(first), 900, 38);
      EXPECT_GT(count_lines(done.out, "server=web-v1a"), 0U);
      EXPECT_GT(count_lines(done.out, "server=web-v1b"), 0U);
      EXPECT_EQ(count_lines(done.out, "client=" + waypoint.pod->address_v4().to_string() + ":") +
                    count_lines(done.out, "client=[" + waypoint.pod->address_v6().to_string() + "]:"),
                1000U)
          << "past the waypoint";
      EXPECT_FALSE(wire.contains(marker)) << "in the clear on the wire";
    }
  }
  static void expect_even(const Endpoint& to) {
    const Finished done = get_from(*client, to, {"--count", "300"});
    EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
    // A third each: four standard deviations.
    EXPECT_NEAR(static_cast<double>(count_lines(done.out, "server=web-v2")), 100, 33);
  }
  static std::string answer_to(const Pod& from, const std::string& path) {
    return get_from(from, web(), {"--marker", path}).out;
  }
  static bool answered(const Pod& from, const std::string& path) {
    return answer_to(from, path).find("server=web-") != std::string::npos;
  }
  static bool forbidden(const Pod& from, const std::string& path) {
    return answer_to(from, path).find("answer: HTTP/1.1 403") != std::string::npos;
  }

  static Pod *client, *other, *v1a, *v1b, *v2;
  static WaypointPod waypoint;
  static IpAddress web_v4, web_v6, api_v4, api_v6;
};

Pod *IstioWaypoint::client, *IstioWaypoint::other, *IstioWaypoint::v1a, *IstioWaypoint::v1b, *IstioWaypoint::v2;
WaypointPod IstioWaypoint::waypoint;
IpAddress IstioWaypoint::web_v4, IstioWaypoint::web_v6, IstioWaypoint::api_v4, IstioWaypoint::api_v6;

constexpr const char* kRoute = R"(apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  namespace: shop
spec:
  parentRefs:
  - group: ""
    kind: Service
    name: web
    port: 80
  rules:
  - backendRefs:
    - name: web-v1
      port: 80
      weight: 90
    - name: web-v2
      port: 80
      weight: 10
)";

constexpr const char* kSubsets = R"(apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: api
  namespace: shop
spec:
  host: api.shop.svc.cluster.local
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: api
  namespace: shop
spec:
  hosts:
  - api.shop.svc.cluster.local
  http:
  - route:
    - destination:
        host: api.shop.svc.cluster.local
        subset: v1
      weight: 90
    - destination:
        host: api.shop.svc.cluster.local
        subset: v2
      weight: 10
)";

constexpr const char* kByPathAndIdentity = R"(apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: web
  namespace: shop
spec:
  targetRefs:
  - group: ""
    kind: Service
    name: web
  action: ALLOW
  rules:
  - to:
    - operation:
        paths: ["/public*"]
  - from:
    - source:
        principals: [cluster.local/ns/shop/sa/client]
    to:
    - operation:
        methods: [GET]
        paths: ["/reports*"]
)";

constexpr const char* kWaypointAlone = R"(apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: waypoint-alone
  namespace: shop
spec:
  selector:
    matchLabels:
      app: web
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/shop/sa/waypoint]
)";

TEST_F(IstioWaypoint, CanaryOf90To10ByHttpRoute) {
  expect_even(web());
  cluster().apply(kRoute);
  waypoint.envoy->wait_for_configuration("\"weight\":90");
  expect_canary(web(), web(true), "by-route");
  cluster().remove(kRoute);
  waypoint.envoy->wait_for_configuration("\"weight\":90", false);
  expect_even(web());
}

TEST_F(IstioWaypoint, CanaryOf90To10BySubsets) {
  expect_even(api());
  cluster().apply(kSubsets);
  waypoint.envoy->wait_for_configuration("\"weight\":90");
  expect_canary(api(), api(true), "by-subset");
  cluster().remove(kSubsets);
  waypoint.envoy->wait_for_configuration("\"weight\":90", false);
  expect_even(api());
}

TEST_F(IstioWaypoint, AllowsByPathAndByTheIdentityOfTheCaller) {
  for (const Pod* from : {client, other}) EXPECT_TRUE(answered(*from, "anything"));
  cluster().apply(kByPathAndIdentity);
  EXPECT_TRUE(eventually(kSoon, [] { return forbidden(*other, "reports/1"); }));
  EXPECT_TRUE(answered(*client, "reports/1"));
  EXPECT_TRUE(answered(*client, "public/1"));
  EXPECT_TRUE(answered(*other, "public/1"));
  EXPECT_TRUE(forbidden(*client, "anything"));
  EXPECT_TRUE(forbidden(*other, "anything"));
  cluster().remove(kByPathAndIdentity);
  EXPECT_TRUE(eventually(kSoon, [] { return answered(*other, "reports/1"); }));
}

TEST_F(IstioWaypoint, NobodyPassesByWhereItAloneIsAllowed) {
  for (const bool v6 : {false, true}) EXPECT_TRUE(client->get(v6 ? v2->v6() : v2->v4()).ok());
  cluster().apply(kWaypointAlone);
  EXPECT_TRUE(eventually(kSoon, [] { return !client->get(v2->v4()).ok(); }));
  for (const bool v6 : {false, true}) {
    for (const Pod* pod : {v1a, v1b, v2}) EXPECT_FALSE(client->get(v6 ? pod->v6() : pod->v4()).ok()) << pod->name();
    EXPECT_TRUE(get_from(*client, web(v6), {"--count", "20"}).ok());
  }
  cluster().remove(kWaypointAlone);
  EXPECT_TRUE(eventually(kSoon, [] { return client->get(v2->v4()).ok(); }));
}

TEST_F(IstioWaypoint, AnswersArriveWholeAndEndAsTheirServerEndsThem) {
  for (const bool v6 : {false, true}) {
    const Finished done = get_from(*client, web(v6), {"--count", "20", "--marker", "long?bytes=2000000", "--to-end"});
    EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  }
}

TEST_F(IstioWaypoint, ServesAServiceOfAnotherNamespaceThatNamesIt) {
  cluster().add_namespace("bank", {{"istio.io/dataplane-mode", "ambient"}});
  Pod& till = cluster().add_pod(2, "bank", "till", {.labels = {{"app", "till"}}});
  cluster().wait_for_protocol({&till});
  const auto [v4, v6] = cluster().add_service(
      "bank", "till", "till", {&till}, {}, {{kUseWaypoint, "waypoint"}, {"istio.io/use-waypoint-namespace", "shop"}});
  waypoint.envoy->wait_for_configuration("inbound-vip|80|http|till.bank.svc.cluster.local");
  for (const Endpoint& to : {Endpoint{v4, 80}, Endpoint{v6, 80}}) {
    EXPECT_TRUE(eventually(kSoon, [&] { return goes_by_waypoint(to); })) << get_from(*client, to).out;
    EXPECT_EQ(count_lines(get_from(*client, to, {"--count", "20"}).out, "server=till"), 20U);
  }
  cluster().remove("apiVersion: v1\nkind: Service\nmetadata:\n  name: till\n  namespace: bank\n");
  cluster().remove_pod(till);
}

TEST_F(IstioWaypoint, ACanaryOfTheWaypointGetsItsShare) {
  WaypointPod canary = add_istio_waypoint(cluster(), 1, "shop", "canary");
  const auto set_share = [](const json& label, const json& weight) {
    cluster().patch("/api/v1/namespaces/shop/services/web",
                    {{"metadata",
                      {{"labels", {{"istio.io/use-waypoint-canary", label}}},
                       {"annotations", {{"istio.io/use-waypoint-canary-weight", weight}}}}}});
    cluster().wait_for_dump("shares of waypoints", [&](const json& dump) {
      return std::ranges::any_of(dump.at("services"), [&](const json& one) {
        const auto shares = one.value("weightedWaypoints", json::array());
        return one.at("hostname") == "web.shop.svc.cluster.local" && shares.empty() == label.is_null();
      });
    });
  };
  set_share("canary", "30");
  canary.envoy->wait_for_configuration(behind_it("web"));
  for (const bool v6 : {false, true}) {
    const Finished done = get_from(*client, web(v6), {"--count", "1000"});
    ASSERT_TRUE(done.ok()) << done.err;
    const auto by = [&](const WaypointPod& one) {
      return count_lines(done.out, "client=" + one.pod->address_v4().to_string() + ":") +
             count_lines(done.out, "client=[" + one.pod->address_v6().to_string() + "]:");
    };
    std::printf("  %zu of 1000 by the canary\n", by(canary));
    EXPECT_EQ(by(canary) + by(waypoint), 1000U);
    // Four standard deviations.
    EXPECT_NEAR(static_cast<double>(by(canary)), 300, 58);
  }
  set_share(nullptr, nullptr);
  EXPECT_TRUE(goes_by_waypoint(web()));
  canary.envoy.reset();
  cluster().remove_pod(*canary.pod);
}

/// Requests by each family, on a connection each from one client and on one connection from the other.
class WaypointLoad {
 public:
  explicit WaypointLoad(const std::vector<Endpoint>& to, const Pod& each, const Pod& kept) {
    for (const Endpoint& endpoint : to) {
      each_.request(each, endpoint, false);
      kept_.request(kept, endpoint, true);
    }
  }
  void expect_all_go_on(const std::string& when) {
    each_.expect_all_go_on(when);
    kept_.expect_all_go_on(when);
  }
  void end_connections() { kept_.stop(); }
  [[nodiscard]] std::size_t answered() const { return each_.answered() + kept_.answered(); }

 private:
  SteadyLoad each_, kept_;
};

TEST_F(IstioWaypoint, ComesUnderLoadWithoutAFailedRequest) {
  for (int round = 0; round < 3; ++round) {
    set_waypoint("web", false);
    WaypointLoad load({web(), web(true)}, *client, *other);
    load.expect_all_go_on("without a waypoint");
    // Envoy may have the routes of a service before its clusters are ready, and answers 503 then: it hears of it first.
    {
      const HeldBack agents(cluster(), {&node(1).netns(), &node(2).netns()});
      label("web", true);
      waypoint.envoy->wait_for_configuration(behind_it("web"));
      load.expect_all_go_on("Envoy knows");
    }
    wait_for_waypoint("web", true);
    load.expect_all_go_on("with a waypoint");
    EXPECT_TRUE(goes_by_waypoint(web()));
    std::printf("  %zu requests were answered\n", load.answered());
  }
}

TEST_F(IstioWaypoint, IsAskedAgainWhereTheAgentsHearOfItFirst) {
  int answered_503 = 0;
  for (int round = 0; round < 5; ++round) {
    set_waypoint("web", false);
    std::vector<Process> loads;
    for (const bool v6 : {false, true}) {
      loads.push_back(client->start({program("weft-testapp"), "get", web(v6).to_string(), "--count", "100000000"}));
      ASSERT_TRUE(loads.back().wait_for_output("server=", kSoon));
    }
    set_waypoint("web", true);
    for (auto& load : loads) {
      const std::string by = "client=" + waypoint.pod->address_v4().to_string();
      const std::string by_v6 = "client=[" + waypoint.pod->address_v6().to_string();
      (void)eventually(kSoon, [&] {
        return !load.running() || load.out().find(by) != std::string::npos ||
               load.out().find(by_v6) != std::string::npos;
      });
      if (load.running()) continue;
      // What Envoy answers is its own; no connection broke.
      EXPECT_THAT(load.out(), HasSubstr("answer: HTTP/1.1 503"));
      ++answered_503;
    }
  }
  std::printf("  Envoy answered 503 to %d of 10 clients\n", answered_503);
}

TEST_F(IstioWaypoint, GoesUnderLoadWithoutAFailedRequest) {
  for (int round = 0; round < 5; ++round) {
    WaypointLoad load({web(), web(true)}, *client, *other);
    load.expect_all_go_on("with a waypoint");
    // istiod takes routes and clusters from Envoy at the moment when it tells the agents, and requests that are on
    // their way or come on connections by the waypoint are answered 503 then. Without its word Envoy goes on as before.
    {
      const HeldBack envoy(cluster(), {&waypoint.pod->netns()});
      label("web", false);
      wait_for_agents("web", false);
      load.expect_all_go_on("it has gone");
      EXPECT_FALSE(goes_by_waypoint(web()));
      load.end_connections();
    }
    wait_for_waypoint("web", false);
    load.expect_all_go_on("Envoy knows");
    std::printf("  %zu requests were answered\n", load.answered());
    set_waypoint("web", true);
  }
}

}  // namespace
}  // namespace weft::test
