// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "tunnel/telemetry/connection_result.h"

namespace prometheus {
class Registry;
}

namespace weft::telemetry {

/// Istio's TCP metrics: istio_tcp_connections_opened_total, _closed_total, istio_tcp_received_bytes_total, istio_tcp_sent_bytes_total, with Istio's labels.
/// Thread-safe. `registry` is owned by the agent and serves /metrics.
class ConnectionMetrics {
 public:
  explicit ConnectionMetrics(std::shared_ptr<prometheus::Registry> registry);
  ~ConnectionMetrics();

  /// The counters of one connection's label set: looked up once per connection, then plain atomic adds.
  class Handle;
  /// Counts the connection as opened. The label set is fixed here, so call it when source, destination and service are known.
  [[nodiscard]] std::shared_ptr<Handle> opened(const ConnectionResult& result);
  /// Adds the bytes since the last call for this connection; while it lives and at its end. One thread a connection.
  static void bytes(Handle& handle, std::uint64_t sent_delta, std::uint64_t received_delta);
  /// Counts the end, under the label response_flags of `result`. A connection that never opened (refused) passes null: it
  /// is counted as opened and closed.
  void closed(const std::shared_ptr<Handle>& handle, const ConnectionResult& result);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::telemetry
