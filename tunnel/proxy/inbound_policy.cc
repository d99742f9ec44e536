// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound_policy.h"

#include "tunnel/proxy/context.h"
#include "tunnel/telemetry/access_log.h"

namespace weft::proxy {

bool is_proxy_port(std::uint16_t port) { return port == 15001 || port == 15006 || port == 15008; }

InboundDecision decide_inbound(const WorkerContext& worker, const PodContext& pod, const telemetry::Party& source,
                               const Endpoint& application) {
  InboundDecision decision;
  decision.destination = worker.state ? worker.state->workload_by_uid(pod.workload_uid) : nullptr;
  if (decision.destination == nullptr) {
    decision.reason = "the pod's workload is not known (it may have left the mesh)";
    return decision;
  }
  decision.source = worker.state->workload_by_address(worker.config.network, source.endpoint.address);
  // A service is named in telemetry when it is the only one with this target port.
  for (const auto& [key, ports] : decision.destination->services) {
    for (const auto& [service_port, target_port] : ports) {
      if (target_port == application.port && decision.service == nullptr) {
        decision.service = worker.state->service_by_key(key);
      }
    }
  }
  state::PolicyContext context;
  context.source_identity = source.identity;
  context.source = source.endpoint.address;
  context.destination = application;
  state::PolicyVerdict verdict = state::evaluate(*worker.state, *decision.destination, context);
  decision.allowed = verdict.allowed;
  decision.policy = std::move(verdict.policy);
  decision.reason = std::move(verdict.reason);
  return decision;
}

void record_refused(WorkerContext& worker, const PodContext& pod, const Endpoint& peer, telemetry::ResponseFlag flag,
                    const std::string& why) {
  telemetry::ConnectionResult result;
  result.reporter = telemetry::Reporter::kDestination;
  result.started = result.ended = worker.loop.now();
  result.source.endpoint = peer;
  if (worker.state) {
    result.source.workload = worker.state->workload_by_address(worker.config.network, peer.address);
    result.destination.workload = worker.state->workload_by_uid(pod.workload_uid);
  }
  if (!pod.addresses.empty()) result.destination.endpoint = {pod.addresses.front(), worker.config.hbone_port};
  result.flag = flag;
  result.error = why;
  worker.metrics.closed(nullptr, result);
  telemetry::log_access(result);
}

}  // namespace weft::proxy
