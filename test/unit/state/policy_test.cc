// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

using Rules = std::vector<std::vector<std::vector<PolicyMatch>>>;

StringMatch exact(std::string value) { return {StringMatch::Kind::kExact, std::move(value)}; }
StringMatch prefix(std::string value) { return {StringMatch::Kind::kPrefix, std::move(value)}; }
StringMatch suffix(std::string value) { return {StringMatch::Kind::kSuffix, std::move(value)}; }
StringMatch presence() { return {StringMatch::Kind::kPresence, ""}; }

Policy policy(std::string name, PolicyAction action, Rules rules) {
  Policy out;
  out.name = std::move(name);
  out.namespace_name = "ns";
  out.action = action;
  out.rules = std::move(rules);
  return out;
}
Policy allow(Rules rules, std::string name = "allow") {
  return policy(std::move(name), PolicyAction::kAllow, std::move(rules));
}
Policy deny(Rules rules, std::string name = "deny") {
  return policy(std::move(name), PolicyAction::kDeny, std::move(rules));
}

/// One rule of one clause of one match.
Rules one(PolicyMatch match) { return {{{std::move(match)}}}; }
Rules everything() { return {{}}; }

PolicyMatch port(std::uint16_t number) {
  PolicyMatch out;
  out.destination_ports = {number};
  return out;
}

/// A connection of td/ns/client/sa/web from 10.0.0.1 to 10.0.0.2:80.
PolicyContext context() { return {Identity{"td", "client", "web"}, ip("10.0.0.1"), at("10.0.0.2:80")}; }
PolicyContext anonymous() {
  PolicyContext out = context();
  out.source_identity.reset();
  return out;
}

PolicyVerdict decide(std::vector<Policy> policies, const PolicyContext& c = context()) {
  const auto state = build({pod("server", {"10.0.0.2"})}, {}, std::move(policies));
  return evaluate(*state, *state->workloads().front(), c);
}

/// Whether one match matches the connection: an ALLOW with it alone lets it through.
bool matches(PolicyMatch match, const PolicyContext& c = context()) {
  return decide({allow(one(std::move(match)))}, c).allowed;
}

// ---- what is denied before all policies

TEST(PolicyDecision, PlaintextToAPortWherePROXYHeadersAreBelievedIsDenied) {
  Workload waypoint = pod("server", {"10.0.0.2"});
  waypoint.application_tunnel = ApplicationTunnel{ApplicationTunnel::Protocol::kProxy, 80};
  const auto verdict = [&](const PolicyContext& c) {
    return evaluate(*build({waypoint}, {}, {allow(everything())}), waypoint, c);
  };
  EXPECT_FALSE(verdict(anonymous()).allowed);
  EXPECT_EQ(verdict(anonymous()).rule(), "application_tunnel");
  EXPECT_THAT(verdict(anonymous()).reason, HasSubstr("port 80 is its application tunnel's"));
  EXPECT_TRUE(verdict(context()).allowed) << "by HBONE: the header is the agent's";
  waypoint.application_tunnel->port = 81;
  EXPECT_TRUE(verdict(anonymous()).allowed) << "another port";
  waypoint.application_tunnel->port.reset();
  EXPECT_FALSE(verdict(anonymous()).allowed) << "headers on all ports";
  waypoint.application_tunnel->protocol = ApplicationTunnel::Protocol::kNone;
  EXPECT_TRUE(verdict(anonymous()).allowed) << "no headers";
}

// ---- which decision follows from the policies

TEST(PolicyDecision, NoPolicyAllows) {
  const auto verdict = decide({});
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "");
  EXPECT_EQ(verdict.rule(), "none");
}

TEST(PolicyDecision, AnyDenyMatchDenies) {
  const auto verdict = decide({allow(everything()), deny(one(port(9)), "other"), deny(one(port(80)))});
  EXPECT_FALSE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "ns/deny");
  EXPECT_EQ(verdict.reason, "denied by ns/deny");
  EXPECT_EQ(verdict.rule(), "ns/deny");
}

TEST(PolicyDecision, NoAllowPolicyAllows) {
  const auto verdict = decide({deny(one(port(9)))});
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "");
}

TEST(PolicyDecision, AnyAllowMatchAllows) {
  const auto verdict = decide({allow(one(port(9)), "other"), allow(one(port(80)))});
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "ns/allow");
  EXPECT_EQ(verdict.reason, "allowed by ns/allow");
}

TEST(PolicyDecision, WithoutAnAllowMatchAllowPoliciesDeny) {
  const auto verdict = decide({allow(one(port(9)))});
  EXPECT_FALSE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "");
  EXPECT_EQ(verdict.reason, "no allow policy matched");
  EXPECT_EQ(verdict.rule(), "no_allow_matched");
}

// ---- which policies apply

TEST(PolicyScopes, GlobalAppliesEverywhere) {
  Policy global = deny(everything());
  global.namespace_name = "istio-system";
  global.scope = PolicyScope::kGlobal;
  EXPECT_EQ(decide({global}).policy, "istio-system/deny");
}

TEST(PolicyScopes, NamespaceAppliesToItsOwnOnly) {
  Policy elsewhere = deny(everything());
  elsewhere.namespace_name = "elsewhere";
  EXPECT_TRUE(decide({elsewhere}).allowed);
  EXPECT_FALSE(decide({deny(everything())}).allowed);
}

TEST(PolicyScopes, SelectorAppliesWhereTheWorkloadNamesIt) {
  Policy selected = deny(everything());
  selected.scope = PolicyScope::kWorkloadSelector;
  Workload naming = pod("naming", {"10.0.0.2"});
  naming.authorization_policies = {"ns/deny"};
  const auto state = build({naming, pod("other", {"10.0.0.3"})}, {}, {selected});
  EXPECT_FALSE(evaluate(*state, *state->workload_by_pod("ns", "naming"), context()).allowed);
  EXPECT_TRUE(evaluate(*state, *state->workload_by_pod("ns", "other"), context()).allowed);
}

TEST(PolicyScopes, APolicyReachedTwiceCountsOnce) {
  Workload naming = pod("naming", {"10.0.0.2"});
  naming.authorization_policies = {"ns/deny"};
  Policy dry = deny(everything());
  dry.dry_run = true;
  const auto state = build({naming}, {}, {dry});
  EXPECT_THAT(evaluate(*state, *state->workloads()[0], context()).dry_run_hits, ElementsAre("ns/deny"));
}

TEST(PolicyScopes, AnUnknownPolicyDeniesUntilItArrives) {
  Workload naming = pod("naming", {"10.0.0.2"});
  naming.authorization_policies = {"ns/late"};
  auto state = build({naming}, {}, {allow(everything())});
  const auto verdict = evaluate(*state, *state->workloads()[0], context());
  EXPECT_FALSE(verdict.allowed);
  EXPECT_EQ(verdict.policy, "ns/late");
  EXPECT_THAT(verdict.reason, HasSubstr("not known yet"));
  Policy late = deny(one(port(9)), "late");
  late.scope = PolicyScope::kWorkloadSelector;
  state = build({naming}, {}, {allow(everything()), late});
  EXPECT_TRUE(evaluate(*state, *state->workloads()[0], context()).allowed);
}

// ---- rules, clauses, matches

TEST(PolicyStructure, NoRulesNeverMatch) {
  EXPECT_TRUE(decide({deny({})}).allowed);
  EXPECT_FALSE(decide({allow({})}).allowed);
}

TEST(PolicyStructure, RulesAreOred) { EXPECT_TRUE(decide({allow({{{port(9)}}, {{port(80)}}})}).allowed); }

TEST(PolicyStructure, ClausesAreAnded) {
  EXPECT_FALSE(decide({allow({{{port(80)}, {port(9)}}})}).allowed);
  EXPECT_TRUE(decide({allow({{{port(80)}, {port(80)}}})}).allowed);
}

TEST(PolicyStructure, MatchesAreOred) { EXPECT_TRUE(decide({allow({{{port(9), port(80)}}})}).allowed); }

TEST(PolicyStructure, ARuleWithoutClausesMatches) { EXPECT_FALSE(decide({deny(everything())}).allowed); }

TEST(PolicyStructure, AnEmptyClauseMatches) {
  EXPECT_FALSE(decide({deny({{{}}})}).allowed);
  EXPECT_TRUE(decide({deny({{{}, {port(9)}}})}).allowed);
}

TEST(PolicyStructure, AnEmptyMatchIsSkipped) {
  EXPECT_FALSE(decide({deny({{{PolicyMatch{}, port(80)}}})}).allowed);
  EXPECT_TRUE(decide({deny({{{PolicyMatch{}, port(9)}}})}).allowed);
}

TEST(PolicyStructure, AClauseOfOnlyEmptyMatchesDoesNotMatch) {
  EXPECT_TRUE(decide({deny({{{PolicyMatch{}}}})}).allowed);
  EXPECT_FALSE(decide({allow({{{PolicyMatch{}, PolicyMatch{}}}})}).allowed);
}

TEST(PolicyStructure, KindsAreAnded) {
  PolicyMatch match = port(80);
  match.namespaces = {exact("client")};
  EXPECT_TRUE(matches(match));
  match.source_ips = {range("192.168.0.0/16")};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyStructure, ValuesAreOred) {
  PolicyMatch match;
  match.destination_ports = {9, 80};
  EXPECT_TRUE(matches(match));
}

TEST(PolicyStructure, ANotTwinExcludes) {
  PolicyMatch match;
  match.destination_ports = {80};
  match.not_source_ips = {range("10.0.0.0/24")};
  EXPECT_FALSE(matches(match));
  match.not_source_ips = {range("10.0.9.0/24")};
  EXPECT_TRUE(matches(match));
}

TEST(PolicyStructure, ANotTwinExcludesWithAnyOfItsValues) {
  PolicyMatch match;
  match.not_destination_ports = {9, 80};
  EXPECT_FALSE(matches(match));
  match.not_destination_ports = {9, 10};
  EXPECT_TRUE(matches(match));
}

// ---- the kinds

TEST(PolicyKinds, StringMatch) {
  EXPECT_TRUE(exact("abc").matches("abc"));
  EXPECT_FALSE(exact("abc").matches("abcd"));
  EXPECT_TRUE(prefix("ab").matches("abc"));
  EXPECT_FALSE(prefix("bc").matches("abc"));
  EXPECT_TRUE(suffix("bc").matches("abc"));
  EXPECT_FALSE(suffix("ab").matches("abc"));
  EXPECT_TRUE(presence().matches("x"));
  EXPECT_FALSE(presence().matches(""));
}

TEST(PolicyKinds, PrincipalsAreComparedWithoutScheme) {
  PolicyMatch match;
  match.principals = {exact("td/ns/client/sa/web")};
  EXPECT_TRUE(matches(match));
  match.principals = {exact("spiffe://td/ns/client/sa/web")};
  EXPECT_FALSE(matches(match));
  match.principals = {prefix("td/ns/client/")};
  EXPECT_TRUE(matches(match));
  match.principals = {suffix("/sa/web")};
  EXPECT_TRUE(matches(match));
  match.principals = {prefix("spiffe://")};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyKinds, Namespaces) {
  PolicyMatch match;
  match.namespaces = {exact("other"), exact("client")};
  EXPECT_TRUE(matches(match));
  match.not_namespaces = {prefix("cli")};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyKinds, ServiceAccounts) {
  PolicyMatch match;
  match.service_accounts = {{"client", "web"}};
  EXPECT_TRUE(matches(match));
  match.service_accounts = {{"other", "web"}, {"client", "db"}};
  EXPECT_FALSE(matches(match));
  match.service_accounts.clear();
  match.not_service_accounts = {{"client", "web"}};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyKinds, SourceIps) {
  PolicyMatch match;
  match.source_ips = {range("10.0.0.1/32")};
  EXPECT_TRUE(matches(match));
  match.source_ips = {range("10.0.0.2/32")};
  EXPECT_FALSE(matches(match));
  match.source_ips = {range("::/0")};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyKinds, DestinationIps) {
  PolicyMatch match;
  match.destination_ips = {range("10.0.0.2")};
  EXPECT_TRUE(matches(match));
  match.destination_ips.clear();
  match.not_destination_ips = {range("10.0.0.0/8")};
  EXPECT_FALSE(matches(match));
}

TEST(PolicyKinds, DestinationPorts) {
  EXPECT_TRUE(matches(port(80)));
  EXPECT_FALSE(matches(port(81)));
}

TEST(PolicyKinds, Ipv6) {
  PolicyContext c = context();
  c.source = ip("2001:db8::7");
  PolicyMatch match;
  match.source_ips = {range("2001:db8::/64")};
  EXPECT_TRUE(matches(match, c));
  match.source_ips = {range("2001:db9::/64"), range("0.0.0.0/0")};
  EXPECT_FALSE(matches(match, c));
}

// ---- without an identity

TEST(PolicyWithoutIdentity, PrincipalsDoNotMatch) {
  PolicyMatch match;
  for (const auto& value : {presence(), prefix(""), suffix(""), exact("")}) {
    match.principals = {value};
    EXPECT_FALSE(matches(match, anonymous()));
  }
}

TEST(PolicyWithoutIdentity, NotPrincipalsMatch) {
  PolicyMatch match;
  match.not_principals = {presence()};
  EXPECT_TRUE(matches(match, anonymous()));
  EXPECT_FALSE(matches(match));
}

TEST(PolicyWithoutIdentity, NamespacesDoNotMatchAndNotNamespacesDo) {
  PolicyMatch match;
  match.namespaces = {prefix("")};
  EXPECT_FALSE(matches(match, anonymous()));
  match.namespaces.clear();
  match.not_namespaces = {exact("client")};
  EXPECT_TRUE(matches(match, anonymous()));
  EXPECT_FALSE(matches(match));
}

TEST(PolicyWithoutIdentity, ServiceAccountsDoNotMatchAndNotServiceAccountsDo) {
  PolicyMatch match;
  match.service_accounts = {{"client", "web"}};
  EXPECT_FALSE(matches(match, anonymous()));
  match.service_accounts.clear();
  match.not_service_accounts = {{"client", "web"}};
  EXPECT_TRUE(matches(match, anonymous()));
}

/// What istiod makes of PeerAuthentication STRICT.
TEST(PolicyWithoutIdentity, StrictDeniesPlaintextAndLetsIdentitiesThrough) {
  PolicyMatch match;
  match.not_principals = {presence()};
  Policy strict = deny(one(match), "istio_converted_static_strict");
  strict.namespace_name = "istio-system";
  strict.scope = PolicyScope::kGlobal;
  EXPECT_EQ(decide({strict}, anonymous()).policy, "istio-system/istio_converted_static_strict");
  EXPECT_TRUE(decide({strict}).allowed);
}

// ---- dry run

Policy dry(Policy p) {
  p.dry_run = true;
  return p;
}

TEST(PolicyDryRun, ADenyIsReportedNotEnforced) {
  const auto verdict = decide({dry(deny(everything()))});
  EXPECT_TRUE(verdict.allowed);
  EXPECT_THAT(verdict.dry_run_hits, ElementsAre("ns/deny"));
}

TEST(PolicyDryRun, AnAllowIsNoAllow) {
  const auto verdict = decide({dry(allow(one(port(9))))});
  EXPECT_TRUE(verdict.allowed) << "a dry-run ALLOW must not deny the rest";
  EXPECT_THAT(verdict.dry_run_hits, ElementsAre("ns/allow"));
}

TEST(PolicyDryRun, AnAllowThatMatchesDecidesNothing) {
  const auto verdict = decide({allow(one(port(9)), "enforced"), dry(allow(everything()))});
  EXPECT_FALSE(verdict.allowed) << "a dry-run ALLOW must not allow";
  EXPECT_THAT(verdict.dry_run_hits, ElementsAre("ns/allow"));
}

TEST(PolicyDryRun, WhatWouldDecideTheSameIsNotReported) {
  EXPECT_THAT(decide({dry(deny(one(port(9))))}).dry_run_hits, IsEmpty());
  EXPECT_THAT(decide({deny(everything()), dry(deny(everything(), "dry"))}).dry_run_hits, IsEmpty());
  EXPECT_THAT(decide({deny(everything()), dry(allow(everything()))}).dry_run_hits, IsEmpty());
  EXPECT_THAT(decide({dry(allow(everything()))}).dry_run_hits, IsEmpty());
  EXPECT_THAT(decide({allow(everything()), dry(allow(one(port(9)), "dry"))}).dry_run_hits, IsEmpty());
}

TEST(PolicyDryRun, AllThatWouldTurnItAreNamed) {
  EXPECT_THAT(decide({dry(deny(everything(), "a")), dry(deny(everything(), "b"))}).dry_run_hits,
              UnorderedElementsAre("ns/a", "ns/b"));
}

}  // namespace
}  // namespace weft::state::test
