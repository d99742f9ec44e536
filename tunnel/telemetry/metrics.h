// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>

#include "tunnel/telemetry/connection_result.h"

namespace prometheus {
class Gauge;
class Registry;
}  // namespace prometheus

namespace weft::telemetry {

/// A socket that is counted as open as long as this lives.
struct CountedSocketCloses {
  void operator()(prometheus::Gauge* gauge) const;
};
using OpenSocket = std::unique_ptr<prometheus::Gauge, CountedSocketCloses>;

/// Istio's TCP metrics: istio_tcp_connections_opened_total, _closed_total and _failed_total,
/// istio_tcp_received_bytes_total and istio_tcp_sent_bytes_total, with Istio's labels, and istio_tcp_sockets_open;
/// docs/telemetry.md has each label. What is not known is "unknown". As in Istio the byte counters take the
/// destination's view whoever reports: "received" is what went from the source to the destination (the request), "sent"
/// what came back. Opened and bytes are counted under response_flags "-", the end under the flag it ended with. Beside
/// them weft_policy_decisions_total. Thread-safe. `registry` serves /metrics; it must not be null and lives on with
/// this.
class ConnectionMetrics {
 public:
  explicit ConnectionMetrics(std::shared_ptr<prometheus::Registry> registry);
  ~ConnectionMetrics();

  /// The counters of one label set, shared by its connections: looked up once per connection, then plain atomic adds.
  class Handle;
  /// Counts the connection as opened. The label set is fixed here, so call it when source, destination and service are
  /// known.
  [[nodiscard]] std::shared_ptr<Handle> opened(const ConnectionResult& result);
  /// Adds the bytes since the last call for this connection; while it lives and at its end. The deltas are those of
  /// ConnectionResult: `sent_delta` went from the source to the destination. One thread a connection.
  static void bytes(Handle& handle, std::uint64_t sent_delta, std::uint64_t received_delta);
  /// Counts the end, under the label response_flags of `result`. A connection that never opened (refused) passes null:
  /// it is counted as opened and closed.
  void closed(const std::shared_ptr<Handle>& handle, const ConnectionResult& result);
  /// Counts something that an HBONE peer did and no honest one does, in weft_hbone_violations_total{kind}.
  void violation(std::string_view kind);
  /// Counts a live tunnel that was cut because a certificate was revoked, in weft_tunnels_revoked_total{reporter}.
  void tunnel_revoked(Reporter reporter);

  /// Counts a decision of policy that takes effect, under mode "enforced", and beside it each dry-run policy that would
  /// have decided otherwise, under mode "dry_run" and what it would have done.
  void decided(const PolicyDecision& decision);
  /// Counts a TCP connection that capture brought to the agent, a tunnel as one.
  [[nodiscard]] OpenSocket socket(Reporter reporter);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::telemetry
