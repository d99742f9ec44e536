// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/egress.h"

#include <algorithm>

#include "tunnel/base/sort_unique.h"

namespace weft::state {

State::Addresses registry(const State& state, const EgressPolicy& policy) {
  if (!policy.registry_only) return {};
  State::Addresses out = state.named_addresses();
  for (const Cidr& range : policy.exempt) out.cidrs.push_back(range);
  sort_unique(out.cidrs);
  return out;
}

std::string egress_refusal(const State& state, const EgressPolicy& policy, const Endpoint& original,
                           const Destination& routed) {
  if (!policy.registry_only || routed.kind != Destination::Kind::kUnknown || routed.service != nullptr) return "";
  const IpAddress& address = original.address;
  const auto holds = [&address](const Cidr& range) { return range.contains(address); };
  if (original.port == kDnsPort || std::ranges::any_of(policy.exempt, holds) || state.names(address)) return "";
  return address.to_string() +
         " is not in the registry, and the outbound traffic policy is registry-only (a ServiceEntry allows it)";
}

}  // namespace weft::state
