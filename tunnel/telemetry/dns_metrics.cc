// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/dns_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <mutex>
#include <string>
#include <unordered_map>

namespace weft::telemetry {
namespace {

using Labels = prometheus::Labels;

const prometheus::Histogram::BucketBoundaries kSeconds{0.001, 0.005, 0.01, 0.1, 1, 5};

std::string_view known(std::string_view value) { return value.empty() ? "unknown" : value; }

}  // namespace

struct DnsMetrics::Handle {
  prometheus::Counter *requests = nullptr, *forwards = nullptr, *failures = nullptr;
  prometheus::Histogram* duration = nullptr;
};

struct DnsMetrics::Impl {
  explicit Impl(std::shared_ptr<prometheus::Registry> r)
      : registry(std::move(r)),
        requests(family("istio_dns_requests_total", "DNS questions of pods")),
        forwards(family("istio_dns_upstream_requests_total", "DNS questions passed on to the server that was asked")),
        failures(
            family("istio_dns_upstream_failures_total", "DNS questions to be passed on of which nothing has come")),
        duration(prometheus::BuildHistogram()
                     .Name("istio_dns_upstream_request_duration_seconds")
                     .Help("Time until the server that was asked has answered")
                     .Register(*registry)) {}

  prometheus::Family<prometheus::Counter>& family(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  }

  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Family<prometheus::Counter>&requests, &forwards, &failures;
  prometheus::Family<prometheus::Histogram>& duration;
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<Handle>> handles;  ///< under mutex
};

DnsMetrics::DnsMetrics(std::shared_ptr<prometheus::Registry> registry)
    : impl_(std::make_unique<Impl>(std::move(registry))) {}

DnsMetrics::~DnsMetrics() = default;

DnsMetrics::Handle& DnsMetrics::handle(const state::Workload* source, std::string_view query_type,
                                       std::string_view protocol) {
  static const state::Workload nobody{};
  const state::Workload& who = source != nullptr ? *source : nobody;
  std::string key;
  for (const std::string_view part : {query_type, protocol, known(who.canonical_name), known(who.canonical_revision)}) {
    key += part;
    key += '\x1f';
  }
  const std::scoped_lock lock(impl_->mutex);
  auto& found = impl_->handles[key];
  if (!found) {
    const Labels labels{{"request_query_type", std::string(query_type)},
                        {"request_protocol", std::string(protocol)},
                        {"source_canonical_service", std::string(known(who.canonical_name))},
                        {"source_canonical_revision", std::string(known(who.canonical_revision))}};
    found = std::make_unique<Handle>(Handle{&impl_->requests.Add(labels), &impl_->forwards.Add(labels),
                                            &impl_->failures.Add(labels), &impl_->duration.Add(labels, kSeconds)});
  }
  return *found;
}

void DnsMetrics::requested(Handle& handle) { handle.requests->Increment(); }
void DnsMetrics::forwarded(Handle& handle) { handle.forwards->Increment(); }
void DnsMetrics::failed(Handle& handle) { handle.failures->Increment(); }
void DnsMetrics::answered(Handle& handle, std::chrono::nanoseconds after) {
  handle.duration->Observe(std::chrono::duration<double>(after).count());
}

}  // namespace weft::telemetry
