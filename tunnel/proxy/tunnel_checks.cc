// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/tunnel_checks.h"

#include <map>

#include "tunnel/base/log.h"

namespace weft::proxy {

void cut_revoked(WorkerContext& worker, InboundTunnels& inbound) {
  if (worker.revocations == nullptr) return;
  struct Cut {
    hbone::Tunnel* tunnel;
    telemetry::Reporter reporter;
    std::string why;
  };
  std::map<const hbone::Tunnel*, Cut> cuts;
  const auto look = [&](hbone::Tunnel& tunnel, telemetry::Reporter reporter) {
    if (auto why = tunnel.find_revoked(*worker.revocations)) cuts[&tunnel] = {&tunnel, reporter, std::move(*why)};
  };
  worker.pool.for_each_open([&](hbone::Tunnel& tunnel) { look(tunnel, telemetry::Reporter::kSource); });
  inbound.for_each_open([&](hbone::Tunnel& tunnel) { look(tunnel, telemetry::Reporter::kDestination); });
  if (cuts.empty()) return;
  worker.connections.for_each([&](Connection& connection) {
    const auto found = cuts.find(connection.tunnel());
    if (found != cuts.end()) connection.cut(telemetry::ResponseFlag::kCertRevoked, found->second.why);
  });
  for (const auto& [key, cut] : cuts) {
    worker.metrics.tunnel_revoked(cut.reporter);
    log::warn("HBONE tunnel cut reporter={} local={} peer={} identity={} error={}",
              cut.reporter == telemetry::Reporter::kSource ? "source" : "destination", cut.tunnel->local().to_string(),
              cut.tunnel->peer().to_string(), cut.tunnel->peer_identity().to_uri(), log::quote(cut.why));
    cut.tunnel->close(cut.why);
  }
}

void drain_untrusted(WorkerContext& worker, InboundTunnels& inbound) {
  const auto look = [&](hbone::Tunnel& tunnel) {
    if (tunnel.draining()) return;
    const auto current = worker.certificates.get(tunnel.identity().bundle().identity);
    if (current == nullptr || current.get() == &tunnel.identity() || tunnel.is_trusted_by(*current)) return;
    log::info("HBONE tunnel drains: the root of its peer left peer={} identity={}", tunnel.peer().to_string(),
              tunnel.peer_identity().to_uri());
    tunnel.drain();
  };
  worker.pool.for_each_open(look);
  inbound.for_each_open(look);
}

}  // namespace weft::proxy
