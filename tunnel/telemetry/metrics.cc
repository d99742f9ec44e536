// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <array>
#include <map>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace weft::telemetry {
namespace {

using Labels = std::map<std::string, std::string>;

constexpr std::size_t kLabelCount = 26;
constexpr std::size_t kFlagCount = static_cast<std::size_t>(ResponseFlag::kUnregistered) + 1;

constexpr std::array<const char*, kLabelCount> kLabelNames = {
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_canonical_service",
    "source_canonical_revision",
    "source_app",
    "source_version",
    "source_cluster",
    "source_region",
    "source_zone",
    "source_principal",
    "destination_workload",
    "destination_workload_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_region",
    "destination_zone",
    "destination_principal",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "connection_security_policy",
};

const char* name_of(Reporter reporter) { return reporter == Reporter::kSource ? "source" : "destination"; }

/// The values of all labels but response_flags, in the order of kLabelNames, as one string: the key of the cache.
class LabelKey {
 public:
  explicit LabelKey(const ConnectionResult& result) {
    text_.reserve(512);
    add(name_of(result.reporter));
    add_party(result.source, result.source.identity);
    // As in Istio: the source's principal is what TLS proved, the destination's is who it is to be.
    const auto& to = result.destination;
    add_party(to, to.identity || !to.workload ? to.identity : to.workload->identity());
    const auto* service = result.service.get();
    // As Istio's sidecars call what their registry does not name.
    const char* nowhere = result.flag == ResponseFlag::kUnregistered ? "BlackHoleCluster" : "";
    add(service != nullptr ? service->hostname : nowhere);
    add(service != nullptr ? service->name : nowhere);
    add(service != nullptr ? service->namespace_name : "");
    add("tcp");
    add(result.mutual_tls ? "mutual_tls" : "");
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  static constexpr char kEnd = '\x1f';

  void add(std::string_view value) {
    // The end mark may not occur in a value, or two label sets could share a key; peers have a say in some values.
    for (const char c : value.empty() ? std::string_view("unknown") : value) text_ += c == kEnd ? '_' : c;
    text_ += kEnd;
  }
  void add_party(const Party& party, const std::optional<state::Identity>& principal) {
    static const state::Workload nobody{};
    const bool known = party.workload != nullptr;
    const state::Workload& w = known ? *party.workload : nobody;
    add(known ? w.workload_name : "");
    add(known ? w.namespace_name : party.identity ? party.identity->namespace_name : "");
    add(w.canonical_name);
    add(w.canonical_revision);
    add(w.canonical_name);
    add(w.canonical_revision);
    add(known ? w.cluster_id : "");
    add(w.locality.region);
    add(w.locality.zone);
    add(principal ? principal->to_uri() : "");
  }

  std::string text_;
};

Labels labels_of(std::string_view key) {
  Labels out;
  for (const char* name : kLabelNames) {
    const auto end = key.find('\x1f');
    out.emplace(name, key.substr(0, end));
    key.remove_prefix(end + 1);
  }
  return out;
}

}  // namespace

/// The counters of one label set, shared by all its connections. The label sets are never dropped: there are as many as
/// there are pairs of workloads that talked.
class ConnectionMetrics::Handle {
 public:
  Labels labels;  ///< without response_flags
  prometheus::Counter* opened = nullptr;
  prometheus::Counter* received_bytes = nullptr;
  prometheus::Counter* sent_bytes = nullptr;
  struct End {
    prometheus::Counter* closed = nullptr;
    prometheus::Counter* failed = nullptr;  ///< null for kNone
  };
  std::array<End, kFlagCount> ends{};  ///< by flag, made when first needed; under Impl::mutex
};

struct ConnectionMetrics::Impl {
  explicit Impl(std::shared_ptr<prometheus::Registry> r)
      : registry(std::move(r)),
        opened(family("istio_tcp_connections_opened_total", "TCP connections opened")),
        closed(family("istio_tcp_connections_closed_total", "TCP connections closed, by how they ended")),
        failed(family("istio_tcp_connections_failed_total", "TCP connections closed with a flag")),
        received_bytes(family("istio_tcp_received_bytes_total", "Bytes that went from the source to the destination")),
        sent_bytes(family("istio_tcp_sent_bytes_total", "Bytes that went from the destination to the source")),
        violations(family("weft_hbone_violations_total", "What HBONE peers did that no honest one does, by kind")),
        revoked(family("weft_tunnels_revoked_total", "Live tunnels cut because a certificate was revoked")),
        decisions(
            family("weft_policy_decisions_total",
                   "Decisions of policy on connections into pods of this node, and what dry-run policies would have "
                   "decided otherwise")),
        sockets(prometheus::BuildGauge()
                    .Name("istio_tcp_sockets_open")
                    .Help("TCP connections that capture brought and that are open, a tunnel as one")
                    .Register(*registry)) {
    for (const auto reporter : {Reporter::kSource, Reporter::kDestination}) {
      open[static_cast<std::size_t>(reporter)] = &sockets.Add({{"reporter", name_of(reporter)}});
      revoked.Add({{"reporter", name_of(reporter)}});
    }
  }

  prometheus::Family<prometheus::Counter>& family(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  }

  std::shared_ptr<Handle> handle(const ConnectionResult& result) {
    const LabelKey key(result);
    const std::scoped_lock lock(mutex);
    auto& cached = handles[key.text()];
    if (!cached) {
      cached = std::make_shared<Handle>();
      cached->labels = labels_of(key.text());
      const Labels labels = with_flag(*cached, ResponseFlag::kNone);
      cached->opened = &opened.Add(labels);
      cached->received_bytes = &received_bytes.Add(labels);
      cached->sent_bytes = &sent_bytes.Add(labels);
    }
    return cached;
  }

  static Labels with_flag(const Handle& handle, ResponseFlag flag) {
    Labels labels = handle.labels;
    labels.emplace("response_flags", to_string(flag));
    return labels;
  }

  std::shared_ptr<prometheus::Registry> registry;
  prometheus::Family<prometheus::Counter>&opened, &closed, &failed, &received_bytes, &sent_bytes, &violations, &revoked,
      &decisions;
  prometheus::Family<prometheus::Gauge>& sockets;
  std::array<prometheus::Gauge*, 2> open{};  ///< by reporter
  std::mutex mutex;
  std::unordered_map<std::string, std::shared_ptr<Handle>> handles;   ///< under mutex
  std::unordered_map<std::string, prometheus::Counter*> by_decision;  ///< under mutex
};

ConnectionMetrics::ConnectionMetrics(std::shared_ptr<prometheus::Registry> registry)
    : impl_(std::make_unique<Impl>(std::move(registry))) {}

ConnectionMetrics::~ConnectionMetrics() = default;

std::shared_ptr<ConnectionMetrics::Handle> ConnectionMetrics::opened(const ConnectionResult& result) {
  auto handle = impl_->handle(result);
  handle->opened->Increment();
  return handle;
}

void ConnectionMetrics::bytes(Handle& handle, std::uint64_t sent_delta, std::uint64_t received_delta) {
  if (sent_delta != 0) handle.received_bytes->Increment(static_cast<double>(sent_delta));
  if (received_delta != 0) handle.sent_bytes->Increment(static_cast<double>(received_delta));
}

void ConnectionMetrics::violation(std::string_view kind) {
  impl_->violations.Add({{"kind", std::string(kind)}}).Increment();
}

void ConnectionMetrics::tunnel_revoked(Reporter reporter) {
  impl_->revoked.Add({{"reporter", name_of(reporter)}}).Increment();
}

void ConnectionMetrics::closed(const std::shared_ptr<Handle>& handle, const ConnectionResult& result) {
  const auto counted = handle ? handle : opened(result);
  const std::scoped_lock lock(impl_->mutex);
  auto& [closed, failed] = counted->ends[static_cast<std::size_t>(result.flag)];
  if (closed == nullptr) {
    const Labels labels = Impl::with_flag(*counted, result.flag);
    closed = &impl_->closed.Add(labels);
    if (result.flag != ResponseFlag::kNone) failed = &impl_->failed.Add(labels);
  }
  closed->Increment();
  if (failed != nullptr) failed->Increment();
}

void ConnectionMetrics::decided(const PolicyDecision& decision) {
  const std::scoped_lock lock(impl_->mutex);
  const auto count = [this](const std::string& policy, bool allowed, const char* mode) {
    const char* action = allowed ? "allow" : "deny";
    auto& counter = impl_->by_decision[policy + ' ' + action + ' ' + mode];
    if (counter == nullptr) {
      counter = &impl_->decisions.Add({{"policy", policy}, {"action", action}, {"mode", mode}});
    }
    counter->Increment();
  };
  count(decision.rule, decision.allowed, "enforced");
  for (const auto& policy : decision.dry_run_hits) count(policy, !decision.allowed, "dry_run");
}

OpenSocket ConnectionMetrics::socket(Reporter reporter) {
  prometheus::Gauge* gauge = impl_->open[static_cast<std::size_t>(reporter)];
  gauge->Increment();
  return OpenSocket(gauge);
}

void CountedSocketCloses::operator()(prometheus::Gauge* gauge) const { gauge->Decrement(); }

}  // namespace weft::telemetry
