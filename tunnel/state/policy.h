// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/ip.h"
#include "tunnel/state/identity.h"
#include "tunnel/state/workload.h"

namespace weft::state {

class State;

enum class PolicyScope : std::uint8_t { kGlobal, kNamespace, kWorkloadSelector };
enum class PolicyAction : std::uint8_t { kAllow, kDeny };

struct StringMatch {
  enum class Kind : std::uint8_t { kExact, kPrefix, kSuffix, kPresence } kind = Kind::kExact;
  std::string value;  ///< unused with kPresence
  [[nodiscard]] bool matches(std::string_view text) const;
  bool operator==(const StringMatch&) const = default;
};

struct ServiceAccountMatch {
  std::string namespace_name;
  std::string service_account;
  bool operator==(const ServiceAccountMatch&) const = default;
};

/// The values of one match: kinds are ANDed, the values of one kind ORed.
struct PolicyMatch {
  std::vector<StringMatch> namespaces, not_namespaces;
  std::vector<StringMatch> principals, not_principals;
  std::vector<ServiceAccountMatch> service_accounts, not_service_accounts;
  std::vector<Cidr> source_ips, not_source_ips;
  std::vector<Cidr> destination_ips, not_destination_ips;
  std::vector<std::uint16_t> destination_ports, not_destination_ports;
  [[nodiscard]] bool empty() const;
  bool operator==(const PolicyMatch&) const = default;
};

/// One L4 authorization policy (istio.security.Authorization). rules = OR of rules, a rule = AND of clauses, a clause =
/// OR of matches.
struct Policy {
  std::string name;
  std::string namespace_name;
  PolicyScope scope = PolicyScope::kNamespace;
  PolicyAction action = PolicyAction::kAllow;
  bool dry_run = false;
  std::vector<std::vector<std::vector<PolicyMatch>>> rules;
  [[nodiscard]] std::string key() const { return namespace_name + "/" + name; }
  bool operator==(const Policy&) const = default;
};

/// What a policy decision is made from. `source_identity` is the peer of the TLS session; unset for plaintext.
struct PolicyContext {
  std::optional<Identity> source_identity;
  IpAddress source;
  Endpoint destination;  ///< the application's own address and port
};

/// The decision, with the rule that made it.
struct PolicyVerdict {
  bool allowed = true;
  /// The "namespace/name" of the policy that decided; empty where none applied. For "no ALLOW policy matched" it is
  /// empty too and `reason` says so; for an unknown policy it is that policy's key.
  std::string policy;
  std::string reason;  ///< for the log: "allowed by ns/name", "denied by ns/name", "no allow policy matched", …
  std::vector<std::string> dry_run_hits;  ///< policies marked dryRun that would have decided otherwise
  bool forged = false;                    ///< denied because it could say in a PROXY header whatever it likes

  /// What decided, in one word for labels: `policy`, or "none" (nothing had anything against it), "no_allow_matched"
  /// and "application_tunnel". None of these has the "/" of a policy's key.
  [[nodiscard]] std::string rule() const;
};

/// Decides by every policy that applies to `destination`: its namespace's, the global ones, and its own list. Before
/// all of them, plaintext to the port of an application tunnel that takes PROXY headers is denied. Pure: the same
/// arguments give the same verdict. Semantics: "Policy" in ARCHITECTURE.md.
[[nodiscard]] PolicyVerdict evaluate(const State& state, const Workload& destination, const PolicyContext& context);

/// What is to become of connections without an identity, before one has come.
enum class PlaintextOutcome : std::uint8_t {
  kPass,   ///< every one is allowed, and there is nothing to report of it
  kCheck,  ///< it depends on where one comes from and goes to, or there is something to report
  kDrop,   ///< every one is denied
};

/// Decides by the same policies as evaluate, for a connection in plaintext from anywhere to any port of any of
/// `addresses` (those of the workload, unless told otherwise). A policy that is not known yet denies and is to be
/// reported, one marked dryRun is where it might have decided otherwise: both are kCheck. What cannot be told apart is
/// kCheck too. Pure.
[[nodiscard]] PlaintextOutcome plaintext_outcome(const State& state, const Workload& destination);
[[nodiscard]] PlaintextOutcome plaintext_outcome(const State& state, const Workload& destination,
                                                 std::span<const IpAddress> addresses);

}  // namespace weft::state
