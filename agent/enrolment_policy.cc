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

/// Captured, with nothing to say of its policies.
Decision pending(const PodFacts& pod, std::string reason) {
  return {.kind = Decision::Kind::kPending,
          .workload = nullptr,
          .workload_uid = pod.expected_uid,
          .inbound = pod.inbound_bypass ? bpf::InboundPlaintext::kPass : bpf::InboundPlaintext::kCheck,
          .reason = std::move(reason)};
}

/// Why the workload is not the agent's to carry; empty where it is.
std::string unfit(const state::Workload& workload, const std::string& name, std::string_view node) {
  if (!workload.node.empty() && workload.node != node)
    return "workload " + name + " is on node " + workload.node + ", this is node " + std::string(node);
  if (workload.network_mode == state::NetworkMode::kHostNetwork)
    return "workload " + name + " is in the host's network";
  if (workload.native_tunnel) return "workload " + name + " speaks HBONE itself (nativeTunnel)";
  return {};
}

}  // namespace

Decision decide(const state::State* state, const PodFacts& pod, std::string_view node) {
  const std::string name = pod.namespace_name + "/" + pod.name;
  const bool selected = pod.selection && pod.selection->kind == Selection::Kind::kSelected;
  if (pod.selection && !selected) return plain("pod " + name + " is not selected: " + pod.selection->reason);
  if (state == nullptr) {
    return pending(pod,
                   "the control plane has said nothing yet: pod " + name + " is captured and its connections wait");
  }
  auto workload = state->workload_by_pod(pod.namespace_name, pod.name);
  if (selected && (!workload || !same_set(pod.addresses, workload->addresses))) {
    return pending(pod, "selected (" + pod.selection->reason + "), and the control plane " +
                            (workload ? "knows pod " + name + " with the addresses " + list_of(workload->addresses)
                                      : "does not know pod " + name) +
                            " yet: its connections wait");
  }
  if (!workload) return plain("pod " + name + " is not a workload");
  if (!selected && workload->protocol != state::TunnelProtocol::kHbone)
    return plain("workload " + name + " has protocol TCP");
  if (std::string why = unfit(*workload, name, node); !why.empty()) return plain(std::move(why));
  Decision decision;
  decision.workload = workload;
  decision.workload_uid = workload->uid;
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
