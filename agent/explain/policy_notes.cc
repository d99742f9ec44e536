// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/policy_notes.h"

#include <algorithm>

namespace weft::agent {
namespace {

using state::Policy;
using state::PolicyAction;
using state::PolicyMatch;
using state::PolicyScope;
using state::Workload;
using Clause = std::vector<PolicyMatch>;
using Rule = std::vector<Clause>;

/// Empty matches are skipped: a clause that has no others cannot match. One without any matches does.
bool never_matches(const Clause& clause) {
  return !clause.empty() && std::ranges::all_of(clause, [](const PolicyMatch& match) { return match.empty(); });
}

bool never_matches(const Rule& rule) {
  return std::ranges::any_of(rule, [](const Clause& clause) { return never_matches(clause); });
}

bool always_matches(const Rule& rule) {
  return std::ranges::all_of(rule, [](const Clause& clause) { return clause.empty(); });
}

std::string consequence_of_never(const Policy& policy) {
  return policy.action == PolicyAction::kDeny ? "it denies nothing" : "it denies whatever no other policy allows";
}

void note_rules(const Policy& policy, std::vector<std::string>& notes) {
  if (policy.rules.empty()) {
    notes.push_back("has no rules and never matches: " + consequence_of_never(policy));
    return;
  }
  std::size_t dead = 0;
  for (std::size_t i = 0; i < policy.rules.size(); ++i) {
    const std::string rule = "rule " + std::to_string(i + 1);
    if (never_matches(policy.rules[i])) {
      ++dead;
      notes.push_back(rule + " has a clause of empty matches alone and never matches");
    } else if (always_matches(policy.rules[i])) {
      notes.push_back(rule + " asks for nothing and matches everything");
    }
  }
  if (dead == policy.rules.size()) notes.push_back("no rule can match: " + consequence_of_never(policy));
}

bool is_under(const Policy& policy, const Workload& workload) {
  if (std::ranges::find(workload.authorization_policies, policy.key()) != workload.authorization_policies.end()) {
    return true;
  }
  return policy.scope == PolicyScope::kGlobal ||
         (policy.scope == PolicyScope::kNamespace && policy.namespace_name == workload.namespace_name);
}

}  // namespace

std::size_t workloads_under(const state::State& state, const Policy& policy) {
  std::size_t count = 0;
  state.each_workload([&](const Workload& workload) { count += is_under(policy, workload) ? 1 : 0; });
  return count;
}

std::vector<std::string> policy_notes(const state::State& state, const Policy& policy) {
  std::vector<std::string> notes;
  if (policy.dry_run) notes.emplace_back("dry run: reported, never enforced");
  note_rules(policy, notes);
  if (workloads_under(state, policy) == 0) {
    notes.emplace_back(policy.scope == PolicyScope::kWorkloadSelector
                           ? "applies to nothing: no workload names it"
                           : "applies to nothing: there is no workload in its scope");
  }
  return notes;
}

std::map<std::string, std::vector<std::string>> unknown_policies(const state::State& state) {
  std::map<std::string, std::vector<std::string>> unknown;
  for (const auto& workload : state.workloads()) {
    for (const auto& key : workload->authorization_policies) {
      if (!state.policy_by_key(key)) unknown[key].push_back(workload->uid);
    }
  }
  return unknown;
}

}  // namespace weft::agent
