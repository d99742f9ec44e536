// SPDX-License-Identifier: Apache-2.0
/// What can be said of plaintext before it comes (plaintext_outcome), and that evaluate never says otherwise.

#include <gtest/gtest.h>

#include <random>

#include "test/unit/state/builders.h"
#include "tunnel/state/policy.h"

namespace weft::state::test {
namespace {

using Outcome = PlaintextOutcome;

PolicyMatch port(std::uint16_t number) {
  PolicyMatch out;
  out.destination_ports = {number};
  return out;
}

PolicyMatch other_ports(std::uint16_t number) {
  PolicyMatch out;
  out.not_destination_ports = {number};
  return out;
}

PolicyMatch from(const std::string& cidr) {
  PolicyMatch out;
  out.source_ips = {range(cidr)};
  return out;
}

PolicyMatch to(const std::string& cidr) {
  PolicyMatch out;
  out.destination_ips = {range(cidr)};
  return out;
}

PolicyMatch without_identity() {
  PolicyMatch out;
  out.not_principals = {{StringMatch::Kind::kPresence, ""}};
  return out;
}

PolicyMatch client() {
  PolicyMatch out;
  out.principals = {{StringMatch::Kind::kExact, "td/ns/client/sa/web"}};
  return out;
}

Policy of(PolicyAction action, std::vector<std::vector<PolicyMatch>> rule, bool dry_run = false) {
  static int number = 0;
  Policy out;
  out.name = "p" + std::to_string(++number);
  out.namespace_name = "ns";
  out.action = action;
  out.dry_run = dry_run;
  out.rules = {std::move(rule)};
  return out;
}
Policy deny(PolicyMatch match, bool dry_run = false) { return of(PolicyAction::kDeny, {{std::move(match)}}, dry_run); }
Policy allow(PolicyMatch match, bool dry_run = false) {
  return of(PolicyAction::kAllow, {{std::move(match)}}, dry_run);
}
Policy deny_all(bool dry_run = false) { return of(PolicyAction::kDeny, {}, dry_run); }
Policy allow_all(bool dry_run = false) { return of(PolicyAction::kAllow, {}, dry_run); }

/// For a pod with an address of each family.
Outcome outcome(std::vector<Policy> policies, std::vector<std::string> named = {}) {
  Workload server = pod("server", {"10.0.0.2", "fd00::2"});
  server.authorization_policies = std::move(named);
  const auto state = build({server}, {}, std::move(policies));
  return plaintext_outcome(*state, *state->workloads().front());
}

TEST(PlaintextOutcome, PassesWhereNothingIsAgainstIt) {
  EXPECT_EQ(outcome({}), Outcome::kPass);
  EXPECT_EQ(outcome({deny(client())}), Outcome::kPass) << "it has no identity that could be denied";
  EXPECT_EQ(outcome({allow_all()}), Outcome::kPass);
  EXPECT_EQ(outcome({allow(without_identity())}), Outcome::kPass);
  Policy empty = deny_all();
  empty.rules.clear();
  EXPECT_EQ(outcome({empty}), Outcome::kPass);
  EXPECT_EQ(outcome({deny(to("10.9.0.0/16"))}), Outcome::kPass) << "no address of the pod";
  Policy elsewhere = deny_all();
  elsewhere.namespace_name = "elsewhere";
  EXPECT_EQ(outcome({elsewhere}), Outcome::kPass);
}

TEST(PlaintextOutcome, DropsWhereNothingCanBeLetIn) {
  Policy strict = deny(without_identity());
  strict.namespace_name = "istio-system";
  strict.scope = PolicyScope::kGlobal;
  EXPECT_EQ(outcome({strict}), Outcome::kDrop);
  EXPECT_EQ(outcome({strict, allow_all()}), Outcome::kDrop);
  EXPECT_EQ(outcome({deny_all()}), Outcome::kDrop);
  EXPECT_EQ(outcome({allow(client())}), Outcome::kDrop) << "only who has an identity is let in";
  EXPECT_EQ(outcome({allow(client()), deny(port(9))}), Outcome::kDrop);
  EXPECT_EQ(outcome({deny(from("0.0.0.0/0")), deny(from("::/0"))}), Outcome::kDrop) << "each address by one of them";
}

TEST(PlaintextOutcome, ChecksWhatDependsOnTheConnection) {
  EXPECT_EQ(outcome({deny(port(80))}), Outcome::kCheck);
  EXPECT_EQ(outcome({deny(from("10.0.0.0/8"))}), Outcome::kCheck);
  EXPECT_EQ(outcome({allow(port(80))}), Outcome::kCheck);
  EXPECT_EQ(outcome({deny(to("10.0.0.2/32"))}), Outcome::kCheck) << "one family is denied";
  EXPECT_EQ(outcome({allow(from("0.0.0.0/0"))}), Outcome::kCheck) << "one family is allowed";
  // STRICT with an exception for a port.
  EXPECT_EQ(outcome({of(PolicyAction::kDeny, {{without_identity()}, {other_ports(9000)}})}), Outcome::kCheck);
}

TEST(PlaintextOutcome, ChecksWhatIsToBeReported) {
  EXPECT_EQ(outcome({}, {"ns/late"}), Outcome::kCheck);
  EXPECT_EQ(outcome({allow_all()}, {"ns/late"}), Outcome::kCheck);
  EXPECT_EQ(outcome({deny_all()}, {"ns/late"}), Outcome::kDrop) << "denied whatever it will say";
  EXPECT_EQ(outcome({deny(port(80), true)}), Outcome::kCheck);
  EXPECT_EQ(outcome({deny(client(), true)}), Outcome::kPass);
  EXPECT_EQ(outcome({allow(client(), true)}), Outcome::kCheck) << "it would be the first ALLOW and deny the rest";
  EXPECT_EQ(outcome({allow_all(true)}), Outcome::kPass);
  EXPECT_EQ(outcome({allow(client()), allow(port(80), true)}), Outcome::kCheck);
  EXPECT_EQ(outcome({deny_all(), allow_all(true)}), Outcome::kDrop);
}

TEST(PlaintextOutcome, OfOneInterfaceAsksForItsAddresses) {
  const auto state = build({pod("server", {"10.0.0.2"})}, {}, {deny(to("10.0.0.2"))});
  const Workload& server = *state->workloads().front();
  EXPECT_EQ(plaintext_outcome(*state, server), Outcome::kDrop);
  const std::vector further{ip("10.1.0.2")};
  EXPECT_EQ(plaintext_outcome(*state, server, further), Outcome::kPass);
}

/// Policies of few enough values that a handful of connections meets every case.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  Policy policy(int number) {
    Policy out;
    out.name = "p" + std::to_string(number);
    out.namespace_name = "ns";
    out.action = one_in(2) ? PolicyAction::kAllow : PolicyAction::kDeny;
    out.dry_run = one_in(4);
    for (auto r = random_() % 3; r > 0; --r) {
      auto& rule = out.rules.emplace_back();
      for (auto c = random_() % 3; c > 0; --c) {
        auto& clause = rule.emplace_back();
        for (auto m = random_() % 3; m > 0; --m) clause.push_back(match());
      }
    }
    return out;
  }
  bool one_in(unsigned n) { return random_() % n == 0; }

 private:
  PolicyMatch match() {
    const auto number = [this] { return static_cast<std::uint16_t>(80 + random_() % 2); };
    const auto cidr = [this](const char* a, const char* b) { return range(one_in(2) ? a : b); };
    PolicyMatch out;
    if (one_in(4)) out.destination_ports = {number()};
    if (one_in(4)) out.not_destination_ports = {number()};
    if (one_in(4)) out.source_ips = {cidr("10.0.0.0/25", "0.0.0.0/0"), cidr("::/0", "fd00::/65")};
    if (one_in(4)) out.not_source_ips = {cidr("10.0.0.128/25", "::/0")};
    if (one_in(5)) out.destination_ips = {cidr("10.0.0.2/32", "fd00::/16")};
    if (one_in(5)) out.not_destination_ips = {cidr("10.0.0.2/32", "10.9.0.0/16")};
    if (one_in(4)) out.principals = client().principals;
    if (one_in(4)) out.not_principals = without_identity().not_principals;
    if (one_in(8)) out.not_namespaces = {{StringMatch::Kind::kExact, "x"}};
    return out;
  }
  std::mt19937 random_;
};

TEST(PlaintextOutcome, NeverSaysOtherwiseThanEvaluate) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Generator generator(seed);
  int seen[3] = {};
  for (int round = 0; round < 5000; ++round) {
    std::vector<Policy> policies;
    for (int i = 0; i < round % 4; ++i) policies.push_back(generator.policy(i));
    Workload server = pod("server", {"10.0.0.2", "fd00::2"});
    if (generator.one_in(10)) server.authorization_policies = {"ns/late"};
    const auto state = build({server}, {}, std::move(policies));
    const Outcome said = plaintext_outcome(*state, *state->workloads().front());
    ++seen[static_cast<int>(said)];
    for (const auto& [source, destination] :
         {std::pair{"10.0.0.1", "10.0.0.2"}, std::pair{"10.0.0.200", "10.0.0.2"}, std::pair{"fd00::1", "fd00::2"},
          std::pair{"fd00:0:0:0:8000::1", "fd00::2"}}) {
      for (std::uint16_t to_port = 80; to_port <= 82; ++to_port) {
        const auto verdict =
            evaluate(*state, *state->workloads().front(), {{}, ip(source), {ip(destination), to_port}});
        if (said == Outcome::kPass) {
          ASSERT_TRUE(verdict.allowed && verdict.dry_run_hits.empty()) << "round " << round << ": " << verdict.reason;
        }
        if (said == Outcome::kDrop) {
          ASSERT_TRUE(!verdict.allowed && verdict.dry_run_hits.empty()) << "round " << round << ": " << verdict.reason;
        }
      }
    }
  }
  for (const int count : seen) EXPECT_GT(count, 200) << "the generated policies say too little";
}

TEST(PlaintextOutcome, ApplicationTunnelsThatTakePROXYHeadersAreLookedAt) {
  Workload waypoint = pod("waypoint", {"10.0.0.2"});
  waypoint.application_tunnel = ApplicationTunnel{ApplicationTunnel::Protocol::kNone, 15088};
  EXPECT_EQ(plaintext_outcome(*build({waypoint}), waypoint), Outcome::kPass);
  waypoint.application_tunnel->protocol = ApplicationTunnel::Protocol::kProxy;
  EXPECT_EQ(plaintext_outcome(*build({waypoint}), waypoint), Outcome::kCheck);
  const auto strict = of(PolicyAction::kDeny, {{without_identity()}});
  EXPECT_EQ(plaintext_outcome(*build({waypoint}, {}, {strict}), waypoint), Outcome::kDrop);
}

}  // namespace
}  // namespace weft::state::test
