// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "tunnel/base/log.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound.h"
#include "tunnel/proxy/inbound_policy.h"

namespace weft::proxy {

using telemetry::ResponseFlag;

namespace {

/// Handshakes under way in one worker: of one source, and to one pod.
constexpr std::size_t kHandshakesPerSource = 128;
constexpr std::size_t kHandshakesPerPod = 512;
/// Tunnels of one source to one pod in one worker: 200 streams each.
constexpr std::size_t kTunnelsPerSource = 512;
/// An unused tunnel lives so many times as long as an honest client keeps one.
constexpr int kIdleFactor = 3;
constexpr milliseconds kLogInterval{1'000};

void release(std::map<IpAddress, std::size_t>& counts, const IpAddress& source) {
  const auto found = counts.find(source);
  if (found != counts.end() && --found->second == 0) counts.erase(found);
}

}  // namespace

/// An accepted connection whose pod has no certificate yet.
struct InboundTunnels::Waiting {
  Waiting(loop::EventLoop& loop, std::shared_ptr<const PodContext> p, Fd f, const Endpoint& e, Charge c)
      : pod(std::move(p)), fd(std::move(f)), peer(e), charge(std::move(c)), timer(loop) {}
  std::shared_ptr<const PodContext> pod;
  Fd fd;
  Endpoint peer;
  Charge charge;
  loop::Timer timer;
};

InboundTunnels::InboundTunnels(WorkerContext& worker) : worker_(worker) {}
InboundTunnels::~InboundTunnels() = default;

void InboundTunnels::accept(std::shared_ptr<const PodContext> pod, Fd fd, const Endpoint& peer, Charge charge) {
  const auto own = worker_.state ? worker_.state->workload_by_uid(pod->workload_uid) : nullptr;
  auto identity = own ? worker_.certificates.get(own->identity()) : nullptr;
  if (identity != nullptr) return serve(std::move(pod), std::move(fd), peer, std::move(charge), std::move(identity));
  if (own != nullptr) worker_.node.want_certificate(own->identity());
  const std::uint64_t id = next_waiting_++;
  auto waiting = std::make_unique<Waiting>(worker_.loop, std::move(pod), std::move(fd), peer, std::move(charge));
  waiting->timer.arm(worker_.config.own_workload_timeout, [this, id] {
    const auto node = waiting_.extract(id);
    const Waiting& given_up = *node.mapped();
    const auto workload = worker_.state ? worker_.state->workload_by_uid(given_up.pod->workload_uid) : nullptr;
    record_refused(worker_, *given_up.pod, given_up.peer, ResponseFlag::kIdentityError,
                   workload ? worker_.certificates.why_none(workload->identity())
                            : "the pod's own workload is not known yet (is the control plane reachable?)");
  });
  waiting_.emplace(id, std::move(waiting));
}

void InboundTunnels::go_on() {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    Waiting& waiting = *it->second;
    const auto own = worker_.state ? worker_.state->workload_by_uid(waiting.pod->workload_uid) : nullptr;
    auto identity = own ? worker_.certificates.get(own->identity()) : nullptr;
    if (identity == nullptr) {
      if (own != nullptr) worker_.node.want_certificate(own->identity());
      ++it;
      continue;
    }
    serve(waiting.pod, std::move(waiting.fd), waiting.peer, std::move(waiting.charge), std::move(identity));
    it = waiting_.erase(it);
  }
}

/// A peer may hold so much and no more: a connection over it is closed at once. Where many of them together hold all of
/// a pod's handshakes, the oldest makes room: those of honest peers take milliseconds. Others are not touched.
bool InboundTunnels::within_limits(const PodContext& pod, const Endpoint& peer) {
  Load& load = loads_[pod.slot];
  const auto of = [&](const std::map<IpAddress, std::size_t>& counts) {
    const auto found = counts.find(peer.address);
    return found == counts.end() ? 0 : found->second;
  };
  if (of(load.handshakes_by_source) >= kHandshakesPerSource) {
    count_limit(pod, peer, "handshake_limit");
    return false;
  }
  if (of(load.tunnels_by_source) >= kTunnelsPerSource) {
    count_limit(pod, peer, "tunnel_limit");
    return false;
  }
  if (load.handshakes.size() >= kHandshakesPerPod) {
    hbone::Tunnel& oldest = *load.handshakes.begin()->second;
    count_limit(pod, oldest.peer(), "handshake_limit");
    oldest.close("TLS handshake: not done when too many others had begun");
  }
  return true;
}

void InboundTunnels::count_limit(const PodContext& pod, const Endpoint& peer, const char* kind) {
  worker_.metrics.violation(kind);
  const auto now = worker_.loop.now();
  if (now - limit_logged_ < kLogInterval) return;
  limit_logged_ = now;
  const Load& load = loads_[pod.slot];
  log::warn("HBONE connections of a peer are refused pod={}/{} source={} violation={} handshakes={} sources={}",
            pod.namespace_name, pod.name, peer.address.to_string(), kind, load.handshakes.size(),
            load.tunnels_by_source.size());
}

void InboundTunnels::serve(std::shared_ptr<const PodContext> pod, Fd fd, const Endpoint& peer, Charge charge,
                           std::shared_ptr<const hbone::TlsIdentity> identity) {
  const auto state = worker_.pods.find(pod->slot);
  if (state == worker_.pods.end() || !within_limits(*pod, peer)) return;
  const std::string trust_domain = identity->bundle().identity.trust_domain;
  hbone::TunnelContext context = worker_.tunnel_context();
  context.starts = &state->second->starts;
  auto tunnel = hbone::Tunnel::create(
      context, *this, hbone::Tunnel::Side::kServer, std::move(fd), std::move(identity),
      [&](SSL* ssl) { hbone::expect_client(ssl, trust_domain); }, worker_.config.connect_timeout);
  if (!tunnel) return record_refused(worker_, *pod, peer, ResponseFlag::kTlsFailure, tunnel.error().message());
  Load& load = loads_[pod->slot];
  const std::uint64_t number = ++tunnels_made_;
  load.handshakes.emplace(number, tunnel->get());
  ++load.handshakes_by_source[peer.address];
  ++load.tunnels_by_source[peer.address];
  const hbone::Tunnel* key = tunnel->get();
  tunnels_.emplace(key, Served{std::move(pod), state->second, std::move(charge), std::move(*tunnel), peer, number,
                               false, std::make_unique<loop::Timer>(worker_.loop),
                               worker_.metrics.socket(telemetry::Reporter::kDestination)});
}

void InboundTunnels::handshake_over(const Served& served) {
  Load& load = loads_[served.pod->slot];
  load.handshakes.erase(served.number);
  release(load.handshakes_by_source, served.peer.address);
}

void InboundTunnels::on_tunnel_open(hbone::Tunnel& tunnel) {
  const auto it = tunnels_.find(&tunnel);
  if (it == tunnels_.end()) return;
  it->second.opened = true;
  handshake_over(it->second);
  update_idle(it->second);
}

void InboundTunnels::on_tunnel_changed(hbone::Tunnel& tunnel) {
  if (const auto it = tunnels_.find(&tunnel); it != tunnels_.end()) update_idle(it->second);
}

/// An honest client closes what it does not use long before this.
void InboundTunnels::update_idle(Served& served) {
  if (!served.tunnel->open() || served.tunnel->session().open_streams() > 0) return;
  served.idle->arm(kIdleFactor * worker_.config.idle_tunnel_timeout,
                   [tunnel = served.tunnel.get()] { tunnel->drain(); });
}

void InboundTunnels::on_tunnel_request(hbone::Tunnel& tunnel, std::int32_t stream_id, const hbone::H2Headers& headers) {
  const auto it = tunnels_.find(&tunnel);
  if (it == tunnels_.end()) return;
  Served& served = it->second;
  served.idle->cancel();
  Admission admission = worker_.limits->admit(served.state->use, 1);
  if (admission.refused != Shed::kNone) return refuse_stream(served, stream_id, admission.refused);
  auto& added = worker_.connections.add(
      std::make_unique<Inbound>(worker_, served.pod, tunnel, stream_id, headers, std::move(admission.charge)));
  static_cast<Inbound&>(added).queue(served.state->starts);
}

/// 503: the client may ask another endpoint of the service.
void InboundTunnels::refuse_stream(const Served& served, std::int32_t stream_id, Shed reason) {
  served.tunnel->session().refuse(stream_id, 503);
  telemetry::ConnectionResult result;
  result.reporter = telemetry::Reporter::kDestination;
  result.mutual_tls = true;
  result.source.endpoint = served.tunnel->peer();
  result.source.identity = served.tunnel->peer_identity();
  result.destination.endpoint = served.tunnel->local();
  result.flag = ResponseFlag::kOverflow;
  result.error = worker_.limits->why(reason, *served.state->use);
  record_refused(worker_, *served.pod, std::move(result));
}

void InboundTunnels::on_tunnel_bad_request(hbone::Tunnel& tunnel, std::string_view reason) {
  const auto it = tunnels_.find(&tunnel);
  if (it == tunnels_.end()) return;
  record_refused(worker_, *it->second.pod, tunnel.peer(), ResponseFlag::kConnect, std::string(reason));
}

void InboundTunnels::on_tunnel_closed(hbone::Tunnel& tunnel, hbone::TunnelPhase phase, const std::string& why) {
  auto node = tunnels_.extract(&tunnel);
  if (node.empty()) return;
  const Served& served = node.mapped();
  if (!served.opened) handshake_over(served);
  Load& load = loads_[served.pod->slot];
  release(load.tunnels_by_source, served.peer.address);
  if (load.tunnels_by_source.empty()) loads_.erase(served.pod->slot);
  if (phase == hbone::TunnelPhase::kRevoked) {
    record_refused(worker_, *served.pod, served.peer, ResponseFlag::kCertRevoked, why);
  } else if (phase != hbone::TunnelPhase::kOpen) {
    const bool tls = phase == hbone::TunnelPhase::kTls;
    record_refused(worker_, *served.pod, served.peer, tls ? ResponseFlag::kTlsFailure : ResponseFlag::kConnect,
                   tls ? why : "HBONE connection: " + why);
  }
  if (const auto kind = tunnel.violation(); !kind.empty()) {
    worker_.metrics.violation(kind);
    log::warn("HBONE tunnel closed pod={}/{} source={} identity={} violation={} error={}", served.pod->namespace_name,
              served.pod->name, tunnel.peer().to_string(), tunnel.peer_identity().to_uri(), kind, log::quote(why));
  } else if (phase == hbone::TunnelPhase::kOpen && !why.empty()) {
    log::info("HBONE tunnel closed pod={}/{} source={} identity={} error={}", served.pod->namespace_name,
              served.pod->name, tunnel.peer().to_string(), tunnel.peer_identity().to_uri(), log::quote(why));
  }
  worker_.loop.defer_delete(std::move(node.mapped().tunnel));
}

void InboundTunnels::close_pod(std::uint32_t slot, const std::string& why) {
  std::erase_if(waiting_, [&](const auto& entry) { return entry.second->pod->slot == slot; });
  std::vector<hbone::Tunnel*> cut;
  for (auto& [key, served] : tunnels_) {
    if (served.pod->slot == slot) cut.push_back(served.tunnel.get());
  }
  for (hbone::Tunnel* tunnel : cut) tunnel->close(why);
}

void InboundTunnels::for_each_open(const std::function<void(hbone::Tunnel&)>& visit) {
  std::vector<hbone::Tunnel*> open;
  for (auto& [key, served] : tunnels_) {
    if (served.tunnel->open()) open.push_back(served.tunnel.get());
  }
  for (hbone::Tunnel* tunnel : open) {
    if (tunnel->open()) visit(*tunnel);
  }
}

void InboundTunnels::drain() {
  for (auto& [key, served] : tunnels_) served.tunnel->drain();
}

void InboundTunnels::drain_pod(std::uint32_t slot) {
  for (auto& [key, served] : tunnels_) {
    if (served.pod->slot == slot) served.tunnel->drain();
  }
}

}  // namespace weft::proxy
