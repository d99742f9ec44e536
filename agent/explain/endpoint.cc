// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/endpoint.h"

#include <algorithm>

#include "tunnel/proxy/inbound_target.h"

namespace weft::agent {
namespace {

using state::State;
using state::Workload;
using state::WorkloadPtr;
using Kind = state::Destination::Kind;

ExplainedEndpoint named(ExplainedEndpoint endpoint, const Workload& workload) {
  endpoint.workload_uid = workload.uid;
  endpoint.workload = workload.namespace_name + "/" + workload.name;
  return endpoint;
}

/// What the destination's agent decides about a connection to `application` there.
void ask_policy(const ExplainAsked& asked, const Workload& destination, const std::optional<state::Identity>& identity,
                const IpAddress& source, const Endpoint& application, ExplainedEndpoint& endpoint) {
  state::PolicyContext context;
  context.source_identity = identity;
  context.source = source;
  context.destination = application;
  state::PolicyVerdict verdict = state::evaluate(asked.view.state, destination, context);
  endpoint.allowed = verdict.allowed;
  endpoint.policy = std::move(verdict.policy);
  endpoint.reason = std::move(verdict.reason);
  endpoint.dry_runs = std::move(verdict.dry_run_hits);
}

/// A workload of this node is served by a pod that is there, or by nobody.
bool is_served(const ExplainView& view, const Workload& workload) {
  const bool speaks_itself = workload.native_tunnel || workload.protocol == state::TunnelProtocol::kTcp;
  if (speaks_itself || workload.node != view.node) return true;
  return std::ranges::any_of(view.pods, [&](const PodStatus& pod) {
    return pod.registration.enrolled && pod.state != "failed" && pod.registration.workload_uid == workload.uid;
  });
}

/// What the agent of a waypoint's pod does with the request. Without one the waypoint's own configuration decides.
void ask_waypoint(const ExplainAsked& asked, const Workload& waypoint, const state::Identity& own,
                  ExplainedEndpoint& out) {
  if (decision_for(asked.view, waypoint).kind != Decision::Kind::kEnrol) {
    out.reason = "the waypoint takes it by HBONE itself, and decides";
    return;
  }
  proxy::PodContext pod;
  pod.addresses = waypoint.addresses;
  const auto target =
      proxy::inbound_target(&asked.view.state, &waypoint, pod, out.hbone.address, out.target.to_string());
  if (!target) return refuse(out, target.error().why);
  ask_policy(asked, waypoint, own, asked.source.address_like(out.hbone.address), target->application, out);
}

ExplainedEndpoint through_tunnel(const ExplainAsked& asked, const state::Destination& destination) {
  const Workload& workload = *destination.workload;
  const state::Identity own = asked.source.workload->identity();
  ExplainedEndpoint out = endpoint_of(destination.workload, destination.target);
  out.hbone = destination.hbone;
  if (destination.waypoint) out.waypoint = to_string(*destination.waypoint);
  out.encrypted = true;
  if (!is_served(asked.view, workload)) {
    refuse(out, "no pod of this node is enrolled as " + workload.uid + ": nobody answers on port 15008");
  } else if (own.trust_domain != workload.trust_domain) {
    refuse(out, "its trust domain is " + workload.trust_domain + ", which takes no certificate of " + own.trust_domain);
  } else if (destination.waypoint) {
    ask_waypoint(asked, workload, own, out);
  } else if (state::is_proxy_port(out.target.port) && !workload.native_tunnel) {
    refuse(out, "port " + std::to_string(out.target.port) + " of a pod in the mesh is the tunnel's own");
  } else {
    ask_policy(asked, workload, own, asked.source.address_like(out.hbone.address), out.target, out);
  }
  return out;
}

const char* to_string(bpf::InboundPlaintext inbound) {
  if (inbound == bpf::InboundPlaintext::kPass) return "pass";
  return inbound == bpf::InboundPlaintext::kCheck ? "check" : "drop";
}

/// What is to become of plaintext at a pod, and why, where that is not a matter of policy.
struct PlaintextMode {
  bpf::InboundPlaintext inbound = bpf::InboundPlaintext::kPass;
  bool in_mesh = false;
  WorkloadPtr workload;
  std::string reason;
  std::string closed;  ///< why nothing that must be looked at is let in; empty where it is looked at
};

PlaintextMode mode_of(const ExplainAsked& asked, const IpAddress& address) {
  PlaintextMode mode;
  if (const PodStatus* pod = pod_at(asked.view, address)) {
    const Registration& r = pod->registration;
    mode.in_mesh = r.enrolled;
    mode.workload = r.enrolled ? asked.view.state.workload_by_uid(r.workload_uid)
                               : asked.view.state.workload_by_pod(r.pod_namespace, r.pod_name);
    if (pod->inbound == "check") mode.inbound = bpf::InboundPlaintext::kCheck;
    if (pod->inbound == "drop") mode.inbound = bpf::InboundPlaintext::kDrop;
    mode.reason = pod->reason;
    if (pod->state == "failed") mode.closed = "the agent has no listeners for the pod: " + pod->reason;
    if (r.enrolled && !mode.workload) mode.closed = "the pod's workload " + r.workload_uid + " is not known";
    return mode;
  }
  mode.workload = asked.view.state.workload_by_address(asked.network(), address);
  if (!mode.workload) {
    mode.reason = "the mesh knows nothing of " + address.to_string();
    return mode;
  }
  const Decision decision = decision_for(asked.view, *mode.workload);
  mode.in_mesh = decision.kind == Decision::Kind::kEnrol && is_served(asked.view, *mode.workload);
  mode.inbound = decision.inbound;
  mode.reason = decision.reason;
  return mode;
}

/// What the agent dials itself, in the clear.
ExplainedEndpoint dialled(const ExplainAsked& asked, const Endpoint& target) {
  const auto& own = asked.source.addresses;
  if (std::ranges::find(own, target.address) != own.end()) {
    ExplainedEndpoint out = endpoint_of(asked.source.workload, target);
    out.reason = "it leads back to the pod itself, whose own connections no policy sees";
    return out;
  }
  ExplainedEndpoint out = in_plaintext(asked, target);
  const bool guarded = asked.source.pod == nullptr || asked.source.pod->registration.host_ifindex != 0;
  if (guarded && target.port != state::kHbonePort && asked.mesh.contains(target.address)) {
    refuse(out, "the node's guard drops plaintext to an address of the mesh");
  }
  return out;
}

}  // namespace

ExplainedEndpoint endpoint_of(const WorkloadPtr& workload, const Endpoint& target) {
  ExplainedEndpoint out;
  out.target = target;
  return workload ? named(std::move(out), *workload) : out;
}

void refuse(ExplainedEndpoint& endpoint, std::string reason) {
  endpoint.allowed = false;
  endpoint.reason = std::move(reason);
}

ExplainedEndpoint in_plaintext(const ExplainAsked& asked, const Endpoint& target) {
  const PlaintextMode mode = mode_of(asked, target.address);
  ExplainedEndpoint out = endpoint_of(mode.workload, target);
  if (mode.in_mesh && target.port != state::kHbonePort) out.inbound = to_string(mode.inbound);
  if (!mode.in_mesh) {
    out.reason = "plaintext to what is not in the mesh: " + mode.reason;
  } else if (target.port == state::kHbonePort) {
    refuse(out, "port 15008 of a pod in the mesh takes tunnels alone, which begin with TLS");
  } else if (mode.inbound == bpf::InboundPlaintext::kPass) {
    out.reason = "no policy looks at plaintext to it";
  } else if (!mode.closed.empty()) {
    refuse(out, mode.closed);
  } else {
    ask_policy(asked, *mode.workload, std::nullopt, asked.source.address_like(target.address), target, out);
    if (mode.inbound == bpf::InboundPlaintext::kDrop) refuse(out, out.reason + " (dropped before the agent sees it)");
  }
  return out;
}

ExplainedEndpoint at_destination(const ExplainAsked& asked, const state::Destination& destination) {
  if (!destination.hostname.empty()) {
    ExplainedEndpoint out = endpoint_of(destination.workload, destination.target);
    out.reason = "it is a name: what DNS has for " + destination.hostname + " when it is dialled decides";
    return out;
  }
  if (destination.kind == Kind::kHbone) return through_tunnel(asked, destination);
  if (destination.kind == Kind::kRefused) {
    ExplainedEndpoint out = endpoint_of(destination.workload, destination.target);
    if (destination.waypoint) out.waypoint = to_string(*destination.waypoint);
    refuse(out, destination.reason);
    return out;
  }
  ExplainedEndpoint out = dialled(asked, destination.kind == Kind::kUnknown ? asked.original : destination.target);
  // By address the host's network leads to no workload.
  if (destination.workload) out = named(std::move(out), *destination.workload);
  return out;
}

}  // namespace weft::agent
