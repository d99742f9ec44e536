// SPDX-License-Identifier: Apache-2.0
/// What Istio's own tests of ambient assert of a node data plane at L4, one row a case, IPv4 and IPv6. Rows that need
/// more than pods are suites of their own: Waypoint, WaypointChange and Sandwich (with an Envoy), Dns
/// (AServiceEntrysAutomaticVip), Handover, Flip, Certificates and Revocations. Those that need a control plane are the
/// label istio: IstioPolicy, IstioServices, IstioWaypoint, IstioSidecar, IstioMigration, IstioLife (enrolment by
/// label).

#include <sys/socket.h>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr milliseconds kSoon{5000};

/// The pods of MeshTest, a mesh pod that serves on loopback only, and a server on each node's own address.
class Behaviour : public MeshTest {
 protected:
  static void SetUpTestSuite() {
    MeshTest::SetUpTestSuite();
    if (!mesh_) return;
    for (int index : {1, 2}) {
      Node& node = mesh_->node(index);
      node_servers_.push_back(std::make_unique<Process>(
          Process::start({program("weft-testapp"), "serve", "--name", node.name(), "--port", "8088"},
                         {.netns = &node.netns(), .environment = {}, .input = {}})));
      if (!node_servers_.back()->wait_for_output("serving", kSoon)) throw TestError("a node's server does not serve");
    }
  }
  static void TearDownTestSuite() {
    node_servers_.clear();
    MeshTest::TearDownTestSuite();
  }
  void TearDown() override {
    if (mesh_) mesh().set_policies({});
    MeshTest::TearDown();
  }

  static const IpAddress& address(const Pod& pod, bool v6) { return v6 ? pod.address_v6() : pod.address_v4(); }
  static Endpoint at(const Pod& pod, bool v6, std::uint16_t port = Pod::kPort) { return {address(pod, v6), port}; }
  static Endpoint at(const Node& node, bool v6, std::uint16_t port) {
    return {v6 ? node.address_v6() : node.address_v4(), port};
  }
  /// Connects and asks; refused in whatever way is not ok.
  static Finished ask(const Pod& from, const Endpoint& to) {
    return from.get(to, {"--timeout", "3", "--connect-timeout", "2"});
  }
  /// What the connection was, by the agents' own records: "outbound" for a tunnel, and so on.
  static std::size_t tunnelled(std::size_t offset, const Pod& from) {
    return log_lines(from.node().log(), offset, {"direction=outbound", "dst.hbone_addr="}).size();
  }
  static json policy(const std::string& namespace_name, const std::string& name, const char* scope, const char* action,
                     const json& rules) {
    return {{"name", name}, {"namespace", namespace_name}, {"scope", scope}, {"action", action}, {"rules", rules}};
  }
  /// What istiod makes of PeerAuthentication STRICT.
  static json strict(const std::string& namespace_name, const char* scope = "Namespace") {
    return policy(namespace_name, "strict", scope, "Deny", json::array({json::array({json::array({plaintext()})})}));
  }
  static json match(const json& values) { return json::array({json::array({json::array({values})})}); }

  static std::vector<std::unique_ptr<Process>> node_servers_;
};

std::vector<std::unique_ptr<Process>> Behaviour::node_servers_;

// ---- reachability

TEST_F(Behaviour, EveryClientReachesEveryServerAndTheServerSeesWho) {
  for (const bool v6 : {false, true}) {
    for (const Pod* from : {client, web1, db, outside}) {
      for (const Pod* to : {client, web1, web2, db, outside}) {
        if (from == to) continue;
        EXPECT_THAT(ask(*from, at(*to, v6)), IsAnswer(to->name(), address(*from, v6)))
            << from->name() << " to " << to->name() << (v6 ? ", IPv6" : ", IPv4");
      }
    }
  }
}

TEST_F(Behaviour, MeshToMeshIsEncryptedAndTheRestIsNot) {
  const Capture wire(node1().netns(), Node::kWire);
  for (const bool v6 : {false, true}) {
    ASSERT_TRUE(client->get(at(*db, v6), {"--marker", "hidden"}).ok());
    ASSERT_TRUE(client->get(at(*outside, v6), {"--marker", "shown-to-outside"}).ok());
    ASSERT_TRUE(outside->get(at(*client, v6), {"--marker", "shown-from-outside"}).ok());
  }
  EXPECT_FALSE(wire.contains("hidden"));
  EXPECT_TRUE(wire.contains("shown-to-outside"));
  EXPECT_TRUE(wire.contains("shown-from-outside"));
}

TEST_F(Behaviour, AnyPortOfAPodIsReached) {
  for (const std::uint16_t port : {std::uint16_t{80}, std::uint16_t{8443}, std::uint16_t{55'000}}) {
    Process& server = db->serve(port);
    for (const bool v6 : {false, true}) {
      EXPECT_THAT(ask(*client, at(*db, v6, port)), IsAnswer("db", address(*client, v6))) << port;
    }
    server.kill();
  }
}

TEST_F(Behaviour, APodReachesItselfByItsAddressWithoutTheMesh) {
  const std::size_t offset = node1().log().size();
  for (const bool v6 : {false, true}) expect_untouched(ask(*client, at(*client, v6)), "client");
  EXPECT_EQ(tunnelled(offset, *client), 0U);
}

TEST_F(Behaviour, APodReachesItselfThroughItsService) {
  const auto [v4, v6] = mesh().add_service("shop", "self", 80, Pod::kPort, {client});
  for (const auto& vip : {v4, v6}) EXPECT_TRUE(ask(*client, {vip, 80}).ok());
}

TEST_F(Behaviour, WhatListensOnLoopbackOnlyIsUnreachable) {
  const Process hidden =
      db->start({program("weft-testapp"), "serve", "--name", "hidden", "--port", "8099", "--address", "127.0.0.1"});
  ASSERT_TRUE(eventually(kSoon, [&] {
    return run_in(db->netns(), [] {
      const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const auto to = Endpoint{*IpAddress::parse("127.0.0.1"), 8099}.to_sockaddr();
      return ::connect(fd.get(), to.get(), to.length) == 0;
    });
  }));
  for (const Pod* from : {client, web2, outside}) {
    for (const bool v6 : {false, true}) EXPECT_FALSE(ask(*from, at(*db, v6, 8099)).ok()) << from->name();
  }
}

TEST_F(Behaviour, TheNodeAndItsPodsReachEachOther) {
  for (const bool v6 : {false, true}) {
    for (Node* node : {&node1(), &node2()}) {
      EXPECT_TRUE(get_from_node(*node, at(*db, v6)).ok()) << node->name();
      EXPECT_TRUE(get_from_node(*node, at(*client, v6)).ok()) << node->name();
      // As the API server does: it sees the pod itself.
      EXPECT_THAT(ask(*client, at(*node, v6, 8088)), IsAnswer(node->name(), address(*client, v6)));
      EXPECT_THAT(ask(*db, at(*node, v6, 8088)), IsAnswer(node->name(), address(*db, v6)));
    }
  }
}

TEST_F(Behaviour, WhatTheMeshDoesNotKnowIsReachedUntouched) {
  const std::size_t offset = node1().log().size();
  for (const bool v6 : {false, true}) expect_untouched(ask(*client, at(node2(), v6, 8088)), "node2");
  EXPECT_TRUE(log_lines(node1().log(), offset, {"connection complete"}).empty()) << "the agent was woken";
}

TEST_F(Behaviour, AServiceIsReachedByItsAddressesAndBalanced) {
  const auto [v4, v6] = mesh().add_service("shop", "two", 80, Pod::kPort, {web1, db});
  for (const auto& vip : {v4, v6}) {
    const std::string answers = client->get({vip, 80}, {"--count", "24"}).out;
    EXPECT_THAT(answers, HasSubstr("server=web1"));
    EXPECT_THAT(answers, HasSubstr("server=db"));
  }
}

// ---- HBONE hygiene

TEST_F(Behaviour, AnUnknownPortOfAServiceIsRefused) {
  const auto [v4, v6] = mesh().add_service("shop", "one", 80, Pod::kPort, {db});
  const std::size_t offset = node1().log().size();
  for (const auto& vip : {v4, v6}) EXPECT_FALSE(ask(*client, {vip, 81}).ok());
  EXPECT_EQ(log_lines(node1().log(), offset, {"has no port 81"}).size(), 2U);
}

TEST_F(Behaviour, AServiceAndAPodThatServeNothingRefuse) {
  const auto [v4, v6] = mesh().add_service("shop", "nobody", 80, Pod::kPort, {}, {{"hostname", "nobody.example.com"}});
  for (const auto& vip : {v4, v6}) EXPECT_FALSE(ask(*client, {vip, 80}).ok());
  for (const bool six : {false, true}) {
    const auto started = std::chrono::steady_clock::now();
    EXPECT_FALSE(ask(*client, at(*db, six, 4)).ok());
    EXPECT_LT(std::chrono::steady_clock::now() - started, milliseconds(2000)) << "a refusal, not a silence";
  }
}

TEST_F(Behaviour, TheProxysOwnPortsAreRefused) {
  for (const bool v6 : {false, true}) {
    for (const std::uint16_t port : {std::uint16_t{15'001}, std::uint16_t{15'006}, std::uint16_t{15'008},
                                     std::uint16_t{15'000}, std::uint16_t{15'020}, std::uint16_t{15'021}}) {
      EXPECT_FALSE(ask(*client, at(*db, v6, port)).ok()) << port;
      EXPECT_FALSE(ask(*client, at(*client, v6, port)).ok()) << port;
      EXPECT_FALSE(ask(*outside, at(*db, v6, port)).ok()) << port;
    }
  }
}

TEST_F(Behaviour, LoopbackStaysInThePod) {
  for (const char* address : {"127.0.0.1:8080", "[::1]:8080"}) {
    const Finished answer = ask(*client, *Endpoint::parse(address));
    EXPECT_EQ(field(answer.out, "server"), "client") << address;
  }
  for (const char* address : {"127.0.0.1:15001", "127.0.0.1:15008", "[::1]:15006"}) {
    EXPECT_FALSE(ask(*client, *Endpoint::parse(address)).ok()) << address;
  }
}

// ---- L4 policy

TEST_F(Behaviour, PermissiveTakesBoth) {
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(ask(*client, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*outside, at(*db, v6)).ok());
  }
}

TEST_F(Behaviour, StrictTakesTheMeshOnly) {
  mesh().set_policy(strict("bank"));
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(ask(*client, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*outside, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*outside, at(*web2, v6)).ok()) << "another namespace";
    EXPECT_TRUE(get_from_node(node2(), at(*db, v6)).ok()) << "the node's probes";
  }
}

TEST_F(Behaviour, StrictForTheWholeMeshAndForOneWorkload) {
  mesh().set_policy(strict("istio-system", "Global"));
  for (const bool v6 : {false, true}) {
    for (const Pod* to : {db, web2}) {
      EXPECT_TRUE(ask(*client, at(*to, v6)).ok());
      EXPECT_FALSE(ask(*outside, at(*to, v6)).ok());
    }
  }
  mesh().set_policies({strict("bank", "WorkloadSelector")});
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(ask(*outside, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*outside, at(*web2, v6)).ok());
  }
}

TEST_F(Behaviour, StrictWithAPortException) {
  json without_identity = plaintext();
  without_identity["notDestinationPorts"] = {Pod::kPort};
  mesh().set_policy(policy("bank", "strict-but", "Namespace", "Deny", match(without_identity)));
  Process& other = db->serve(8081);
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(ask(*outside, at(*db, v6)).ok()) << "the exception";
    EXPECT_FALSE(ask(*outside, at(*db, v6, 8081)).ok());
    EXPECT_TRUE(ask(*client, at(*db, v6, 8081)).ok());
  }
  other.kill();
}

TEST_F(Behaviour, AllowByPrincipal) {
  mesh().set_policy(policy("bank", "only-client", "Namespace", "Allow", match(principal(*client))));
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(ask(*client, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*web1, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*outside, at(*db, v6)).ok());
  }
}

TEST_F(Behaviour, DenyByPrincipalAndNamespace) {
  mesh().set_policy(deny_policy("bank", "not-web1", principal(*web1)));
  for (const bool v6 : {false, true}) {
    EXPECT_TRUE(ask(*client, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*web1, at(*db, v6)).ok());
  }
  mesh().set_policies({deny_policy("bank", "not-shop", {{"namespaces", json::array({{{"Exact", "shop"}}})}})});
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(ask(*client, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*outside, at(*db, v6)).ok()) << "without an identity it is of no namespace";
  }
}

TEST_F(Behaviour, DenyByAddressAndPort) {
  mesh().set_policy(deny_policy(
      "bank", "not-these",
      {{"sourceIps", {client->address_v4().to_string() + "/32", client->address_v6().to_string() + "/128"}}}));
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(ask(*client, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*web1, at(*db, v6)).ok());
    EXPECT_TRUE(ask(*outside, at(*db, v6)).ok());
  }
  mesh().set_policies({deny_policy("bank", "not-there", {{"destinationPorts", {Pod::kPort}}})});
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(ask(*client, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*outside, at(*db, v6)).ok());
  }
}

TEST_F(Behaviour, AllowNothing) {
  mesh().set_policy(policy("bank", "nothing", "Namespace", "Allow", json::array()));
  for (const bool v6 : {false, true}) {
    EXPECT_FALSE(ask(*client, at(*db, v6)).ok());
    EXPECT_FALSE(ask(*outside, at(*db, v6)).ok());
    EXPECT_TRUE(get_from_node(node2(), at(*db, v6)).ok()) << "the node's probes";
  }
}

TEST_F(Behaviour, DenyGoesBeforeAllow) {
  mesh().set_policies({policy("bank", "allow", "Namespace", "Allow", match(principal(*client))),
                       deny_policy("bank", "deny", principal(*client))});
  for (const bool v6 : {false, true}) EXPECT_FALSE(ask(*client, at(*db, v6)).ok());
}

// ---- ServiceEntry

TEST_F(Behaviour, AServiceEntryWithEndpointsIsReachedByItsAddress) {
  const auto [v4, v6] = mesh().add_service("shop", "entry", 80, Pod::kPort, {db}, {{"hostname", "api.example.com"}});
  for (const auto& vip : {v4, v6}) {
    EXPECT_THAT(ask(*client, {vip, 80}), IsAnswer("db", vip.is_v4() ? client->address_v4() : client->address_v6()));
  }
}

TEST_F(Behaviour, AServiceOfOneNamespaceIsNotSeenFromAnother) {
  const auto [v4, v6] = mesh().add_service("bank", "private", 80, Pod::kPort, {db},
                                           {{"hostname", "private.example.com"}, {"visibility", "Namespace"}});
  for (const auto& vip : {v4, v6}) {
    EXPECT_FALSE(ask(*client, {vip, 80}).ok());
    EXPECT_TRUE(ask(*db, {vip, 80}).ok()) << "from its own";
  }
}

TEST_F(Behaviour, TrafficFollowsItsEndpointsWhenTheyGo) {
  PodOptions options;
  options.service_account = "going";
  Pod& going = mesh().add_pod(2, "shop", "going", options);
  going.serve();
  const auto [v4, v6] =
      mesh().add_service("shop", "goes", 80, Pod::kPort, {&going}, {{"hostname", "goes.example.com"}});
  for (const auto& vip : {v4, v6}) EXPECT_TRUE(ask(*client, {vip, 80}).ok());
  mesh().remove_pod(going);
  for (const auto& vip : {v4, v6}) EXPECT_FALSE(ask(*client, {vip, 80}).ok());
}

// ---- telemetry

TEST_F(Behaviour, L4MetricsNameBothPrincipals) {
  ASSERT_TRUE(ask(*client, at(*db, false)).ok());
  for (const auto& [node, reporter] : {std::pair{&node1(), "source"}, {&node2(), "destination"}}) {
    const std::vector<std::string> labels{
        std::string("reporter=\"") + reporter + "\"", "source_principal=\"" + client->identity() + "\"",
        "destination_principal=\"" + db->identity() + "\"", "connection_security_policy=\"mutual_tls\""};
    EXPECT_TRUE(eventually(kSoon, [&, n = node] {
      return metric(n->metrics(), "istio_tcp_connections_opened_total", labels) > 0;
    })) << reporter;
  }
}

// ---- the size of packets

class BehaviourMtu : public ::testing::TestWithParam<int> {};

TEST_P(BehaviourMtu, BulkIsByteExactBothWays) {
  WEFT_NEEDS_ROOT();
  MeshOptions options;
  options.mtu = GetParam();
  Mesh mesh(options);
  const Pod* from = add_serving_pod(mesh, 1, "shop", "client", true);
  const Pod* to = add_serving_pod(mesh, 2, "shop", "server", true);
  const Capture wire(mesh.node(1).netns(), Node::kWire);
  for (const bool v6 : {false, true}) {
    const Finished done = from->bulk(v6 ? to->v6() : to->v4(), {"--send", "4000000", "--receive", "4000000"});
    EXPECT_TRUE(done.ok()) << (v6 ? "IPv6 " : "IPv4 ") << ::testing::PrintToString(done);
  }
  EXPECT_TRUE(wire.segments([&](const Segment& s) { return is_clear_between(s, *from, *to); }).empty());
}

INSTANTIATE_TEST_SUITE_P(Sizes, BehaviourMtu, ::testing::Values(1280, 1500, 9000),
                         [](const auto& entry) { return std::to_string(entry.param); });

}  // namespace
}  // namespace weft::test
