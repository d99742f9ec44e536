// SPDX-License-Identifier: Apache-2.0
/// Pods whose own network namespace holds packet filter rules, as security products and old sidecars leave them. Each
/// case says what works; what does not must not leave in the clear.

#include <fstream>

#include "test/netns/chain_fixture.h"

namespace weft::test {
namespace {

const std::vector<std::string> kImpatient{"--connect-timeout", "1", "--timeout", "1"};

/// Which ways work. Unless said otherwise all do.
struct Ways {
  bool mesh_out = true, mesh_in = true, plain_out = true, plain_in = true, probe = true;
  bool operator==(const Ways&) const = default;
};
constexpr Ways kNone{false, false, false, false, false};

void PrintTo(const Ways& ways, std::ostream* out) {
  *out << "to the mesh " << ways.mesh_out << ", from the mesh " << ways.mesh_in << ", to others " << ways.plain_out
       << ", from others " << ways.plain_in << ", from the node " << ways.probe;
}

class ChainPodRules : public ChainTest<Ptp> {
 protected:
  void SetUp() override {
    ChainTestBase::SetUp();
    if (IsSkipped()) return;
    PodOptions options;
    options.service_account = "ruled";
    pod_ = &on_->mesh.add_pod(1, "shop", "ruled", options);
    pod_->serve();
    veth_ = std::make_unique<Capture>(on_->mesh.node(1).netns(), pod_->host_interface());
  }
  void TearDown() override {
    veth_.reset();
    ChainTestBase::TearDown();
    if (pod_ != nullptr) on_->mesh.remove_pod(*pod_);
  }

  /// Loads a file of nft into the pod.
  void load(const std::string& rules) const {
    must_run({"nft", "-f", "-"}, {.netns = &pod_->netns(), .environment = {}, .input = rules});
  }
  /// Adds the chain `name` to the pod: `rules` at this hook.
  void chain(const std::string& head, const std::string& rules) const {
    load("table inet own {\n chain " + head.substr(0, head.find(' ')) + " {\n  type " +
         head.substr(head.find(' ') + 1) + ";\n" + rules + "\n }\n}\n");
  }

  /// Tries all ways by IPv4 and IPv6, which must agree, and that nothing of the mesh leaves in the clear.
  [[nodiscard]] Ways ways() const {
    std::optional<Ways> seen;
    for (const bool v6 : {false, true}) {
      const auto end = [&](const Pod& pod) { return v6 ? pod.v6() : pod.v4(); };
      auto secret = kImpatient;
      secret.insert(secret.end(), {"--marker", "secret-word"});
      const Ways now{.mesh_out = pod_->get(end(*on_->db), secret).ok(),
                     .mesh_in = on_->db->get(end(*pod_), secret).ok(),
                     .plain_out = pod_->get(end(*on_->plain2), kImpatient).ok(),
                     .plain_in = on_->plain2->get(end(*pod_), kImpatient).ok(),
                     .probe = get_from_node(on_->mesh.node(1), end(*pod_), kImpatient).ok()};
      EXPECT_EQ(now, seen.value_or(now)) << "IPv6 differs from IPv4";
      seen = now;
    }
    EXPECT_FALSE(veth_->contains("secret-word"));
    EXPECT_TRUE(veth_->segments([this](const Segment& s) { return is_clear_between(s, *pod_, *on_->db); }).empty());
    EXPECT_EQ(veth_->lost(), 0U);
    return *seen;
  }

  Pod* pod_ = nullptr;
  std::unique_ptr<Capture> veth_;
};

TEST_F(ChainPodRules, WithoutRulesAllWaysWork) { EXPECT_EQ(ways(), Ways{}); }

TEST_F(ChainPodRules, WhatIsInvalidIsDropped) {
  for (const char* hook : {"input", "output"}) {
    chain(std::string(hook) + " filter hook " + hook + " priority 0; policy accept", "ct state invalid counter drop");
  }
  EXPECT_EQ(ways(), Ways{});
  Process held = pod_->hold(on_->db->v4());
  const Finished moved = pod_->bulk(on_->db->v4(), {"--send", "4000000", "--receive", "4000000"});
  EXPECT_TRUE(moved.ok()) << ::testing::PrintToString(moved);
  EXPECT_TRUE(held.running()) << held.out();
}

constexpr const char* kClosedInput =
    "ct state established,related accept\niif lo accept\n"
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept\n";

TEST_F(ChainPodRules, AnInputThatTakesOnlyAnswersStopsTheMeshsTunnelTheWayItStopsOthers) {
  chain("input filter hook input priority 0; policy drop", kClosedInput);
  EXPECT_EQ(ways(), (Ways{.mesh_out = true, .mesh_in = false, .plain_out = true, .plain_in = false, .probe = false}));
}

TEST_F(ChainPodRules, AnInputThatTakesTheApplicationsPortAloneStopsTheTunnel) {
  chain("input filter hook input priority 0; policy drop", std::string(kClosedInput) + "tcp dport 8080 accept");
  EXPECT_EQ(ways(), (Ways{.mesh_out = true, .mesh_in = false, .plain_out = true, .plain_in = true, .probe = true}));
}

TEST_F(ChainPodRules, AnInputThatTakesTheTunnelsPortTooLetsAllIn) {
  chain("input filter hook input priority 0; policy drop",
        std::string(kClosedInput) + "tcp dport { 8080, 15008 } accept");
  EXPECT_EQ(ways(), Ways{});
}

TEST_F(ChainPodRules, AnOutputThatAllowsTheApplicationsPortAloneStopsTheTunnel) {
  chain("output filter hook output priority 0; policy drop",
        "ct state established,related accept\noif lo accept\nmeta l4proto ipv6-icmp accept\ntcp dport 8080 accept");
  EXPECT_EQ(ways(), (Ways{.mesh_out = false, .mesh_in = true, .plain_out = true, .plain_in = true, .probe = true}));
}

/// The rules of a sidecar: what leaves goes to 15001, what comes in to 15006, of the sidecar's own user nothing.
constexpr const char* kSidecarRules = R"(
table ip nat_own {
 chain output { type nat hook output priority -100;
  meta skuid 1337 return
  ip daddr 127.0.0.1 return
  meta l4proto tcp redirect to :15001
 }
 chain prerouting { type nat hook prerouting priority -100;
  tcp dport { 22, 15008, 15020, 15021 } return
  meta l4proto tcp redirect to :15006
 }
}
table ip6 nat_own {
 chain output { type nat hook output priority -100;
  meta skuid 1337 return
  ip6 daddr ::1 return
  meta l4proto tcp redirect to :15001
 }
 chain prerouting { type nat hook prerouting priority -100;
  tcp dport { 22, 15008, 15020, 15021 } return
  meta l4proto tcp redirect to :15006
 }
}
)";

TEST_F(ChainPodRules, RulesOfASidecarThatIsGoneCloseThePod) {
  load(kSidecarRules);
  EXPECT_EQ(ways(), kNone);
}

TEST_F(ChainPodRules, RulesOfASidecarTakeTheAgentsConnectionsToo) {
  load(kSidecarRules);
  std::vector<Process> sidecar;
  for (const char* port : {"15001", "15006"}) {
    sidecar.push_back(pod_->start({program("weft-testapp"), "serve", "--name", "sidecar", "--port", port}));
    ASSERT_TRUE(sidecar.back().wait_for_output("serving name=", milliseconds(10'000))) << sidecar.back().err();
  }
  for (const bool v6 : {false, true}) {
    const Endpoint db = v6 ? on_->db->v6() : on_->db->v4();
    const Endpoint own = v6 ? pod_->v6() : pod_->v4();
    EXPECT_EQ(field(pod_->get(db, {"--marker", "secret-word"}).out, "server"), "sidecar");
    EXPECT_EQ(field(on_->plain2->get(own).out, "server"), "sidecar");
    // The agent hands a connection on from its client's address: what a redirection makes of that finds no way back.
    EXPECT_FALSE(on_->db->get(own, {"--marker", "secret-word", "--timeout", "1"}).ok());
    // What the sidecar itself sends is captured; the agent's tunnel then ends at the sidecar, which it does not
    // believe.
    const Finished onward = pod_->start({"setpriv", "--reuid", "1337", "--clear-groups", program("weft-testapp"), "get",
                                         db.to_string(), "--marker", "secret-word", "--timeout", "1"})
                                .finish(milliseconds(10'000));
    EXPECT_FALSE(onward.ok()) << ::testing::PrintToString(onward);
    EXPECT_THAT(onward.err, ::testing::Not(::testing::HasSubstr("setpriv")));
  }
  EXPECT_FALSE(veth_->contains("secret-word"));
}

TEST_F(ChainPodRules, ConntrackZonesOfTheInterfacesAreNoMatter) {
  for (const char* hook : {"prerouting", "output"}) {
    const bool out = std::string(hook) == "output";
    chain(std::string(hook) + "_zones filter hook " + hook + " priority -300; policy accept",
          out ? "oif lo ct zone set 2\noif != lo ct zone set 1" : "iif lo ct zone set 2\niif != lo ct zone set 1");
  }
  EXPECT_EQ(ways(), Ways{});
}

TEST_F(ChainPodRules, WithoutConntrackNothingChanges) {
  for (const char* hook : {"prerouting", "output"}) {
    chain(std::string(hook) + "_raw filter hook " + hook + " priority -300; policy accept", "notrack");
  }
  EXPECT_EQ(ways(), Ways{});
}

}  // namespace
}  // namespace weft::test
