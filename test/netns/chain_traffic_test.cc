// SPDX-License-Identifier: Apache-2.0
/// The same traffic behind each chain of plugins that pods get their network from.

#include <sstream>

#include "test/netns/chain_fixture.h"

namespace weft::test {
namespace {

/// For connections that are expected to fail.
const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

struct ChainName {
  template <class Chain>
  static std::string GetName(int) {
    if (Chain::kFelix) return Chain::kFelix == FakeFelix::HostAction::kDrop ? "CalicoDrop" : "CalicoAccept";
    if (Chain::kPrimary == Primary::kBridge) return "Bridge";
    return Chain::kPrimary == Primary::kPtp ? "Ptp" : "BridgePortmapBandwidth";
  }
};

template <class Chain>
class Chains : public ChainTest<Chain> {
 protected:
  using Base = ChainTestBase;
  static Mesh& mesh() { return Base::on_->mesh; }
  static Pod& client() { return *Base::on_->client; }
  static Pod& web() { return *Base::on_->web; }
  static Pod& db() { return *Base::on_->db; }
  static Pod& plain1() { return *Base::on_->plain1; }
  static Pod& plain2() { return *Base::on_->plain2; }

  static bool is_payload_of_the_tunnel(const Segment& segment) {
    return segment.destination.port == 15008 && segment.payload_bytes > 0;
  }
  /// Both pods reach each other, and `watched` sees the tunnel and nothing else.
  static void expect_tunnel(const Pod& a, const Pod& b, const Capture& watched) {
    for (const auto& [from, to] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
      for (const auto& end : ends(*to)) {
        EXPECT_THAT(from->get(end, {"--marker", "secret-word"}), IsAnswer(to->name(), own_address(*from, end)));
      }
    }
    EXPECT_FALSE(watched.segments(is_payload_of_the_tunnel).empty());
    EXPECT_TRUE(watched.segments([&](const Segment& s) { return is_clear_between(s, a, b); }).empty());
    EXPECT_FALSE(watched.contains("secret-word"));
    EXPECT_EQ(watched.lost(), 0U);
  }
};
using AllChains = ::testing::Types<Ptp, Bridge, BridgePortmapBandwidth, CalicoDrop, CalicoAccept>;
TYPED_TEST_SUITE(Chains, AllChains, ChainName);

TYPED_TEST(Chains, MeshPodsOfTwoNodesMeetInTheTunnelOnly) {
  const Capture wire(this->mesh().node(1).netns(), Node::kWire);
  this->expect_tunnel(this->client(), this->db(), wire);
}

TYPED_TEST(Chains, MeshPodsOfOneNodeMeetInTheTunnelOnly) {
  const Capture veth(this->mesh().node(1).netns(), this->web().host_interface());
  this->expect_tunnel(this->client(), this->web(), veth);
}

TYPED_TEST(Chains, TrafficThatIsNotOfTheMeshIsUntouched) {
  for (const Pod* inside : {&this->client(), &this->db()}) {
    for (const Pod* outside : {&this->plain1(), &this->plain2()}) {
      SCOPED_TRACE(inside->name() + " and " + outside->name());
      for (const auto& to : ends(*outside)) expect_untouched(inside->get(to), outside->name());
      for (const auto& to : ends(*inside)) expect_untouched(outside->get(to), inside->name());
    }
  }
  for (const auto& to : ends(this->plain2())) expect_untouched(this->plain1().get(to), "plain2");
}

TYPED_TEST(Chains, TheNodeReachesItsPodsAsTheKubeletDoes) {
  for (const Pod* pod : {&this->db(), &this->plain2()}) {
    for (const auto& to : ends(*pod)) expect_untouched(get_from_node(this->mesh().node(2), to), pod->name());
  }
  // The same without an answer to plaintext of others: only the node's own connections are told apart.
  this->mesh().set_policy(deny_policy("bank", "mesh-only", plaintext()));
  for (const auto& to : ends(this->db())) {
    expect_untouched(get_from_node(this->mesh().node(2), to), "db");
    EXPECT_FALSE(this->plain2().get(to, kImpatient).ok()) << to.to_string();
    EXPECT_FALSE(this->plain1().get(to, kImpatient).ok()) << to.to_string();
    EXPECT_THAT(this->client().get(to), IsAnswer("db", own_address(this->client(), to)));
  }
  this->mesh().remove_policy("bank", "mesh-only");
}

TYPED_TEST(Chains, AServiceIsReachedByItsVirtualAddress) {
  const auto [v4, v6] = this->mesh().add_service("shop", "both", 80, Pod::kPort, {&this->web(), &this->db()});
  for (const auto& vip : {v4, v6}) {
    const Finished answers = this->client().get({vip, 80}, {"--count", "20"});
    EXPECT_TRUE(answers.ok()) << ::testing::PrintToString(answers);
    EXPECT_THAT(answers.out, ::testing::HasSubstr("server=web"));
    EXPECT_THAT(answers.out, ::testing::HasSubstr("server=db"));
  }
}

TYPED_TEST(Chains, PodsReachTheirNodeAsItsRulesSay) {
  Process server = Process::start({program("weft-testapp"), "serve", "--name", "node1"},
                                  {.netns = &this->mesh().node(1).netns(), .environment = {}, .input = {}});
  ASSERT_TRUE(server.wait_for_output("serving name=", milliseconds(10'000))) << server.out();
  const bool reachable = TypeParam::kFelix != FakeFelix::HostAction::kDrop;
  const Node& node = this->mesh().node(1);
  for (const Pod* pod : {&this->client(), &this->plain1()}) {
    for (const auto& address : {node.address_v4(), node.address_v6()}) {
      SCOPED_TRACE(pod->name() + " to " + address.to_string());
      const Finished answer = pod->get({address, Pod::kPort}, kImpatient);
      EXPECT_EQ(answer.ok(), reachable) << ::testing::PrintToString(answer);
    }
  }
}

/// How a run of short connections went.
struct Tally {
  int answers = 0, slow = 0;
  std::string text;
};

Tally tally(Process& process) {
  Tally result;
  const Finished finished = process.finish(milliseconds(60'000));
  result.text = finished.err;
  std::istringstream lines(finished.out);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("server=") == std::string::npos) {
      result.text += line + "\n";
      continue;
    }
    ++result.answers;
    // A SYN that is lost costs a second.
    if (std::stod(field(line, "ms")) >= 1000) ++result.slow;
  }
  return result;
}

TYPED_TEST(Chains, OfManyConnectionsNoneIsLost) {
  constexpr int kEach = 60;
  struct Run {
    const Pod *from, *to;
    Process process;
  };
  std::vector<Run> runs;
  const std::vector<std::pair<const Pod*, const Pod*>> pairs{
      {&this->client(), &this->db()},     {&this->db(), &this->web()},     {&this->web(), &this->client()},
      {&this->client(), &this->plain2()}, {&this->plain1(), &this->web()}, {&this->plain2(), &this->db()}};
  for (const auto& [from, to] : pairs) {
    for (const auto& end : ends(*to)) {
      runs.push_back(
          {from, to, from->start({program("weft-testapp"), "get", end.to_string(), "--count", std::to_string(kEach)})});
    }
  }
  for (auto& run : runs) {
    const Tally seen = tally(run.process);
    EXPECT_EQ(seen.answers, kEach) << run.from->name() << " to " << run.to->name() << ": " << seen.text;
    EXPECT_EQ(seen.slow, 0) << run.from->name() << " to " << run.to->name() << ": a packet was lost on the way";
  }
  for (const int node : {1, 2}) {
    const FakeFelix* felix = this->mesh().node(node).felix();
    if (felix == nullptr) continue;
    EXPECT_EQ(felix->packets("--ctstate INVALID"), 0U) << "dropped as INVALID on node " << node;
    EXPECT_EQ(felix->packets("-m rpfilter"), 0U) << "dropped by the reverse path filter on node " << node;
    EXPECT_GT(felix->packets("--ctstate RELATED,ESTABLISHED"), 0U);
  }
}

/// A NetworkPolicy of the primary plugin: a rule on the server's node by the addresses of client and server.
class NodePolicy {
 public:
  NodePolicy(const Pod& server, const Pod& client) : server_(server), client_(client) {
    const FakeFelix* felix = server.node().felix();
    for (const auto& end : ends(client)) {
      if (felix != nullptr) {
        felix->deny(server.host_interface(), end.address);
      } else {
        rule("-I", end.address);
      }
    }
  }
  NodePolicy(const NodePolicy&) = delete;
  NodePolicy& operator=(const NodePolicy&) = delete;
  ~NodePolicy() {
    if (const FakeFelix* felix = server_.node().felix()) {
      felix->clear_policy(server_.host_interface());
    } else {
      for (const auto& end : ends(client_)) rule("-D", end.address);
    }
  }
  /// Packets that it dropped.
  [[nodiscard]] std::uint64_t dropped(const IpAddress& client) const {
    const char* save = client.is_v6() ? "ip6tables-save" : "iptables-save";
    std::istringstream rules(
        must_run({save, "-c"}, {.netns = &server_.node().netns(), .environment = {}, .input = {}}));
    for (std::string line; std::getline(rules, line);) {
      const bool ours = line.find("-s " + client.to_string() + "/") != std::string::npos;
      if (ours && line.ends_with("-j DROP")) return std::strtoull(line.c_str() + 1, nullptr, 10);
    }
    throw TestError("the rule for " + client.to_string() + " is not there");
  }

 private:
  void rule(const char* action, const IpAddress& client) const {
    const IpAddress& server = client.is_v6() ? server_.address_v6() : server_.address_v4();
    must_run({client.is_v6() ? "ip6tables" : "iptables", action, "FORWARD", "-s", client.to_string(), "-d",
              server.to_string(), "-j", "DROP"},
             {.netns = &server_.node().netns(), .environment = {}, .input = {}});
  }
  const Pod& server_;
  const Pod& client_;
};

TYPED_TEST(Chains, ANetworkPolicyOfThePrimarySeesThePodsOwnAddresses) {
  // A pod of its own: what has a tunnel already keeps it where rules let established connections pass.
  Pod& barred = this->mesh().add_pod(1, "shop", "barred");
  {
    const NodePolicy policy(this->db(), barred);
    for (const auto& to : ends(this->db())) {
      SCOPED_TRACE(to.to_string());
      EXPECT_FALSE(barred.get(to, kImpatient).ok());
      EXPECT_GT(policy.dropped(own_address(barred, to)), 0U);
      EXPECT_THAT(this->client().get(to), IsAnswer("db", own_address(this->client(), to)));
      EXPECT_THAT(this->web().get(to), IsAnswer("db", own_address(this->web(), to)));
    }
  }
  for (const auto& to : ends(this->db())) {
    EXPECT_TRUE(eventually(milliseconds(10'000), [&] { return barred.get(to, kImpatient).ok(); })) << to.to_string();
  }
  this->mesh().remove_pod(barred);
}

}  // namespace
}  // namespace weft::test
