// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "tunnel/proxy/connections.h"
#include "tunnel/state/state.h"

namespace weft::proxy {

/// Whether the current snapshot allows a connection into a pod. `result.source` says who asks: its endpoint, and the
/// TLS peer as its identity, unset for plaintext. Fills in what the snapshot knows of both sides, the decision, and
/// where it is denied the reason. A pod that the snapshot does not know is denied. `service_host` is the service that
/// the peer says it dialled, for telemetry.
[[nodiscard]] bool allow_inbound(const WorkerContext& worker, const PodContext& pod, const Endpoint& application,
                                 telemetry::ConnectionResult& result, std::string_view service_host = {});

/// On demand, asks what telemetry would know of a connection from `peer` of the mesh into `own`, its workload and the
/// services that lead here: later connections have it.
void ask_ahead(const WorkerContext& worker, const state::Workload& own, const IpAddress& peer);

/// Records a connection into a pod by HBONE that ended before there was a Connection for it.
void record_refused(WorkerContext& worker, const PodContext& pod, const Endpoint& peer, telemetry::ResponseFlag flag,
                    const std::string& why);
/// The same for any: `result` says who reports, and both endpoints as far as they are known.
void record_refused(WorkerContext& worker, const PodContext& pod, telemetry::ConnectionResult result);

}  // namespace weft::proxy
