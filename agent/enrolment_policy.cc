// SPDX-License-Identifier: Apache-2.0
#include "agent/enrolment_policy.h"

#include <algorithm>

#include "tunnel/base/sort_unique.h"
#include "tunnel/state/policy.h"

namespace weft::agent {
namespace {

std::string list_of(std::vector<IpAddress> addresses) {
  std::sort(addresses.begin(), addresses.end());
  std::string text;
  for (const auto& address : addresses) text += (text.empty() ? "" : ", ") + address.to_string();
  return text.empty() ? "none" : text;
}

bool same_set(std::vector<IpAddress> a, std::vector<IpAddress> b) {
  sort_unique(a);
  sort_unique(b);
  return a == b;
}

bpf::InboundPlaintext inbound_of(const state::State& state, const state::Workload& workload, const PodFacts& pod) {
  if (pod.inbound_bypass) return bpf::InboundPlaintext::kPass;
  const auto& addresses = pod.interface_addresses.empty() ? pod.addresses : pod.interface_addresses;
  switch (state::plaintext_outcome(state, workload, addresses)) {
    case state::PlaintextOutcome::kPass:
      return bpf::InboundPlaintext::kPass;
    case state::PlaintextOutcome::kDrop:
      return bpf::InboundPlaintext::kDrop;
    case state::PlaintextOutcome::kCheck:
      break;
  }
  return bpf::InboundPlaintext::kCheck;
}

Decision plain(std::string reason) {
  Decision decision;
  decision.reason = std::move(reason);
  return decision;
}

}  // namespace

Decision decide(const state::State* state, const PodFacts& pod, std::string_view node) {
  const std::string name = pod.namespace_name + "/" + pod.name;
  if (state == nullptr) {
    return {.kind = Decision::Kind::kPending,
            .workload = nullptr,
            .inbound = pod.inbound_bypass ? bpf::InboundPlaintext::kPass : bpf::InboundPlaintext::kCheck,
            .reason = "the control plane has said nothing yet: pod " + name + " is captured and its connections wait"};
  }
  auto workload = state->workload_by_pod(pod.namespace_name, pod.name);
  if (!workload) return plain("pod " + name + " is not a workload");
  if (workload->protocol != state::TunnelProtocol::kHbone) return plain("workload " + name + " has protocol TCP");
  if (!workload->node.empty() && workload->node != node) {
    return plain("workload " + name + " is on node " + workload->node + ", this is node " + std::string(node));
  }
  if (workload->network_mode == state::NetworkMode::kHostNetwork) {
    return plain("workload " + name + " is in the host's network");
  }
  if (workload->native_tunnel) return plain("workload " + name + " speaks HBONE itself (nativeTunnel)");
  Decision decision;
  decision.workload = workload;
  decision.inbound = inbound_of(*state, *workload, pod);
  if (!same_set(pod.addresses, workload->addresses)) {
    decision.kind = Decision::Kind::kRefused;
    decision.reason = "pod " + name + " has the addresses " + list_of(pod.addresses) + ", but its workload " +
                      workload->uid + " has workloadIps " + list_of(workload->addresses) +
                      " (is the workload's entry out of date, or the pod's name used twice?)";
    return decision;
  }
  decision.kind = Decision::Kind::kEnrol;
  decision.reason = "enrolled as " + workload->uid;
  return decision;
}

}  // namespace weft::agent
