// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound.h"

#include <algorithm>

#include "tunnel/hbone/headers.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound_policy.h"

namespace weft::proxy {

using telemetry::ResponseFlag;

namespace {
constexpr std::size_t kLoggedTrace = 128;
}  // namespace

Inbound::Inbound(WorkerContext& worker, std::shared_ptr<const PodContext> pod, hbone::Tunnel& tunnel,
                 std::int32_t stream_id, const hbone::H2Headers& headers, Charge charge)
    : Connection(worker, std::move(pod), std::move(charge)),
      tunnel_(&tunnel),
      stream_id_(stream_id),
      headers_(headers),
      pump_(*this),
      timer_(worker.loop) {
  result_.reporter = telemetry::Reporter::kDestination;
  result_.mutual_tls = true;
  result_.source.endpoint = tunnel.peer();
  result_.source.identity = tunnel.peer_identity();
  result_.hbone = tunnel.local();
  // One is 55 bytes long; the log is no place for 64 KiB.
  result_.traceparent = headers.traceparent.substr(0, kLoggedTrace);
}

void Inbound::queue(loop::StartQueue& starts) {
  pump_.set_stream(*tunnel_, stream_id_);
  tunnel_->session().attach(stream_id_, pump_);
  turn_ = std::make_unique<loop::StartTask>();
  turn_->queue(starts, [this] { start(); });
}

void Inbound::start() {
  turn_.reset();
  if (!check_request()) return;
  if (!allowed()) return refuse(401, ResponseFlag::kDeny, result_.error);
  auto fd = dial_application(worker_, *pod_, result_.source.endpoint.address, application_);
  if (!fd) return refuse(503, ResponseFlag::kConnect, fd.error().message());
  if (auto open = pump_.app().open(worker_.loop, std::move(*fd), true, pump_); !open) {
    return refuse(503, ResponseFlag::kConnect, open.error().message());
  }
  timer_.arm(worker_.config.connect_timeout,
             [this] { refuse(503, ResponseFlag::kConnect, "connect " + application_.to_string() + ": timed out"); });
}

bool Inbound::check_request() {
  const auto bad = [this](const std::string& why) {
    refuse(400, ResponseFlag::kConnect, why);
    return false;
  };
  if (headers_.method != "CONNECT") return bad("method '" + headers_.method.substr(0, 32) + "' is not CONNECT");
  const auto authority = hbone::parse_authority(headers_.authority);
  if (!authority) return bad(authority.error().message());
  if (!authority->address) {
    refuse(503, ResponseFlag::kConnect,
           "authority " + headers_.authority + ": a hostname that no workload here answers to");
    return false;
  }
  application_ = {*authority->address, authority->port};
  result_.destination.endpoint = application_;
  if (std::ranges::find(pod_->addresses, application_.address) == pod_->addresses.end()) {
    return bad("authority " + headers_.authority + " is not an address of this pod");
  }
  if (state::is_proxy_port(application_.port))
    return bad("authority " + headers_.authority + " names a port of the proxy itself");
  return true;
}

bool Inbound::allowed() {
  const bool allowed = allow_inbound(worker_, *pod_, application_, result_, hbone::forwarded_host(headers_.forwarded));
  if (const auto& own = result_.destination.workload) result_.destination.identity = own->identity();
  return allowed;
}

void Inbound::on_app_connected(const Error* error) {
  timer_.cancel();
  if (error != nullptr) {
    return refuse(503, ResponseFlag::kConnect, "connect " + application_.to_string() + ": " + error->message());
  }
  if (!allowed()) return refuse(401, ResponseFlag::kDeny, result_.error);
  if (tunnel_ == nullptr) return end(ResponseFlag::kNone, "the client went away");
  hbone::H2Headers answer;
  answer.status = "200";
  answer.baggage = hbone::baggage(*result_.destination.workload);
  answered_ = true;
  opened();
  if (auto accepted = tunnel_->session().accept(stream_id_, answer); !accepted) {
    return end(ResponseFlag::kNone, accepted.error().message());
  }
  pump_.start();
}

void Inbound::on_snapshot() {
  if (turn_) return;  // it asks when it starts
  if (!allowed()) cut(ResponseFlag::kDeny, result_.error);
}

void Inbound::refuse(int status, ResponseFlag flag, const std::string& why) {
  if (tunnel_ != nullptr && !answered_) {
    pump_.release_stream();
    std::exchange(tunnel_, nullptr)->session().refuse(stream_id_, status);
  }
  end(flag, why);
}

/// From the client's side: what it sent went to the application.
Connection::Bytes Inbound::bytes() const { return {pump_.to_app(), pump_.from_app()}; }

void Inbound::end(ResponseFlag flag, const std::string& why) {
  if (finished()) return;
  turn_.reset();
  timer_.cancel();
  tunnel_ = nullptr;
  pump_.cut(NGHTTP2_CANCEL);
  finish(flag, why);
}

void Inbound::cut(ResponseFlag flag, const std::string& why) {
  if (answered_) return end(flag, why);
  refuse(flag == ResponseFlag::kDeny ? 401 : 503, flag, why);
}

void Inbound::on_stream_lost(std::uint32_t error_code, const hbone::Tunnel::Ending* /*tunnel*/) {
  tunnel_ = nullptr;
  end(ResponseFlag::kNone, stream_error(error_code));
}

void Inbound::on_pump_finished() { end(ResponseFlag::kNone, ""); }

void Inbound::on_pump_broken(const std::string& why) {
  tunnel_ = nullptr;
  end(ResponseFlag::kNone, why);
}

}  // namespace weft::proxy
