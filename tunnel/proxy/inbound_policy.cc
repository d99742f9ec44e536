// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound_policy.h"

#include <algorithm>

#include "tunnel/proxy/context.h"
#include "tunnel/state/demand.h"

namespace weft::proxy {

namespace {

/// The service that telemetry names: the one that the peer says it dialled, if the workload is behind it, or the first
/// one that leads to this port.
state::ServicePtr service_of(const state::State& state, const state::Workload& workload, std::uint16_t port,
                             std::string_view host) {
  state::ServicePtr leading;
  for (const auto& [key, ports] : workload.services) {
    auto service = state.service_by_key(key);
    if (service == nullptr) continue;
    if (!host.empty() && service->hostname == host) return service;
    const bool leads = std::ranges::any_of(ports, [port](const auto& entry) { return entry.second == port; });
    if (leads && leading == nullptr) leading = std::move(service);
  }
  return leading;
}

}  // namespace

bool allow_inbound(const WorkerContext& worker, const PodContext& pod, const Endpoint& application,
                   telemetry::ConnectionResult& result, std::string_view service_host) {
  const auto destination = worker.state ? worker.state->workload_by_uid(pod.workload_uid) : nullptr;
  result.destination.workload = destination;
  result.source.workload = nullptr;
  result.service = nullptr;
  result.error.clear();
  if (destination == nullptr) {
    result.decision = {.allowed = false, .rule = "unknown_workload", .dry_run_hits = {}};
    result.error = "the pod's workload is not known (it may have left the mesh)";
    return false;
  }
  result.source.workload = worker.state->workload_by_address(worker.config.network, result.source.endpoint.address);
  result.service = service_of(*worker.state, *destination, application.port, service_host);
  state::PolicyContext context;
  context.source_identity = result.source.identity;
  context.source = result.source.endpoint.address;
  context.destination = application;
  state::PolicyVerdict verdict = state::evaluate(*worker.state, *destination, context);
  result.decision = {
      .allowed = verdict.allowed, .rule = verdict.rule(), .dry_run_hits = std::move(verdict.dry_run_hits)};
  if (!verdict.allowed) result.error = std::move(verdict.reason);
  return verdict.allowed;
}

void ask_ahead(const WorkerContext& worker, const state::Workload& own, const IpAddress& peer) {
  if (!worker.config.on_demand) return;
  std::vector<std::string> names;
  if (!worker.state->workload_by_address(own.network, peer)) names = state::names_to_ask(*worker.state, own, peer);
  for (const auto& [key, ports] : own.services) {
    if (!worker.state->service_by_key(key)) names.push_back(key);
  }
  worker.node.ask_ahead(names);
}

void record_refused(WorkerContext& worker, const PodContext& pod, const Endpoint& peer, telemetry::ResponseFlag flag,
                    const std::string& why) {
  telemetry::ConnectionResult result;
  result.reporter = telemetry::Reporter::kDestination;
  result.source.endpoint = peer;
  if (!pod.addresses.empty()) result.destination.endpoint = {pod.addresses.front(), worker.config.hbone_port};
  result.flag = flag;
  result.error = why;
  record_refused(worker, pod, std::move(result));
}

void record_refused(WorkerContext& worker, const PodContext& pod, telemetry::ConnectionResult result) {
  result.started = result.ended = worker.loop.now();
  const bool outbound = result.reporter == telemetry::Reporter::kSource;
  telemetry::Party &own = outbound ? result.source : result.destination,
                   &other = outbound ? result.destination : result.source;
  if (worker.state) {
    own.workload = worker.state->workload_by_uid(pod.workload_uid);
    other.workload = worker.state->workload_by_address(worker.config.network, other.endpoint.address);
  }
  worker.metrics.closed(nullptr, result);
  worker.refusals.write(pod, result);
}

}  // namespace weft::proxy
