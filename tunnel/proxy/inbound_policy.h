// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/proxy/connections.h"
#include "tunnel/state/state.h"

namespace weft::proxy {

/// The proxy's own ports, which no peer may ask for.
[[nodiscard]] bool is_proxy_port(std::uint16_t port);

/// What the current snapshot says of a connection into a pod.
struct InboundDecision {
  bool allowed = false;
  state::WorkloadPtr destination, source;
  state::ServicePtr service;
  std::string policy, reason;
};
/// `source.identity` is the TLS peer, unset for plaintext. A pod that the snapshot does not know is denied.
[[nodiscard]] InboundDecision decide_inbound(const WorkerContext& worker, const PodContext& pod,
                                             const telemetry::Party& source, const Endpoint& application);

/// Records a connection that ended before there was a Connection for it.
void record_refused(WorkerContext& worker, const PodContext& pod, const Endpoint& peer, telemetry::ResponseFlag flag,
                    const std::string& why);

}  // namespace weft::proxy
