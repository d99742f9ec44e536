// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tunnel/base/ip.h"
#include "tunnel/state/state.h"

namespace weft::state {

/// Where pods of the mesh may go beside its own destinations: Istio's outboundTrafficPolicy.
struct EgressPolicy {
  bool registry_only = false;  ///< only to what the configuration names, or `exempt`; false: anywhere
  std::vector<Cidr> exempt;
  /// As the flag and people call it.
  [[nodiscard]] const char* mode() const { return registry_only ? "registry-only" : "allow-any"; }
  bool operator==(const EgressPolicy&) const = default;
};

/// What pods of the mesh may connect to under the policy: the addresses of every workload and service, and what is
/// exempt. Empty where the policy allows anything. Pure.
[[nodiscard]] State::Addresses registry(const State& state, const EgressPolicy& policy);

/// Why the policy forbids a connection to `original` that route() made `routed` of; empty where it does not. DNS (port
/// 53) is always allowed. Pure.
[[nodiscard]] std::string egress_refusal(const State& state, const EgressPolicy& policy, const Endpoint& original,
                                         const Destination& routed);

}  // namespace weft::state
