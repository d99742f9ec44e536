// SPDX-License-Identifier: Apache-2.0
/// Pods that may go to the registry alone: what they are refused, how it is named, and what opens it.
#include <sys/socket.h>

#include <chrono>

#include "test/netns/mesh_fixture.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kSoon{10'000};
constexpr std::uint16_t kPort = 8088;
constexpr const char* kExempt4 = "192.0.2.80";
constexpr const char* kExempt6 = "2001:db8:80::1";
constexpr const char* kUnnamed4 = "198.51.100.80";
constexpr const char* kUnnamed6 = "2001:db8:81::1";
constexpr const char* kDropped = "to where the registry names nothing";

IpAddress address(const std::string& text) { return IpAddress::parse(text).value(); }

/// Addresses on node 2 that no configuration names, with a server on all of them. Node 1 leads to them.
class ExternalServer {
 public:
  explicit ExternalServer(Mesh& mesh) {
    const Node &here = mesh.node(1), &there = mesh.node(2);
    for (const char* one : {kExempt4, kUnnamed4}) {
      there.netns().ip(std::string("addr add ") + one + "/32 dev lo");
      here.netns().ip(std::string("route add ") + one + " via " + there.address_v4().to_string());
    }
    for (const char* one : {kExempt6, kUnnamed6}) {
      there.netns().ip(std::string("addr add ") + one + "/128 dev lo nodad");
      here.netns().ip(std::string("-6 route add ") + one + " via " + there.address_v6().to_string());
    }
    process_ = std::make_unique<Process>(
        Process::start({program("weft-testapp"), "serve", "--name", "external", "--port", std::to_string(kPort)},
                       {.netns = &there.netns(), .environment = {}, .input = {}}));
    if (!process_->wait_for_output("serving", kSoon)) throw TestError("the external server does not serve");
  }

 private:
  std::unique_ptr<Process> process_;
};

const std::vector<std::string> kRegistryOnly = {"--outbound-traffic-policy", "registry-only", "--registry-exempt",
                                                std::string(kExempt4) + "," + kExempt6};

class Egress : public MeshTest {
 protected:
  static void SetUpTestSuite() {
    if (!is_root()) return;
    MeshOptions options;
    options.agent_arguments = kRegistryOnly;
    auto made = std::make_unique<Mesh>(options);
    client = add_serving_pod(*made, 1, "shop", "client", true);
    web2 = add_serving_pod(*made, 2, "shop", "web2", true);
    outside = add_serving_pod(*made, 1, "legacy", "outside", false);
    external_ = std::make_unique<ExternalServer>(*made);
    mesh_ = std::move(made);
  }
  static void TearDownTestSuite() {
    external_.reset();
    MeshTest::TearDownTestSuite();
  }

  static Finished ask(const Pod& from, const std::string& to, std::uint16_t port = kPort) {
    return from.get({address(to), port}, {"--timeout", "5", "--connect-timeout", "3"});
  }
  static json explained(const std::string& to) {
    const Finished answer = Process::start({program("weftctl"), "explain", "shop/client", to, "-o", "json"},
                                           {.netns = &node1().netns(), .environment = {}, .input = {}})
                                .finish(kSoon);
    return json::parse(answer.out);
  }
  static double dropped() {
    return metric(node1().metrics(), "weft_pod_drops_total", {"pod=\"client\"", std::string("reason=\"") + kDropped});
  }
  /// What a ServiceEntry with static addresses is, under a uid of its own.
  static json entry(const std::vector<std::string>& addresses) {
    json workload = {
        {"uid", "weftt//ServiceEntry/shop/partner"}, {"name", "partner"}, {"namespace", "shop"}, {"protocol", "TCP"}};
    for (const auto& one : addresses) workload["workloadIps"].push_back(one);
    return workload;
  }

  static std::unique_ptr<ExternalServer> external_;
};
std::unique_ptr<ExternalServer> Egress::external_;

TEST_F(Egress, UnknownDestinationsAreRefusedAndNamed) {
  for (const std::string to : {kUnnamed4, kUnnamed6}) {
    const std::size_t before = node1().log().size();
    const std::vector<std::string> series{"source_workload=\"client\"", "destination_service_name=\"BlackHoleCluster\"",
                                          "response_flags=\"UH\""};
    const double counted = metric(node1().metrics(), "istio_tcp_connections_failed_total", series);
    const auto began = std::chrono::steady_clock::now();
    const Finished refused = ask(*client, to);
    EXPECT_NE(refused.status, 0) << to;
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(3)) << "a refusal, no silence";
    EXPECT_TRUE(eventually(kSoon, [&] {
      return !log_lines(node1().log(), before, {to, "is not in the registry", "response_flags=UH"}).empty();
    })) << node1().log().substr(before);
    EXPECT_EQ(metric(node1().metrics(), "istio_tcp_connections_failed_total", series), counted + 1);
    const json said = explained(Endpoint{address(to), kPort}.to_string());
    EXPECT_EQ(said.at("outcome"), "refused") << said;
    EXPECT_THAT(said.dump(), HasSubstr("is not in the registry"));
    const IpAddress& own = address(to).is_v4() ? outside->address_v4() : outside->address_v6();
    EXPECT_THAT(ask(*outside, to), IsAnswer("external", own)) << "a pod outside of the mesh";
  }
}

TEST_F(Egress, TheMeshAndWhatIsExemptAreOpen) {
  for (const auto& to : {web2->v4(), web2->v6()}) EXPECT_TRUE(client->get(to).ok());
  EXPECT_THAT(ask(*client, kExempt4), IsAnswer("external", client->address_v4()));
  EXPECT_THAT(ask(*client, kExempt6), IsAnswer("external", client->address_v6()));
}

/// Best of three: a busy machine may hold any of them up.
TEST_F(Egress, AServiceEntryAllowsItWithinASecond) {
  auto best = std::chrono::steady_clock::duration::max();
  for (int i = 0; i < 3; ++i) {
    for (const std::string to : {kUnnamed4, kUnnamed6}) EXPECT_FALSE(ask(*client, to).ok()) << to;
    const auto began = std::chrono::steady_clock::now();
    mesh().set_workload(entry({kUnnamed4, kUnnamed6}));
    EXPECT_TRUE(eventually(kSoon, [] { return ask(*client, kUnnamed4).ok(); }));
    best = std::min(best, std::chrono::steady_clock::now() - began);
    EXPECT_THAT(ask(*client, kUnnamed4), IsAnswer("external", client->address_v4()));
    EXPECT_THAT(ask(*client, kUnnamed6), IsAnswer("external", client->address_v6()));
    mesh().set_workload(entry({"203.0.113.1"}));
    EXPECT_TRUE(eventually(kSoon, [] { return !ask(*client, kUnnamed4).ok(); }));
  }
  const auto ms = std::chrono::duration_cast<milliseconds>(best).count();
  std::printf("  open %ld ms after the file began to change\n", static_cast<long>(ms));
  EXPECT_LT(ms, 1000);
}

TEST_F(Egress, ARangeAllowsAllOfIt) {
  const std::string range4 = "/198.51.100.0/24", range6 = "/2001:db8:81::/64";
  mesh().add_service("shop", "ranges", kPort, kPort, {},
                     {{"vips", json::array()},
                      {"cidrVips", {range4, range6}},
                      {"hostname", "ranges.example.com"},
                      {"loadBalancer", {{"mode", "Passthrough"}}}});
  EXPECT_THAT(ask(*client, kUnnamed4), IsAnswer("external", client->address_v4()));
  EXPECT_THAT(ask(*client, kUnnamed6), IsAnswer("external", client->address_v6()));
  mesh().change_service("shop", "ranges",
                        {{"vips", json::array()}, {"hostname", "ranges.example.com"}, {"cidrVips", json::array()}});
  EXPECT_FALSE(ask(*client, kUnnamed4).ok());
  EXPECT_FALSE(ask(*client, kUnnamed6).ok());
}

/// A bound UDP socket.
Fd udp_at(const Netns& netns, const Endpoint& at) {
  return run_in(netns, [&] {
    Fd fd = std::move(*sys::socket(at.address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM));
    if (!sys::bind(fd.get(), at.to_sockaddr())) throw TestError("bind " + at.to_string());
    return fd;
  });
}
void send_to(const Fd& fd, const Endpoint& to, const std::string& text) {
  const auto name = to.to_sockaddr();
  if (::sendto(fd.get(), text.data(), text.size(), 0, name.get(), name.length) < 0) throw TestError("send a datagram");
}
/// The next datagram's text; empty where there is none for a while.
std::string next_at(const Fd& fd, milliseconds patience = kSoon) {
  std::string text(64, '\0');
  ssize_t n = -1;
  eventually(patience, [&] { return (n = ::recv(fd.get(), text.data(), text.size(), MSG_DONTWAIT)) >= 0; });
  text.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  return text;
}

TEST_F(Egress, DatagramsToo) {
  for (const auto& [own, to] :
       {std::pair{client->address_v4(), address(kUnnamed4)}, {client->address_v6(), address(kUnnamed6)}}) {
    const Endpoint server{to, 9999}, pod{own, 9998};
    const Fd there = udp_at(node2().netns(), server), here = udp_at(client->netns(), pod);
    const double before = dropped();
    send_to(here, server, "unasked");
    EXPECT_TRUE(eventually(kSoon, [&] { return dropped() == before + 1; }));
    // Whoever asks the pod is answered.
    send_to(there, pod, "question");
    EXPECT_EQ(next_at(here), "question");
    send_to(here, server, "answer");
    EXPECT_EQ(next_at(there), "answer") << "and the one before has not come";
    EXPECT_EQ(dropped(), before + 1);
  }
}

TEST_F(Egress, ItHoldsWhileTheAgentIsAway) {
  node1().kill_agent();
  EXPECT_FALSE(ask(*client, kUnnamed4).ok());
  EXPECT_THAT(ask(*client, kExempt4), IsAnswer("external", client->address_v4()));
  node1().start_agent();
  EXPECT_FALSE(ask(*client, kUnnamed4).ok());
  EXPECT_THAT(ask(*client, kExempt4), IsAnswer("external", client->address_v4()));
}

/// The setting changes with an agent's successor, and connections live on.
class EgressChange : public MeshTest {
 protected:
  static void SetUpTestSuite() {
    MeshTest::SetUpTestSuite();
    if (mesh_) external_ = std::make_unique<ExternalServer>(*mesh_);
  }
  static void TearDownTestSuite() {
    external_.reset();
    MeshTest::TearDownTestSuite();
  }
  static std::unique_ptr<ExternalServer> external_;
};
std::unique_ptr<ExternalServer> EgressChange::external_;

TEST_F(EgressChange, ASuccessorMaySayOtherwise) {
  const Endpoint unnamed{address(kUnnamed4), kPort};
  const auto ask = [&] { return client->get(unnamed, {"--timeout", "5", "--connect-timeout", "3"}); };
  EXPECT_TRUE(ask().ok());
  Process held = client->hold(unnamed), in_mesh = client->hold(web2->v4());
  node1().hand_over_agent(kRegistryOnly);
  EXPECT_FALSE(ask().ok());
  EXPECT_TRUE(client->get(web2->v4()).ok());
  node1().hand_over_agent();
  EXPECT_TRUE(ask().ok());
  EXPECT_TRUE(held.running()) << held.out() << held.err();
  EXPECT_TRUE(in_mesh.running()) << in_mesh.out() << in_mesh.err();
}

}  // namespace
}  // namespace weft::test
