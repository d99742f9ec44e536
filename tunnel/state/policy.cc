// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/policy.h"

#include <algorithm>

#include "tunnel/state/state.h"

namespace weft::state {

bool StringMatch::matches(std::string_view text) const {
  switch (kind) {
    case Kind::kExact:
      return text == value;
    case Kind::kPrefix:
      return text.starts_with(value);
    case Kind::kSuffix:
      return text.ends_with(value);
    case Kind::kPresence:
      return !text.empty();
  }
  return false;
}

bool PolicyMatch::empty() const {
  return namespaces.empty() && not_namespaces.empty() && principals.empty() && not_principals.empty() &&
         service_accounts.empty() && not_service_accounts.empty() && source_ips.empty() && not_source_ips.empty() &&
         destination_ips.empty() && not_destination_ips.empty() && destination_ports.empty() &&
         not_destination_ports.empty();
}

namespace {

/// One kind of values with its not_ twin: some value of `wanted` must hold where there are any, and none of `unwanted`.
template <class Values, class Holds>
bool kind_matches(const Values& wanted, const Values& unwanted, Holds holds) {
  return (wanted.empty() || std::ranges::any_of(wanted, holds)) && std::ranges::none_of(unwanted, holds);
}

/// All kinds must agree. Without an identity nothing holds of it, so that the not_ twins match.
bool match_matches(const PolicyMatch& match, const PolicyContext& context) {
  const auto& identity = context.source_identity;
  const std::string principal = identity ? identity->to_principal() : std::string();
  const auto of_namespace = [&](const StringMatch& m) { return identity && m.matches(identity->namespace_name); };
  const auto of_principal = [&](const StringMatch& m) { return identity && m.matches(principal); };
  const auto of_account = [&](const ServiceAccountMatch& m) {
    return identity && m.namespace_name == identity->namespace_name && m.service_account == identity->service_account;
  };
  const auto of_source = [&](const Cidr& c) { return c.contains(context.source); };
  const auto of_destination = [&](const Cidr& c) { return c.contains(context.destination.address); };
  const auto of_port = [&](std::uint16_t p) { return p == context.destination.port; };
  return kind_matches(match.namespaces, match.not_namespaces, of_namespace) &&
         kind_matches(match.principals, match.not_principals, of_principal) &&
         kind_matches(match.service_accounts, match.not_service_accounts, of_account) &&
         kind_matches(match.source_ips, match.not_source_ips, of_source) &&
         kind_matches(match.destination_ips, match.not_destination_ips, of_destination) &&
         kind_matches(match.destination_ports, match.not_destination_ports, of_port);
}

/// An empty clause asks for nothing and matches. An empty match says nothing and is skipped, so a clause of only such
/// does not match.
bool clause_matches(const std::vector<PolicyMatch>& clause, const PolicyContext& context) {
  return clause.empty() ||
         std::ranges::any_of(clause, [&](const PolicyMatch& m) { return !m.empty() && match_matches(m, context); });
}

bool policy_matches(const Policy& policy, const PolicyContext& context) {
  return std::ranges::any_of(policy.rules, [&](const auto& rule) {
    return std::ranges::all_of(rule, [&](const auto& clause) { return clause_matches(clause, context); });
  });
}

/// The policies that apply to a workload, each once, and the first of its own list that is not known.
struct Applicable {
  std::vector<const Policy*> policies;
  std::string unknown;
};

Applicable applicable(const State& state, const Workload& destination) {
  Applicable out;
  const auto add = [&](const PolicyPtr& policy) {
    if (std::ranges::find(out.policies, policy.get()) == out.policies.end()) out.policies.push_back(policy.get());
  };
  std::ranges::for_each(state.global_policies(), add);
  std::ranges::for_each(state.namespace_policies(destination.namespace_name), add);
  for (const auto& key : destination.authorization_policies) {
    if (const auto policy = state.policy_by_key(key)) {
      add(policy);
    } else if (out.unknown.empty()) {
      out.unknown = key;
    }
  }
  return out;
}

/// The decision of the policies that are enforced.
PolicyVerdict enforce(const Applicable& applied, const PolicyContext& context) {
  bool any_allow = false;
  const Policy* allowed_by = nullptr;
  for (const Policy* policy : applied.policies) {
    if (policy->dry_run) continue;
    if (policy->action == PolicyAction::kAllow) {
      any_allow = true;
      if (allowed_by == nullptr && policy_matches(*policy, context)) allowed_by = policy;
    } else if (policy_matches(*policy, context)) {
      return {false, policy->key(), "denied by " + policy->key(), {}};
    }
  }
  if (!applied.unknown.empty()) {
    return {false,
            applied.unknown,
            "denied until policy " + applied.unknown + " arrives: the workload names it, it is not known yet",
            {}};
  }
  if (allowed_by != nullptr) return {true, allowed_by->key(), "allowed by " + allowed_by->key(), {}};
  if (any_allow) return {false, "", "no allow policy matched", {}};
  return {true, "", applied.policies.empty() ? "no policy applies" : "no deny policy matched", {}};
}

/// The dry-run policies that would have turned `verdict` around, had they been enforced.
std::vector<std::string> dry_run_hits(const Applicable& applied, const PolicyContext& context,
                                      const PolicyVerdict& verdict) {
  std::vector<std::string> denies, allows, silent_allows;
  bool enforced_allow = false;
  for (const Policy* policy : applied.policies) {
    const bool is_allow = policy->action == PolicyAction::kAllow;
    if (!policy->dry_run) {
      enforced_allow |= is_allow;
    } else if (policy_matches(*policy, context)) {
      (is_allow ? allows : denies).push_back(policy->key());
    } else if (is_allow) {
      silent_allows.push_back(policy->key());
    }
  }
  // Another ALLOW turns "no allow policy matched" around, unless a dry-run DENY would take it back. A denial by a
  // policy (then it is named) stands whatever is added.
  if (!verdict.allowed) return verdict.policy.empty() && denies.empty() ? allows : std::vector<std::string>();
  // Where nothing allows yet, an ALLOW that does not match would be the first of its kind and deny the rest.
  if (!enforced_allow && allows.empty()) denies.insert(denies.end(), silent_allows.begin(), silent_allows.end());
  return denies;
}

}  // namespace

PolicyVerdict evaluate(const State& state, const Workload& destination, const PolicyContext& context) {
  const Applicable applied = applicable(state, destination);
  PolicyVerdict verdict = enforce(applied, context);
  const auto is_dry_run = [](const Policy* policy) { return policy->dry_run; };
  if (std::ranges::any_of(applied.policies, is_dry_run)) verdict.dry_run_hits = dry_run_hits(applied, context, verdict);
  return verdict;
}

bool has_policies(const State& state, const Workload& destination) {
  return !state.global_policies().empty() || !state.namespace_policies(destination.namespace_name).empty() ||
         !destination.authorization_policies.empty();
}

}  // namespace weft::state
