// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/explain.h"

#include <algorithm>
#include <utility>

#include "agent/explain/endpoint.h"
#include "tunnel/state/balance.h"
#include "tunnel/state/demand.h"
#include "tunnel/state/waypoint.h"

namespace weft::agent {
namespace {

using state::State;
using state::Workload;
using Kind = state::Destination::Kind;

void explain_waypoint(const ExplainAsked& asked, const state::Destination& first, Explanation& out) {
  const std::string what = first.service ? "service " + first.service->key() : asked.original.address.to_string();
  out.notes.push_back("connections to " + what +
                      " go through its waypoint: those behind it meet the waypoint's identity, not the source's");
  if (first.workload) {
    out.notes.push_back("where the waypoint may go is explained by: weftctl explain " + first.workload->namespace_name +
                        "/" + first.workload->name + " ADDRESS:PORT");
  }
}

void note_demand(const ExplainAsked& asked, Explanation& out) {
  std::string names;
  for (const auto& name : state::names_to_ask(asked.view.state, *asked.source.workload, asked.original.address))
    names += (names.empty() ? "" : ", ") + name;
  if (names.empty()) return;
  out.notes.push_back("the control plane is asked on demand, a connection asks it first for " + names +
                      ": this is by what it has told so far");
}

/// The source's agent chooses.
void explain_captured(const ExplainAsked& asked, Explanation& out) {
  if (asked.source.capture == ExplainSource::Capture::kClosed) {
    out.refusal = "the source's connections into the mesh are dropped: " + asked.source.state;
    return;
  }
  const Workload& own = *asked.source.workload;
  if (asked.view.on_demand) note_demand(asked, out);
  const state::Destination first = asked.view.state.route(own, asked.original, 0);
  if (first.service) out.service = first.service->key();
  out.refusal = state::egress_refusal(asked.view.state, asked.view.egress, asked.original, first);
  if (!out.refusal.empty()) return;
  const auto choices = state::possible_routes(asked.view.state, own, asked.original);
  if (first.kind == Kind::kRefused && choices.size() < 2) {
    out.refusal = first.reason;
    return;
  }
  for (const auto& choice : choices) {
    out.endpoints.push_back(at_destination(asked, asked.view.state.route(own, asked.original, choice.random)));
    out.endpoints.back().weight = choice.weight;
  }
  if (first.waypoint) explain_waypoint(asked, first, out);
  if (out.outcome() == ExplainedOutcome::kMixed) {
    out.notes.emplace_back(
        "where an endpoint cannot be reached another one is tried, once; what a policy refuses is not tried again");
  }
}

/// Whoever else answers for a VIP (Kubernetes' own service proxy) chooses.
void explain_foreign_service(const ExplainAsked& asked, const state::Service& service, Explanation& out) {
  out.service = service.key();
  if (service.load_balancer && service.load_balancer->mode == state::LoadBalancerMode::kPassthrough) {
    out.endpoints.push_back(in_plaintext(asked, asked.original));
    return;
  }
  if (!service.ports.contains(asked.original.port)) {
    out.refusal = "service " + service.key() + " has no port " + std::to_string(asked.original.port);
    return;
  }
  Workload stranger;
  stranger.network = asked.network();
  const auto choices = state::possible_endpoints(asked.view.state, stranger, service, asked.original);
  for (const auto& choice : choices.endpoints) out.endpoints.push_back(in_plaintext(asked, choice.target));
  out.refusal = choices.reason;
  out.notes.push_back("the cluster's own service proxy answers for " + asked.original.address.to_string() +
                      ", and chooses; the endpoints are those that the mesh knows of");
}

void explain_uncaptured(const ExplainAsked& asked, Explanation& out) {
  const IpAddress& address = asked.original.address;
  const auto& own = asked.source.addresses;
  if (address.is_loopback() || std::ranges::find(own, address) != own.end()) {
    out.endpoints.push_back(endpoint_of(asked.source.workload, asked.original));
    out.endpoints.back().reason = "it stays in the pod";
    return;
  }
  const auto& state = asked.view.state;
  const bool is_workload =
      pod_at(asked.view, address) != nullptr || state.workload_by_address(asked.network(), address) != nullptr;
  const auto service = state.service_by_vip(asked.network(), address);
  if (service && !is_workload) return explain_foreign_service(asked, *service, out);
  out.endpoints.push_back(in_plaintext(asked, asked.original));
  if (!asked.source.workload && is_workload) {
    out.notes.push_back("connections of the destination's own node, such as probes, pass whatever the policies say");
  }
}

/// As from_pod decides.
void decide_capture(const ExplainAsked& asked, Explanation& out) {
  const IpAddress& address = asked.original.address;
  const std::string text = address.to_string();
  const auto& own = asked.source.addresses;
  const auto not_captured = [&](std::string why) { out.capture = std::move(why); };
  if (address.is_loopback()) return not_captured(text + " never leaves the pod");
  if (std::ranges::find(own, address) != own.end()) return not_captured(text + " is the source's own address");
  if (asked.source.capture == ExplainSource::Capture::kNone) return not_captured("the source is " + asked.source.state);
  const auto& egress = asked.view.egress;
  if (address.is_link_local() && !(egress.registry_only && address.is_v4())) {
    return not_captured(text + " is link-local");
  }
  const bool listed = asked.mesh.contains(address);
  const bool refused = !listed && !state::egress_refusal(asked.view.state, egress, asked.original, {}).empty();
  if (!listed && !asked.view.captures_all && !refused) {
    return not_captured(text + " is no destination of the mesh");
  }
  out.captured = true;
  if (listed) {
    out.capture = text + " is a destination of the mesh";
  } else if (refused) {
    out.capture = text + " is not in the registry: the agent refuses it";
  } else if (asked.view.on_demand) {
    out.capture = "the control plane is asked on demand: everything is captured";
  } else {
    out.capture = "the list of mesh destinations is not in place: everything is captured";
  }
}

void explain_one(const ExplainAsked& asked, Explanation& out) {
  decide_capture(asked, out);
  const IpAddress& address = asked.original.address;
  if (!address.is_loopback() && !asked.source.addresses.empty() && !asked.source.address_like(address).valid()) {
    out.refusal = std::string("the source has no IPv") + (address.is_v4() ? "4" : "6") + " address";
  } else if (out.captured) {
    explain_captured(asked, out);
  } else {
    explain_uncaptured(asked, out);
  }
}

}  // namespace

ExplainedOutcome Explanation::outcome() const {
  const auto allowed = std::ranges::count_if(endpoints, &ExplainedEndpoint::allowed);
  if (endpoints.empty() || allowed == 0) return ExplainedOutcome::kRefused;
  return allowed == std::ssize(endpoints) ? ExplainedOutcome::kAllowed : ExplainedOutcome::kMixed;
}

bool Explanation::encrypted() const {
  return !endpoints.empty() && std::ranges::all_of(endpoints, &ExplainedEndpoint::encrypted);
}

const char* to_string(ExplainedOutcome outcome) {
  if (outcome == ExplainedOutcome::kAllowed) return "allowed";
  return outcome == ExplainedOutcome::kRefused ? "refused" : "mixed";
}

Result<Explanation> explain(const ExplainView& view, std::string_view from, std::string_view to) {
  auto source = explain_source(view, from);
  if (!source) return Failure(source.error());
  auto target = explain_target(view, *source, to);
  if (!target) return Failure(target.error());

  Explanation out;
  out.source = source->name;
  out.source_state = source->state;
  out.destination = std::string(to);
  out.notes = source->notes;
  out.notes.insert(out.notes.end(), target->notes.begin(), target->notes.end());
  if (source->workload) out.source_uid = source->workload->uid;
  if (source->workload && source->capture == ExplainSource::Capture::kMesh) {
    out.source_identity = source->workload->identity().to_uri();
  }
  const State::Addresses& mesh = *view.state.mesh_addresses();
  for (const auto& original : target->originals) {
    out.original = original;
    out.source_address = source->address_like(original.address);
    explain_one({view, *source, mesh, original}, out);
    if (target->originals.size() < 2 || out.refusal.empty()) continue;
    // One of several addresses: it counts like an endpoint.
    out.endpoints.push_back(endpoint_of(view.state.workload_by_address(view.network, original.address), original));
    refuse(out.endpoints.back(), std::exchange(out.refusal, ""));
  }
  if (!target->service.empty()) out.service = target->service;
  if (target->originals.empty()) out.refusal = "service " + target->service + " has no endpoint to connect to";
  return out;
}

}  // namespace weft::agent
