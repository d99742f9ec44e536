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

/// Whether something holds of every connection in question, of none, or of some: in this order, so that AND is the
/// least and OR the greatest. Of one whole connection nothing is "maybe".
enum class Truth : std::uint8_t { kNever, kMaybe, kAlways };

Truth truth(bool holds) { return holds ? Truth::kAlways : Truth::kNever; }

Truth negated(Truth t) { return t == Truth::kMaybe ? t : truth(t == Truth::kNever); }

template <class Values, class Holds>
Truth any_of(const Values& values, Holds holds) {
  Truth any = Truth::kNever;
  for (auto it = values.begin(); it != values.end() && any != Truth::kAlways; ++it) any = std::max(any, holds(*it));
  return any;
}

template <class Values, class Holds>
Truth all_of(const Values& values, Holds holds) {
  Truth all = Truth::kAlways;
  for (auto it = values.begin(); it != values.end() && all != Truth::kNever; ++it) all = std::min(all, holds(*it));
  return all;
}

/// What is known of the connections in question: all of it of one that is there, the destination's address alone of
/// those to come. The absence of an identity is known.
struct Facts {
  const Identity* identity = nullptr;
  const IpAddress* source = nullptr;  ///< null: any of the destination's family
  IpAddress destination;
  std::optional<std::uint16_t> port;
};

Facts facts_of(const PolicyContext& context) {
  return {.identity = context.source_identity ? &*context.source_identity : nullptr,
          .source = &context.source,
          .destination = context.destination.address,
          .port = context.destination.port};
}

/// One kind of values with its not_ twin: some value of `wanted` must hold where there are any, and none of `unwanted`.
template <class Values, class Holds>
Truth kind_matches(const Values& wanted, const Values& unwanted, Holds holds) {
  const Truth is_wanted = wanted.empty() ? Truth::kAlways : any_of(wanted, holds);
  return is_wanted == Truth::kNever ? is_wanted : std::min(is_wanted, negated(any_of(unwanted, holds)));
}

/// The kinds that ask who it is. Without an identity nothing holds of it, so that the not_ twins match.
Truth identity_matches(const PolicyMatch& match, const Identity* identity) {
  const bool asks_principal = !match.principals.empty() || !match.not_principals.empty();
  const std::string principal = identity != nullptr && asks_principal ? identity->to_principal() : std::string();
  const auto of_namespace = [&](const StringMatch& m) {
    return truth(identity != nullptr && m.matches(identity->namespace_name));
  };
  const auto of_principal = [&](const StringMatch& m) { return truth(identity != nullptr && m.matches(principal)); };
  const auto of_account = [&](const ServiceAccountMatch& m) {
    return truth(identity != nullptr && m.namespace_name == identity->namespace_name &&
                 m.service_account == identity->service_account);
  };
  return std::min({kind_matches(match.namespaces, match.not_namespaces, of_namespace),
                   kind_matches(match.principals, match.not_principals, of_principal),
                   kind_matches(match.service_accounts, match.not_service_accounts, of_account)});
}

Truth source_in(const Cidr& range, const Facts& facts) {
  if (facts.source != nullptr) return truth(range.contains(*facts.source));
  if (range.address.is_v4() != facts.destination.is_v4()) return Truth::kNever;
  return range.length == 0 ? Truth::kAlways : Truth::kMaybe;
}

/// All kinds must agree.
Truth match_matches(const PolicyMatch& match, const Facts& facts) {
  const auto of_source = [&](const Cidr& c) { return source_in(c, facts); };
  const auto of_destination = [&](const Cidr& c) { return truth(c.contains(facts.destination)); };
  const auto of_port = [&](std::uint16_t p) { return facts.port ? truth(p == *facts.port) : Truth::kMaybe; };
  return std::min({identity_matches(match, facts.identity),
                   kind_matches(match.source_ips, match.not_source_ips, of_source),
                   kind_matches(match.destination_ips, match.not_destination_ips, of_destination),
                   kind_matches(match.destination_ports, match.not_destination_ports, of_port)});
}

/// An empty clause asks for nothing and matches. An empty match says nothing and is skipped, so a clause of only such
/// does not match.
Truth clause_matches(const std::vector<PolicyMatch>& clause, const Facts& facts) {
  if (clause.empty()) return Truth::kAlways;
  return any_of(clause, [&](const PolicyMatch& m) { return m.empty() ? Truth::kNever : match_matches(m, facts); });
}

Truth policy_matches(const Policy& policy, const Facts& facts) {
  return any_of(policy.rules, [&](const auto& rule) {
    return all_of(rule, [&](const auto& clause) { return clause_matches(clause, facts); });
  });
}

/// The same of one connection.
bool policy_matches(const Policy& policy, const PolicyContext& context) {
  return policy_matches(policy, facts_of(context)) == Truth::kAlways;
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

/// How the policies of one action, enforced or dry-run, match.
struct Matches {
  bool any = false;           ///< there is one
  Truth one = Truth::kNever;  ///< some of them matches
};

Matches matches_of(const Applicable& applied, PolicyAction action, bool dry_run, const Facts& facts) {
  Matches out;
  for (const Policy* policy : applied.policies) {
    if (policy->action != action || policy->dry_run != dry_run) continue;
    out.any = true;
    out.one = std::max(out.one, policy_matches(*policy, facts));
  }
  return out;
}

/// The outcome for connections to one address. Where dry_run_hits might have something to say of one of them, somebody
/// must look.
PlaintextOutcome outcome_of(const Applicable& applied, const Facts& facts) {
  const Matches deny = matches_of(applied, PolicyAction::kDeny, false, facts);
  if (deny.one == Truth::kAlways) return PlaintextOutcome::kDrop;
  if (!applied.unknown.empty()) return PlaintextOutcome::kCheck;
  const Matches allow = matches_of(applied, PolicyAction::kAllow, false, facts);
  const Matches dry_allow = matches_of(applied, PolicyAction::kAllow, true, facts);
  if (allow.any && allow.one == Truth::kNever) {
    return dry_allow.one == Truth::kNever ? PlaintextOutcome::kDrop : PlaintextOutcome::kCheck;
  }
  const bool allowed = deny.one == Truth::kNever && (!allow.any || allow.one == Truth::kAlways);
  if (!allowed) return PlaintextOutcome::kCheck;
  const Matches dry_deny = matches_of(applied, PolicyAction::kDeny, true, facts);
  const bool first_allow_hits = !allow.any && dry_allow.any && dry_allow.one != Truth::kAlways;
  return dry_deny.one == Truth::kNever && !first_allow_hits ? PlaintextOutcome::kPass : PlaintextOutcome::kCheck;
}

}  // namespace

std::string PolicyVerdict::rule() const {
  if (!policy.empty()) return policy;
  if (forged) return "application_tunnel";
  return allowed ? "none" : "no_allow_matched";
}

PolicyVerdict evaluate(const State& state, const Workload& destination, const PolicyContext& context) {
  if (!context.source_identity && destination.takes_proxy_headers(context.destination.port)) {
    PolicyVerdict verdict;
    verdict.allowed = false;
    verdict.forged = true;
    verdict.reason = "port " + std::to_string(context.destination.port) +
                     " is its application tunnel's, where PROXY headers are believed: nothing but HBONE leads there";
    return verdict;
  }
  const Applicable applied = applicable(state, destination);
  PolicyVerdict verdict = enforce(applied, context);
  const auto is_dry_run = [](const Policy* policy) { return policy->dry_run; };
  if (std::ranges::any_of(applied.policies, is_dry_run)) verdict.dry_run_hits = dry_run_hits(applied, context, verdict);
  return verdict;
}

namespace {

PlaintextOutcome by_policies(const State& state, const Workload& destination, std::span<const IpAddress> addresses) {
  const Applicable applied = applicable(state, destination);
  if (applied.policies.empty() && applied.unknown.empty()) return PlaintextOutcome::kPass;
  std::optional<PlaintextOutcome> common;
  for (const IpAddress& address : addresses) {
    const PlaintextOutcome outcome = outcome_of(applied, {.destination = address, .port = {}});
    if (common.value_or(outcome) != outcome) return PlaintextOutcome::kCheck;
    common = outcome;
  }
  return common.value_or(PlaintextOutcome::kCheck);
}

}  // namespace

PlaintextOutcome plaintext_outcome(const State& state, const Workload& destination,
                                   std::span<const IpAddress> addresses) {
  const PlaintextOutcome outcome = by_policies(state, destination, addresses);
  // Its tunnel's port is looked at, the others are not known here.
  return outcome == PlaintextOutcome::kPass && destination.takes_proxy_headers() ? PlaintextOutcome::kCheck : outcome;
}

PlaintextOutcome plaintext_outcome(const State& state, const Workload& destination) {
  return plaintext_outcome(state, destination, destination.addresses);
}

}  // namespace weft::state
