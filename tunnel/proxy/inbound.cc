// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound.h"

#include "tunnel/hbone/headers.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound_policy.h"
#include "tunnel/proxy/proxy_header.h"

namespace weft::proxy {

using telemetry::ResponseFlag;

namespace {
constexpr std::size_t kLoggedTrace = 128;
/// What a waypoint's pod is not known to be the waypoint of is refused when so much time has passed: until then this
/// node may hear of a change that the client's knows already, or the client's, which then goes elsewhere.
constexpr milliseconds kOtherSnapshot{2'000};
}  // namespace

Inbound::Inbound(WorkerContext& worker, std::shared_ptr<const PodContext> pod, hbone::Tunnel& tunnel,
                 std::int32_t stream_id, const hbone::H2Headers& headers, Charge charge)
    : Connection(worker, std::move(pod), std::move(charge)),
      tunnel_(&tunnel),
      stream_id_(stream_id),
      headers_(headers),
      received_(worker.loop.now()),
      pump_(StreamPump::Peer::kClient, *this),
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
  if (waiting_) timer_.cancel();
  waiting_ = false;
  if (!check_request()) return;
  if (!allowed()) return refuse(401, ResponseFlag::kDeny, result_.error);
  ask_ahead(worker_, *result_.destination.workload, result_.source.endpoint.address);
  auto fd = dial();
  if (!fd) return refuse(503, ResponseFlag::kConnect, fd.error().message());
  if (auto open = pump_.app().open(worker_.loop, std::move(*fd), true, pump_); !open) {
    return refuse(503, ResponseFlag::kConnect, open.error().message());
  }
  timer_.arm(worker_.config.connect_timeout,
             [this] { refuse(503, ResponseFlag::kConnect, "connect " + target_.dialled.to_string() + ": timed out"); });
}

/// On loopback the pod itself is the client: an address of somebody else is no use there.
Result<Fd> Inbound::dial() {
  if (target_.dialled.address.is_loopback()) return dial_from_pod(worker_, *pod_, target_.dialled);
  return dial_application(worker_, *pod_, result_.source.endpoint.address, target_.dialled);
}

Result<void> Inbound::introduce() {
  if (!target_.proxy_header) return {};
  const auto header = proxy_header(result_.source.endpoint, target_.asked, *result_.source.identity);
  if (!header) return Failure(header.error());
  pump_.begin_with(*header);
  return {};
}

bool Inbound::check_request() {
  if (headers_.method != "CONNECT") {
    refuse(400, ResponseFlag::kConnect, "method '" + headers_.method.substr(0, 32) + "' is not CONNECT");
    return false;
  }
  const state::WorkloadPtr own = own_workload();
  auto target = inbound_target(worker_.state.get(), own.get(), *pod_, result_.hbone.address, headers_.authority);
  if (!target) {
    const auto left = received_ + kOtherSnapshot - worker_.loop.now();
    waiting_ = target.error().may_change && left > SteadyTime::duration::zero();
    if (waiting_) {
      timer_.arm(std::chrono::ceil<milliseconds>(left), [this] { start(); });
      return false;
    }
    refuse(target.error().status, ResponseFlag::kConnect, target.error().why);
    return false;
  }
  target_ = std::move(*target);
  result_.destination.endpoint = target_.asked;
  return true;
}

bool Inbound::allowed() {
  const bool allowed =
      allow_inbound(worker_, *pod_, target_.application, result_, hbone::forwarded_host(headers_.forwarded));
  if (target_.service) result_.service = target_.service;
  if (const auto& own = result_.destination.workload) result_.destination.identity = own->identity();
  return allowed;
}

void Inbound::on_app_connected(const Error* error) {
  timer_.cancel();
  if (error != nullptr) {
    return refuse(503, ResponseFlag::kConnect, "connect " + target_.dialled.to_string() + ": " + error->message());
  }
  if (!allowed()) return refuse(401, ResponseFlag::kDeny, result_.error);
  if (auto introduced = introduce(); !introduced) {
    return refuse(503, ResponseFlag::kConnect, introduced.error().message());
  }
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
  if (waiting_) return start();
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
