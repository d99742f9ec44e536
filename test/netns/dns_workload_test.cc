// SPDX-License-Identifier: Apache-2.0
/// A service whose endpoint is known by its name alone, as a ServiceEntry with resolution DNS gives it. The node asks a
/// DNS server of the test.

#include "test/netns/mesh_fixture.h"
#include "test/support/dns_server.h"

namespace weft::test {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Manner = DnsAnswer::Manner;

constexpr milliseconds kSoon{10'000};
constexpr std::uint16_t kPort = 443;  ///< of the service; it leads to Pod::kPort

/// Node 1 has the pod client and a DNS server, node 2 the pod db, the pod outside, which is no part of the mesh, and a
/// server on its own address. api.example.com is a service whose endpoint a case names.
class DnsWorkload : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!is_root()) return;
    folder_ = std::make_unique<ScratchDir>();
    use_dns_at("127.0.0.1");
    MeshOptions options;
    // What a registered name leads to is open, too.
    options.agent_arguments = {"--resolv-conf", folder_->path() + "/resolv.conf", "--outbound-traffic-policy",
                               "registry-only"};
    auto made = std::make_unique<Mesh>(options);
    client_ = add_serving_pod(*made, 1, "shop", "client", true);
    db_ = add_serving_pod(*made, 2, "bank", "db", true);
    outside_ = add_serving_pod(*made, 2, "legacy", "outside", false);
    std::tie(vip4_, vip6_) = made->add_service("shop", "api", kPort, Pod::kPort, {}, {{"hostname", "api.example.com"}});
    dns_ = std::make_unique<DnsServer>(Endpoint{IpAddress::parse("127.0.0.1").value(), 53}, &made->node(1).netns());
    external_ = std::make_unique<Process>(
        Process::start({program("weft-testapp"), "serve", "--name", "external", "--port", std::to_string(Pod::kPort)},
                       {.netns = &made->node(2).netns(), .environment = {}, .input = {}}));
    if (!external_->wait_for_output("serving", kSoon)) throw TestError("the external server does not serve");
    mesh_ = std::move(made);
  }
  static void TearDownTestSuite() {
    external_.reset();
    dns_.reset();
    mesh_.reset();
    folder_.reset();
  }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
    logs_.mark(*mesh_);
    log_begin_ = mesh_->node(1).log().size();
  }
  void TearDown() override {
    if (HasFailure() && mesh_) logs_.tell(*mesh_);
  }

  static void use_dns_at(const std::string& address) {
    folder_->write("resolv.conf", "search example.com\nnameserver " + address + "\noptions ndots:5\n");
  }
  /// The service's endpoint is this name from here on.
  static void endpoint_is(const std::string& hostname) {
    mesh_->set_workload({{"uid", "weftt//ServiceEntry/shop/api"},
                         {"name", "api"},
                         {"namespace", "shop"},
                         {"hostname", hostname},
                         {"services", {{"shop/api.example.com", {{std::to_string(kPort), Pod::kPort}}}}}});
  }
  static void name_is(const std::string& name, const std::vector<IpAddress>& addresses, int ttl_s = 1) {
    std::vector<std::string> records;
    for (const auto& address : addresses) {
      records.push_back(name + ". " + std::to_string(ttl_s) + " IN " + (address.is_v4() ? "A " : "AAAA ") +
                        address.to_string());
    }
    dns_->set(name, records);
  }
  static Finished ask(const IpAddress& vip) {
    return client_->get({vip, kPort}, {"--timeout", "10", "--connect-timeout", "2"});
  }
  [[nodiscard]] std::vector<std::string> records(const std::vector<std::string>& words) const {
    return log_lines(mesh_->node(1).log(), log_begin_, words);
  }

  static std::unique_ptr<ScratchDir> folder_;
  static std::unique_ptr<Mesh> mesh_;
  static std::unique_ptr<DnsServer> dns_;
  static std::unique_ptr<Process> external_;
  static Pod *client_, *db_, *outside_;
  static IpAddress vip4_, vip6_;

  AgentLogs logs_;
  std::size_t log_begin_ = 0;
};

std::unique_ptr<ScratchDir> DnsWorkload::folder_;
std::unique_ptr<Mesh> DnsWorkload::mesh_;
std::unique_ptr<DnsServer> DnsWorkload::dns_;
std::unique_ptr<Process> DnsWorkload::external_;
Pod *DnsWorkload::client_, *DnsWorkload::db_, *DnsWorkload::outside_;
IpAddress DnsWorkload::vip4_, DnsWorkload::vip6_;

TEST_F(DnsWorkload, ReachesAServerOutsideOfTheMesh) {
  const Node& node2 = mesh_->node(2);
  endpoint_is("one.example.com");
  name_is("one.example.com", {node2.address_v4(), node2.address_v6()});
  EXPECT_THAT(ask(vip4_), IsAnswer("external", client_->address_v4()));
  EXPECT_THAT(ask(vip6_), IsAnswer("external", client_->address_v6()));
  EXPECT_TRUE(eventually(kSoon, [&] {
    return records({"connection complete", "dst.addr=" + node2.address_v4().to_string() + ":8080",
                    "dst.service=api.example.com"})
               .size() == 1;
  }));
  const std::vector<std::string> labels{"reporter=\"source\"",
                                        "destination_service=\"api.example.com\"",
                                        "destination_service_name=\"api\"",
                                        "destination_workload=\"api\"",
                                        "source_workload=\"client\"",
                                        "connection_security_policy=\"unknown\""};
  EXPECT_TRUE(eventually(kSoon, [&] {
    return metric(mesh_->node(1).metrics(), "istio_tcp_connections_closed_total", labels) >= 2;
  })) << mesh_->node(1).metrics();
}

TEST_F(DnsWorkload, AnAddressOfTheOtherFamilyServesWhereThereIsNoOther) {
  endpoint_is("four.example.com");
  name_is("four.example.com", {mesh_->node(2).address_v4()});
  EXPECT_THAT(ask(vip6_), IsAnswer("external", client_->address_v4()));
}

TEST_F(DnsWorkload, NewConnectionsFollowTheNameAndOldOnesLive) {
  endpoint_is("moves.example.com");
  name_is("moves.example.com", {mesh_->node(2).address_v4(), mesh_->node(2).address_v6()});
  Process held = client_->hold({vip4_, kPort}, {"--interval", "0.05"});
  name_is("moves.example.com", {outside_->address_v4(), outside_->address_v6()});
  for (const auto& vip : {vip4_, vip6_}) {
    EXPECT_TRUE(eventually(kSoon, [&] { return field(ask(vip).out, "server") == "outside"; }));
    EXPECT_EQ(field(ask(vip).out, "server"), "outside") << "and not back";
  }
  EXPECT_TRUE(held.running()) << held.out() << held.err();
  held.signal(SIGINT);
  EXPECT_THAT(held.finish(kSoon).out, HasSubstr("held"));
}

TEST_F(DnsWorkload, AnotherAddressOfTheNameIsTried) {
  endpoint_is("two.example.com");
  // On node 1's own address nobody listens.
  name_is("two.example.com", {mesh_->node(1).address_v4(), mesh_->node(2).address_v4()}, 60);
  for (int i = 0; i < 12; ++i) EXPECT_THAT(ask(vip4_), IsAnswer("external", client_->address_v4()));
}

TEST_F(DnsWorkload, ANameThatIsNoneIsRefusedAtOnce) {
  endpoint_is("nowhere.example.com");
  for (const auto& vip : {vip4_, vip6_}) {
    const auto started = steady_clock::now();
    EXPECT_FALSE(ask(vip).ok());
    EXPECT_LT(steady_clock::now() - started, stretched(milliseconds(1'500)));
  }
  EXPECT_TRUE(eventually(kSoon, [&] {
    return records({"resolve nowhere.example.com: 127.0.0.1 says that there is no such name (NXDOMAIN)",
                    "response_flags=CONNECT", "dst.service=api.example.com"})
               .size() == 2;
  }));
  const std::vector<std::string> labels{"reporter=\"source\"", "destination_service=\"api.example.com\""};
  EXPECT_GE(metric(mesh_->node(1).metrics(), "istio_tcp_connections_failed_total", labels), 2.0);
}

TEST_F(DnsWorkload, WithoutDnsItFailsInTimeAndSaysWhy) {
  // Nobody listens there.
  use_dns_at("127.0.0.9");
  endpoint_is("away.example.com");
  auto started = steady_clock::now();
  EXPECT_FALSE(ask(vip4_).ok());
  EXPECT_LT(steady_clock::now() - started, stretched(milliseconds(1'500)));
  EXPECT_TRUE(eventually(kSoon, [&] { return records({"resolve away.example.com: 127.0.0.9:53: "}).size() == 1; }));
  use_dns_at("127.0.0.1");

  endpoint_is("silent.example.com");
  dns_->set("silent.example.com", {{}, Manner::kSilent});
  started = steady_clock::now();
  EXPECT_FALSE(ask(vip6_).ok());
  EXPECT_GE(steady_clock::now() - started, milliseconds(3'500)) << "two tries of 2 s";
  EXPECT_LT(steady_clock::now() - started, stretched(milliseconds(6'000)));
  EXPECT_TRUE(eventually(
      kSoon, [&] { return records({"resolve silent.example.com: 127.0.0.1:53: no answer in 2000 ms"}).size() == 1; }));

  // What was learnt of one name is no matter to another, and the server is the one of the file now.
  endpoint_is("back.example.com");
  name_is("back.example.com", {mesh_->node(2).address_v4()});
  EXPECT_THAT(ask(vip4_), IsAnswer("external", client_->address_v4()));
}

TEST_F(DnsWorkload, AConnectionWaitsNoLongerThanItsOwnTime) {
  // Three silent servers take 12 s.
  const auto silent_at = [](const char* address) {
    auto server = std::make_unique<DnsServer>(Endpoint{IpAddress::parse(address).value(), 53}, &mesh_->node(1).netns());
    server->set("slow.example.com", {{}, Manner::kSilent});
    return server;
  };
  const auto second = silent_at("127.0.0.2");
  const auto third = silent_at("127.0.0.3");
  dns_->set("slow.example.com", {{}, Manner::kSilent});
  use_dns_at("127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.1");
  endpoint_is("slow.example.com");
  const auto started = steady_clock::now();
  EXPECT_FALSE(ask(vip4_).ok());
  EXPECT_GE(steady_clock::now() - started, milliseconds(4'500));
  EXPECT_LT(steady_clock::now() - started, stretched(milliseconds(7'000)));
  use_dns_at("127.0.0.1");
  EXPECT_TRUE(eventually(kSoon, [&] {
    return records({"resolve slow.example.com: no answer yet", "response_flags=CONNECT"}).size() == 1;
  }));
}

TEST_F(DnsWorkload, ANameOfAMeshPodLeadsThroughItsTunnel) {
  endpoint_is("db.example.com");
  name_is("db.example.com", {db_->address_v4(), db_->address_v6()});
  const Capture wire(mesh_->node(1).netns(), Node::kWire);
  for (const auto& vip : {vip4_, vip6_}) {
    const Finished answer = client_->get({vip, kPort}, {"--marker", "hidden"});
    EXPECT_THAT(answer, IsAnswer("db", vip.is_v4() ? client_->address_v4() : client_->address_v6()));
  }
  EXPECT_TRUE(eventually(kSoon, [&] {
    return records({"dst.hbone_addr=", "dst.service=api.example.com", "dst.identity=" + db_->identity()}).size() == 2;
  }));
  EXPECT_FALSE(wire.contains("hidden"));
  EXPECT_THAT(wire.segments([&](const Segment& s) { return is_clear_between(s, *client_, *db_); }), SizeIs(0));

  mesh_->set_policy(deny_policy("bank", "not-client", principal(*client_)));
  for (const auto& vip : {vip4_, vip6_}) EXPECT_FALSE(ask(vip).ok()) << "by its identity";
  mesh_->remove_policy("bank", "not-client");
  EXPECT_TRUE(ask(vip4_).ok());
}

TEST_F(DnsWorkload, ANameThatLeadsBackToItsServiceIsRefused) {
  endpoint_is("round.example.com");
  // The port of the service there, too: kPort leads to Pod::kPort, which the service does not have.
  name_is("round.example.com", {vip4_, vip6_});
  EXPECT_FALSE(ask(vip4_).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return records({"resolve round.example.com: " + vip4_.to_string() + ": service shop/api.example.com has no port"})
               .size() == 1;
  }));
  endpoint_is("loopback.example.com");
  name_is("loopback.example.com", {IpAddress::parse("127.0.0.1").value()});
  EXPECT_FALSE(ask(vip4_).ok());
  EXPECT_TRUE(
      eventually(kSoon, [&] { return records({"resolve loopback.example.com: 127.0.0.1 is of no use"}).size() == 1; }));
}

}  // namespace
}  // namespace weft::test
