// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/telemetry/connection_result.h"

namespace weft::telemetry {

/// The access line of one ended connection, `key=value` in Istio's field names (src.addr, src.workload, src.namespace,
/// src.identity, src.cluster, dst.addr, dst.hbone_addr, dst.service, dst.workload, dst.namespace, dst.identity,
/// dst.cluster, direction, bytes_sent, bytes_recv, duration, and response_flags, policy, dry_run, traceparent and error
/// where set; docs/telemetry.md has each). What is not known is left out. Through a tunnel dst.addr is the tunnel's far
/// end and dst.hbone_addr the application's address in it. bytes_sent and bytes_recv are the reporter's view, as in
/// Istio: the source sends what goes to the destination, the destination sends what goes back (the metrics do not turn
/// around, see metrics.h).
[[nodiscard]] std::string access_line(const ConnectionResult& result);
/// The same as one JSON object; dry_run is a list.
[[nodiscard]] std::string access_json(const ConnectionResult& result);

/// Writes it in the log's format, as a line or as an object with its fields: info for a connection that ended well,
/// warn for one that did not. Thread-safe.
void log_access(const ConnectionResult& result);

}  // namespace weft::telemetry
