// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound_policy.h"

#include "tunnel/proxy/context.h"
#include "tunnel/telemetry/access_log.h"

namespace weft::proxy {

bool is_proxy_port(std::uint16_t port) { return port == 15001 || port == 15006 || port == 15008; }

bool allow_inbound(const WorkerContext& worker, const PodContext& pod, const Endpoint& application,
                   telemetry::ConnectionResult& result) {
  const auto destination = worker.state ? worker.state->workload_by_uid(pod.workload_uid) : nullptr;
  result.destination.workload = destination;
  result.source.workload = nullptr;
  result.service = nullptr;
  result.policy.clear();
  result.error.clear();
  if (destination == nullptr) {
    result.error = "the pod's workload is not known (it may have left the mesh)";
    return false;
  }
  result.source.workload = worker.state->workload_by_address(worker.config.network, result.source.endpoint.address);
  // A service is named in telemetry when it is the only one with this target port.
  for (const auto& [key, ports] : destination->services) {
    for (const auto& [service_port, target_port] : ports) {
      if (target_port == application.port && result.service == nullptr) {
        result.service = worker.state->service_by_key(key);
      }
    }
  }
  state::PolicyContext context;
  context.source_identity = result.source.identity;
  context.source = result.source.endpoint.address;
  context.destination = application;
  state::PolicyVerdict verdict = state::evaluate(*worker.state, *destination, context);
  if (verdict.allowed) return true;
  result.policy = std::move(verdict.policy);
  result.error = std::move(verdict.reason);
  return false;
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
