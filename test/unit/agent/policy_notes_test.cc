// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/policy_notes.h"

#include <gmock/gmock.h>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using test::hbone_workload;
using test::ip;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

state::PolicyMatch port_8080() {
  state::PolicyMatch match;
  match.destination_ports = {8080};
  return match;
}

std::vector<std::string> notes_of(const state::Policy& policy, state::Workload workload = hbone_workload("web", {})) {
  return policy_notes(*test::state_of({std::move(workload)}, {policy}), policy);
}

state::Policy with_rules(decltype(state::Policy::rules) rules,
                         state::PolicyAction action = state::PolicyAction::kDeny) {
  auto policy = test::namespace_policy("p");
  policy.rules = std::move(rules);
  policy.action = action;
  return policy;
}

TEST(PolicyNotes, NothingToSayOfAPolicyThatDoesWhatItSeemsTo) {
  EXPECT_THAT(notes_of(with_rules({{{port_8080()}}})), IsEmpty());
}

TEST(PolicyNotes, WithoutRulesItNeverMatches) {
  EXPECT_THAT(notes_of(with_rules({})), ElementsAre("has no rules and never matches: it denies nothing"));
  EXPECT_THAT(notes_of(with_rules({}, state::PolicyAction::kAllow)),
              ElementsAre(HasSubstr("it denies whatever no other policy allows")));
}

TEST(PolicyNotes, EmptyMatchesNeverMatchAndEmptyClausesAlwaysDo) {
  EXPECT_THAT(notes_of(with_rules({{{port_8080()}}, {{port_8080()}, {{}, {}}}})),
              ElementsAre("rule 2 has a clause of empty matches alone and never matches"));
  EXPECT_THAT(notes_of(with_rules({{{{}}}})),
              ElementsAre(HasSubstr("rule 1 has a clause of empty"), "no rule can match: it denies nothing"));
  EXPECT_THAT(notes_of(with_rules({{{{}, port_8080()}}})), IsEmpty());
  EXPECT_THAT(notes_of(with_rules({{{}}})), ElementsAre("rule 1 asks for nothing and matches everything"));
  EXPECT_THAT(notes_of(with_rules({{}})), ElementsAre("rule 1 asks for nothing and matches everything"));
}

/// The notes say of rules what evaluate makes of them.
TEST(PolicyNotes, AgreeWithTheEvaluation) {
  const std::vector<std::vector<state::PolicyMatch>> clauses{{}, {{}}, {port_8080()}, {{}, port_8080()}};
  const auto workload = hbone_workload("web", {ip("10.0.0.5")});
  for (const auto& a : clauses) {
    for (const auto& b : clauses) {
      const auto policy = with_rules({{a, b}});
      const auto state = test::state_of({workload}, {policy});
      const auto denies = [&](std::uint16_t port) {
        return !evaluate(*state, workload, {{}, ip("10.0.0.9"), {ip("10.0.0.5"), port}}).allowed;
      };
      std::string notes;
      for (const auto& note : policy_notes(*state, policy)) notes += note + "\n";
      EXPECT_EQ(notes.find("matches everything") != std::string::npos, denies(8080) && denies(1));
      EXPECT_EQ(notes.find("never matches") != std::string::npos, !denies(8080) && !denies(1));
    }
  }
}

TEST(PolicyNotes, WhatAppliesToNothing) {
  auto policy = with_rules({{{port_8080()}}});
  policy.namespace_name = "empty";
  EXPECT_THAT(notes_of(policy), ElementsAre(HasSubstr("no workload in its scope")));
  policy.scope = state::PolicyScope::kWorkloadSelector;
  EXPECT_THAT(notes_of(policy), ElementsAre("applies to nothing: no workload names it"));
  auto workload = hbone_workload("web", {});
  workload.authorization_policies = {"empty/p"};
  EXPECT_THAT(notes_of(policy, workload), IsEmpty());
  policy.scope = state::PolicyScope::kGlobal;
  EXPECT_EQ(workloads_under(*test::state_of({workload}, {policy}), policy), 1U);
}

TEST(PolicyNotes, DryRun) {
  auto policy = with_rules({{{port_8080()}}});
  policy.dry_run = true;
  EXPECT_THAT(notes_of(policy), ElementsAre("dry run: reported, never enforced"));
}

TEST(PolicyNotes, PoliciesThatAreNotKnown) {
  auto workload = hbone_workload("web", {});
  workload.authorization_policies = {"shop/p", "shop/ghost"};
  EXPECT_THAT(unknown_policies(*test::state_of({workload}, {with_rules({})})),
              ElementsAre(Pair("shop/ghost", ElementsAre(workload.uid))));
}

}  // namespace
}  // namespace weft::agent
