// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "tunnel/state/workload.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace weft::telemetry {

/// Istio's DNS metrics: istio_dns_requests_total, istio_dns_upstream_requests_total,
/// istio_dns_upstream_failures_total and istio_dns_upstream_request_duration_seconds, with Istio's labels;
/// docs/telemetry.md has each. Thread-safe. `registry` serves /metrics; it must not be null and lives on with this.
class DnsMetrics {
 public:
  explicit DnsMetrics(std::shared_ptr<prometheus::Registry> registry);
  ~DnsMetrics();
  DnsMetrics(const DnsMetrics&) = delete;
  DnsMetrics& operator=(const DnsMetrics&) = delete;

  /// The counters of one label set, found once per question; lives as long as the metrics.
  struct Handle;
  /// `source` null: not known. `query_type` as dns::type_name() has it, `protocol` "udp" or "tcp".
  [[nodiscard]] Handle& handle(const state::Workload* source, std::string_view query_type, std::string_view protocol);
  static void requested(Handle& handle);
  static void forwarded(Handle& handle);
  /// The question was to be forwarded and nothing came of it.
  static void failed(Handle& handle);
  static void answered(Handle& handle, std::chrono::nanoseconds after);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::telemetry
