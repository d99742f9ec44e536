// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "agent/control/xds_convert.h"

namespace weft::control {
namespace {

namespace security = istio::security;
using state::PolicyMatch;
using state::StringMatch;

/// Values are kept byte for byte: what is odd in them matches nothing, or all but nothing under a not_.
template <class Wire>
Result<std::vector<StringMatch>> to_strings(const std::string& field, const Wire& from) {
  std::vector<StringMatch> out;
  for (const auto& match : from) {
    switch (match.match_type_case()) {
      case security::StringMatch::kExact:
        out.push_back({StringMatch::Kind::kExact, match.exact()});
        break;
      case security::StringMatch::kPrefix:
        out.push_back({StringMatch::Kind::kPrefix, match.prefix()});
        break;
      case security::StringMatch::kSuffix:
        out.push_back({StringMatch::Kind::kSuffix, match.suffix()});
        break;
      case security::StringMatch::kPresence:
        out.push_back({StringMatch::Kind::kPresence, ""});
        break;
      default:
        return bad_field(field, "expected exact, prefix, suffix or presence");
    }
  }
  return out;
}

template <class Wire>
Result<std::vector<Cidr>> to_ranges(const std::string& field, const Wire& from) {
  std::vector<Cidr> out;
  for (const auto& range : from) {
    const auto address = to_ip(range.address());
    if (!address) return bad_field(field, address.error().context);
    const std::uint32_t whole = address->is_v4() ? 32 : 128;
    if (range.length() > whole)
      return bad_field(field,
                       "length " + std::to_string(range.length()) + ": expected at most " + std::to_string(whole));
    out.push_back(Cidr::of(*address, static_cast<std::uint8_t>(range.length())));
  }
  return out;
}

template <class Wire>
Result<std::vector<std::uint16_t>> to_ports(const std::string& field, const Wire& from) {
  std::vector<std::uint16_t> out;
  for (const std::uint32_t port : from) {
    if (port > std::numeric_limits<std::uint16_t>::max())
      return bad_field(field, std::to_string(port) + ": expected a port, 0 to 65535");
    out.push_back(static_cast<std::uint16_t>(port));
  }
  return out;
}

template <class Wire>
Result<std::vector<state::ServiceAccountMatch>> to_accounts(const std::string& field, const Wire& from) {
  std::vector<state::ServiceAccountMatch> out;
  for (const auto& account : from) {
    if (account.namespace_().empty() || account.service_account().empty())
      return bad_field(field, "expected a namespace and a service account");
    out.push_back({account.namespace_(), account.service_account()});
  }
  return out;
}

/// Puts a value where it belongs, or the error where there is none.
template <class T>
void place(Result<T> value, T& into, Result<void>& first_error) {
  if (value) {
    into = std::move(*value);
  } else if (first_error) {
    first_error = Failure(value.error());
  }
}

Result<PolicyMatch> to_match(const security::Match& from) {
  PolicyMatch out;
  Result<void> ok;
  place(to_strings("namespaces", from.namespaces()), out.namespaces, ok);
  place(to_strings("not_namespaces", from.not_namespaces()), out.not_namespaces, ok);
  place(to_strings("principals", from.principals()), out.principals, ok);
  place(to_strings("not_principals", from.not_principals()), out.not_principals, ok);
  place(to_accounts("service_accounts", from.service_accounts()), out.service_accounts, ok);
  place(to_accounts("not_service_accounts", from.not_service_accounts()), out.not_service_accounts, ok);
  place(to_ranges("source_ips", from.source_ips()), out.source_ips, ok);
  place(to_ranges("not_source_ips", from.not_source_ips()), out.not_source_ips, ok);
  place(to_ranges("destination_ips", from.destination_ips()), out.destination_ips, ok);
  place(to_ranges("not_destination_ips", from.not_destination_ips()), out.not_destination_ips, ok);
  place(to_ports("destination_ports", from.destination_ports()), out.destination_ports, ok);
  place(to_ports("not_destination_ports", from.not_destination_ports()), out.not_destination_ports, ok);
  if (!ok) return Failure(ok.error());
  return out;
}

/// All but the rules.
Result<state::Policy> to_head(const security::Authorization& from) {
  state::Policy out;
  for (const auto& [field, value] : {std::pair{"name", &from.name()}, {"namespace", &from.namespace_()}}) {
    if (value->empty()) return bad_field(field, "missing");
    if (value->find('/') != std::string::npos)
      return bad_field(field, in_quotes(*value) + ": expected a name without a slash");
  }
  out.name = from.name();
  out.namespace_name = from.namespace_();
  out.dry_run = from.dry_run();
  switch (from.scope()) {
    case security::SCOPE_GLOBAL:
      out.scope = state::PolicyScope::kGlobal;
      break;
    case security::SCOPE_NAMESPACE:
      out.scope = state::PolicyScope::kNamespace;
      break;
    case security::SCOPE_WORKLOAD_SELECTOR:
      out.scope = state::PolicyScope::kWorkloadSelector;
      break;
    default:
      return bad_field("scope", std::to_string(from.scope()) + " is unknown to this version of the agent");
  }
  switch (from.action()) {
    case security::ACTION_ALLOW:
      out.action = state::PolicyAction::kAllow;
      break;
    case security::ACTION_DENY:
      out.action = state::PolicyAction::kDeny;
      break;
    default:
      return bad_field("action", std::to_string(from.action()) + " is unknown to this version of the agent");
  }
  return out;
}

}  // namespace

Result<state::Policy> to_policy(const security::Authorization& from) {
  auto out = to_head(from);
  if (!out) return out;
  for (const auto& group : from.groups()) {
    auto& clauses = out->rules.emplace_back();
    for (const auto& rules : group.rules()) {
      auto& matches = clauses.emplace_back();
      for (const auto& match : rules.matches()) {
        auto read = to_match(match);
        if (!read) return Failure(read.error());
        matches.push_back(std::move(*read));
      }
    }
  }
  return out;
}

std::optional<state::Policy> closed_policy(const security::Authorization& from) {
  auto head = to_head(from);
  if (!head || head->dry_run || head->scope == state::PolicyScope::kWorkloadSelector) return std::nullopt;
  head->action = state::PolicyAction::kDeny;
  head->rules.emplace_back().emplace_back();  // one rule with one clause, which asks for nothing
  return std::move(*head);
}

}  // namespace weft::control
