// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cctype>

#include "agent/control/local_parts.h"

namespace weft::control {
namespace {

using state::PolicyMatch;
using state::StringMatch;

/// Without case, "_", "-" and a "not" before it: files spell fields in many ways.
std::string plain_name(std::string_view field) {
  std::string out;
  for (const char c : field) {
    if (c != '_' && c != '-') out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return out.starts_with("not") ? out.substr(3) : out;
}

/// What stands in policies elsewhere and cannot stand here.
std::string policy_hint(std::string_view field) {
  constexpr std::array<std::string_view, 14> kL7{
      "methods",           "method",         "paths", "path",   "hosts",      "host",       "headers",
      "requestprincipals", "requestheaders", "when",  "claims", "conditions", "targetrefs", "remoteipblocks"};
  const std::string name = plain_name(field);
  if (std::ranges::find(kL7, name) != kL7.end()) {
    return "an L7 rule, which L4 cannot decide: it needs a waypoint (leave the whole rule out here: "
           "without this field it would match more)";
  }
  constexpr std::array<std::pair<std::string_view, const char*>, 6> kSpellings{
      {{"ports", "destinationPorts"},
       {"port", "destinationPorts"},
       {"ipblocks", "sourceIps"},
       {"from", "rules: a list of lists of lists of matches"},
       {"to", "rules: a list of lists of lists of matches"},
       {"selector", "scope WorkloadSelector and the workloads' authorizationPolicies"}}};
  for (const auto& [spelling, instead] : kSpellings) {
    if (name == spelling) return std::string("unknown field: expected ") + instead;
  }
  return "";
}

/// {Exact: "x"}, {Prefix: "x"}, {Suffix: "x"} or {Presence: []}; also !Exact "x" and so on, which is how ztunnel reads
/// it.
StringMatch read_string_match(Problems& problems, const Field& field) {
  const char* const kForms = "one of {Exact: TEXT}, {Prefix: TEXT}, {Suffix: TEXT}, {Presence: []}";
  StringMatch out;
  if (field.node->kind != YamlNode::Kind::kMap || field.node->entries.size() != 1) {
    expected(problems, field, kForms);
    return out;
  }
  const auto& [key, value] = field.node->entries.front();
  const Field inner{value, field.name + "." + key->scalar.substr(0, 16)};
  if (!problems.step(*value)) return out;
  if (key->scalar == "Presence") {
    out.kind = StringMatch::Kind::kPresence;
    const bool empty_list = value->kind == YamlNode::Kind::kSequence && value->items.empty();
    if (!empty_list && value->kind != YamlNode::Kind::kNull) expected(problems, inner, "[]");
    return out;
  }
  if (key->scalar == "Exact") {
    out.kind = StringMatch::Kind::kExact;
  } else if (key->scalar == "Prefix") {
    out.kind = StringMatch::Kind::kPrefix;
  } else if (key->scalar == "Suffix") {
    out.kind = StringMatch::Kind::kSuffix;
  } else {
    expected(problems, field, kForms);
  }
  out.value = read_string(problems, inner);
  return out;
}

std::vector<StringMatch> read_string_matches(Problems& problems, const std::vector<Field>& fields) {
  std::vector<StringMatch> out;
  for (const auto& field : fields) out.push_back(read_string_match(problems, field));
  return out;
}

/// Principals are compared without their scheme: a value with it would never match, and a DENY never deny.
std::vector<StringMatch> read_principals(Problems& problems, const std::vector<Field>& fields) {
  auto out = read_string_matches(problems, fields);
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i].kind == StringMatch::Kind::kSuffix || !out[i].value.starts_with("spiffe:")) continue;
    problems.add(fields[i].node->line, fields[i].name,
                 "\"" + out[i].value.substr(0, 80) +
                     "\": expected TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT without spiffe://");
  }
  return out;
}

std::vector<state::ServiceAccountMatch> read_accounts(Problems& problems, const std::vector<Field>& fields) {
  std::vector<state::ServiceAccountMatch> out;
  for (const auto& field : fields) {
    ObjectReader object(problems, field);
    out.push_back({read_namespace(object), object.required_text("serviceAccount")});
    object.done();
  }
  return out;
}

std::vector<Cidr> read_ranges(Problems& problems, const std::vector<Field>& fields) {
  std::vector<Cidr> out;
  for (const auto& field : fields) {
    const auto range = Cidr::parse(read_string(problems, field));
    if (range) {
      out.push_back(*range);
    } else {
      expected(problems, field, "an address or address/length");
    }
  }
  return out;
}

std::vector<std::uint16_t> read_port_list(Problems& problems, const std::vector<Field>& fields) {
  std::vector<std::uint16_t> out;
  for (const auto& field : fields) out.push_back(read_port(problems, field));
  return out;
}

PolicyMatch read_match(Problems& problems, const Field& field) {
  PolicyMatch out;
  ObjectReader object(problems, field);
  out.namespaces = read_string_matches(problems, object.list("namespaces"));
  out.not_namespaces = read_string_matches(problems, object.list("notNamespaces"));
  out.principals = read_principals(problems, object.list("principals"));
  out.not_principals = read_principals(problems, object.list("notPrincipals"));
  out.service_accounts = read_accounts(problems, object.list("serviceAccounts"));
  out.not_service_accounts = read_accounts(problems, object.list("notServiceAccounts"));
  out.source_ips = read_ranges(problems, object.list("sourceIps"));
  out.not_source_ips = read_ranges(problems, object.list("notSourceIps"));
  out.destination_ips = read_ranges(problems, object.list("destinationIps"));
  out.not_destination_ips = read_ranges(problems, object.list("notDestinationIps"));
  out.destination_ports = read_port_list(problems, object.list("destinationPorts"));
  out.not_destination_ports = read_port_list(problems, object.list("notDestinationPorts"));
  object.done(policy_hint);
  return out;
}

std::vector<std::vector<std::vector<PolicyMatch>>> read_rules(Problems& problems, const Field& field) {
  std::vector<std::vector<std::vector<PolicyMatch>>> rules;
  for (const auto& rule : read_list(problems, field)) {
    auto& clauses = rules.emplace_back();
    for (const auto& clause : read_list(problems, rule)) {
      auto& matches = clauses.emplace_back();
      for (const auto& match : read_list(problems, clause)) matches.push_back(read_match(problems, match));
    }
  }
  return rules;
}

}  // namespace

state::Policy read_policy(Problems& problems, const Field& field) {
  using state::PolicyAction;
  using state::PolicyScope;
  state::Policy out;
  ObjectReader object(problems, field);
  out.name = object.required_text("name");
  out.namespace_name = read_namespace(object);
  if (const auto scope = object.require("scope")) {
    out.scope = read_word<PolicyScope>(problems, *scope,
                                       {{"Global", PolicyScope::kGlobal},
                                        {"Namespace", PolicyScope::kNamespace},
                                        {"WorkloadSelector", PolicyScope::kWorkloadSelector}});
  }
  const auto action = object.require("action");
  if (action && (action->node->scalar == "Custom" || action->node->scalar == "CUSTOM")) {
    expected(problems, *action, "Allow or Deny: what a provider outside decides needs a waypoint");
  } else if (action) {
    out.action =
        read_word<PolicyAction>(problems, *action, {{"Allow", PolicyAction::kAllow}, {"Deny", PolicyAction::kDeny}});
  }
  if (const auto dry_run = object.find("dryRun")) out.dry_run = read_bool(problems, *dry_run);
  if (const auto rules = object.require("rules")) out.rules = read_rules(problems, *rules);
  object.done(policy_hint);
  return out;
}

}  // namespace weft::control
