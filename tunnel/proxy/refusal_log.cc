// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/refusal_log.h"

#include <utility>

#include "tunnel/base/log.h"
#include "tunnel/telemetry/access_log.h"

namespace weft::proxy {
namespace {

constexpr milliseconds kTellEvery{1'000};
constexpr std::size_t kMaxSources = 1024;
/// After that a source has all its lines again, and need not be remembered.
constexpr milliseconds kForgetAfter{10'000};

}  // namespace

RefusalLog::Source& RefusalLog::source_of(const IpAddress& address, SteadyTime now) {
  const auto found = sources_.find(address);
  if (found != sources_.end()) return found->second;
  if (sources_.size() >= kMaxSources) {
    std::erase_if(sources_, [now](const auto& entry) { return now - entry.second.last >= kForgetAfter; });
  }
  return sources_.size() < kMaxSources ? sources_[address] : others_;
}

void RefusalLog::write(const PodContext& pod, const telemetry::ConnectionResult& result) {
  const SteadyTime now = result.ended;
  const IpAddress& address = result.source.endpoint.address;
  Source& source = source_of(address, now);
  source.last = now;
  if (source.lines.take(now)) return telemetry::log_access(result);
  ++source.not_logged;
  if (now - source.told < kTellEvery) return;
  source.told = now;
  const auto not_logged = std::exchange(source.not_logged, 0);
  if (result.reporter == telemetry::Reporter::kSource) {
    return log::warn("connections of a pod are refused faster than they are logged pod={}/{} not_logged={}",
                     pod.namespace_name, pod.name, not_logged);
  }
  metrics_.violation("refusal_flood");
  log::warn(
      "connections of a peer are refused faster than they are logged pod={}/{} source={} violation={} not_logged={}",
      pod.namespace_name, pod.name, address.to_string(), "refusal_flood", not_logged);
}

}  // namespace weft::proxy
