// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/outbound.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tunnel/base/sys.h"
#include "tunnel/hbone/headers.h"
#include "tunnel/proxy/context.h"
#include "tunnel/state/demand.h"

namespace weft::proxy {

using telemetry::ResponseFlag;

namespace {

/// A server that goes away refuses what came too late for it. More than that often in a row is something else.
constexpr int kUnlookedAtMax = 3;

/// To nobody's address, before it is asked for again: much longer than a dial takes that is answered.
constexpr milliseconds kLongDial{1'000};

/// The control plane tells waypoints and nodes of a change at the same time, and a waypoint has more to do about it.
constexpr std::array<milliseconds, 6> kPauses{
    {milliseconds(25), milliseconds(50), milliseconds(100), milliseconds(200), milliseconds(400), milliseconds(800)}};

}  // namespace

Outbound::Outbound(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Fd accepted, const Endpoint& source,
                   const Endpoint& original, Charge charge)
    : Connection(worker, std::move(pod), std::move(charge)),
      accepted_(std::move(accepted)),
      original_(original),
      number_(worker.random()),
      timer_(worker.loop) {
  result_.reporter = telemetry::Reporter::kSource;
  result_.source.endpoint = source;
  result_.destination.endpoint = original;
}

Outbound::~Outbound() {
  if (in_pool_) worker_.pool.cancel(*this);
}

void Outbound::start() {
  timer_.arm(worker_.config.own_workload_timeout, [this] { waited_too_long(); });
  advance();
}

void Outbound::waited_too_long() {
  const state::WorkloadPtr own = own_workload();
  if (own != nullptr && !untold_.empty()) {
    return end(ResponseFlag::kConnect,
               "what " + untold_ + " is has not been told yet (is the control plane reachable?)");
  }
  if (state_ == State::kResolve) {
    return end(ResponseFlag::kConnect,
               "resolve " + destination_.hostname + ": no answer yet (do the node's DNS servers answer?)");
  }
  if (state_ == State::kWorkload || own == nullptr) {
    return end(ResponseFlag::kIdentityError,
               "the pod's own workload is not known yet (is the control plane reachable?)");
  }
  end(ResponseFlag::kIdentityError, worker_.certificates.why_none(own->identity()));
}

/// False: it is asked for, and on_snapshot() follows. What is behind a service, such as its waypoint, is asked for when
/// the service is known.
bool Outbound::is_told(const state::Workload& own, const IpAddress& address) {
  untold_.clear();
  if (!worker_.config.on_demand) return true;
  const auto names = state::names_to_ask(*worker_.state, own, address);
  if (worker_.node.is_told(names, *worker_.state)) return true;
  untold_ = address.to_string();
  return false;
}

void Outbound::on_snapshot() {
  if (state_ == State::kWorkload || state_ == State::kResolve || state_ == State::kCertificate) return advance();
  const bool connecting = state_ == State::kDial || state_ == State::kTunnel || state_ == State::kAnswer;
  if (connecting && is_overtaken()) begin_again();
}

std::string Outbound::to_waypoint() const {
  return destination_.waypoint ? "waypoint " + state::to_string(*destination_.waypoint) + ": " : "";
}

/// Whether the endpoint has joined the mesh since it was chosen, or left it: what is on its way there may be dropped.
/// Or it goes through a waypoint now, or through that one no more.
bool Outbound::is_overtaken() const {
  const state::WorkloadPtr own = own_workload();
  if (own == nullptr) return false;
  const state::WorkloadPtr& chosen = destination_.workload;
  const state::Destination routed = worker_.state->route(*own, original_, number_);
  if (!named_ && routed.waypoint != destination_.waypoint) return true;
  if (chosen == nullptr) return routed.kind != destination_.kind;
  const auto now = worker_.state->workload_by_uid(chosen->uid);
  return now != nullptr && now->protocol != chosen->protocol;
}

void Outbound::on_certificates() {
  if (state_ == State::kCertificate) advance();
}

/// Everything up to the first thing that must be waited for.
void Outbound::advance() {
  const state::WorkloadPtr own = own_workload();
  if (own == nullptr) return;
  if (state_ == State::kWorkload && !choose_destination(own)) return;
  if (!destination_.hostname.empty() && !resolve(*own)) return;
  if (destination_.kind != state::Destination::Kind::kHbone) return dial_direct();
  if (worker_.certificates.get(own->identity()) == nullptr) {
    worker_.node.want_certificate(own->identity());
    state_ = State::kCertificate;
    return;
  }
  request_tunnel(*own);
}

bool Outbound::choose_destination(const state::WorkloadPtr& own) {
  result_.source.workload = own;
  result_.source.identity.reset();
  result_.destination = {original_, nullptr, {}};
  result_.hbone = {};
  result_.mutual_tls = false;
  named_.reset();
  if (!is_told(*own, original_.address)) return false;
  destination_ = worker_.state->route(*own, original_, number_, avoid_.get());
  const std::string why = state::egress_refusal(*worker_.state, worker_.config.egress, original_, destination_);
  if (!why.empty()) {
    attempt_failed(ResponseFlag::kUnregistered, why, Again::kNo);
    return false;
  }
  return take_destination(*own);
}

/// Writes down where it goes. False where it must not.
bool Outbound::take_destination(const state::Workload& own) {
  result_.destination.workload = destination_.workload;
  result_.service = destination_.service;
  if (destination_.kind == state::Destination::Kind::kRefused) {
    attempt_failed(ResponseFlag::kConnect, destination_.reason, Again::kNo);
    return false;
  }
  if (!destination_.hostname.empty()) return true;
  if (destination_.kind == state::Destination::Kind::kHbone) {
    result_.destination.endpoint = destination_.target;
    result_.hbone = destination_.hbone;
    result_.source.identity = own.identity();
    result_.mutual_tls = true;
  } else if (destination_.kind == state::Destination::Kind::kDirect) {
    result_.destination.endpoint = destination_.target;
  }
  return true;
}

void Outbound::request_tunnel(const state::Workload& own) {
  state_ = State::kTunnel;
  timer_.cancel();
  hbone::PoolKey key;
  key.pod_slot = pod_->slot;
  key.workload_uid = destination_.workload->uid;
  key.gateway = destination_.hbone;
  for (const auto& identity : destination_.expected_identities) key.expected.push_back(identity.to_uri());
  key.expected.insert(key.expected.end(), destination_.expected_sans.begin(), destination_.expected_sans.end());
  std::ranges::sort(key.expected);
  in_pool_ = true;
  charge_.resize(1);
  // The dial may happen when this connection is gone already: it holds what it needs.
  worker_.pool.request(
      key, worker_.certificates.get(own.identity()),
      [&worker = worker_, pod = pod_, gateway = destination_.hbone] { return dial_tunnel(worker, *pod, gateway); },
      *this);
}

void Outbound::on_no_tunnel(hbone::TunnelPhase phase, const std::string& why) {
  in_pool_ = false;
  const std::string text = to_waypoint() + "connect " + destination_.hbone.to_string() + ": " + why;
  switch (phase) {
    case hbone::TunnelPhase::kNotBegun:
      return end(ResponseFlag::kOverflow, text);
    case hbone::TunnelPhase::kConnect:
      return attempt_failed(why.starts_with("timed out") ? ResponseFlag::kNetworkPolicy : ResponseFlag::kConnect, text,
                            Again::kElsewhere);
    case hbone::TunnelPhase::kTls:
      return attempt_failed(ResponseFlag::kTlsFailure, text, Again::kElsewhere);
    case hbone::TunnelPhase::kRevoked:
      return attempt_failed(ResponseFlag::kCertRevoked, text, Again::kElsewhere);
    case hbone::TunnelPhase::kOpen:
      return attempt_failed(ResponseFlag::kH2HandshakeFailure, text, Again::kElsewhere);
  }
}

void Outbound::on_tunnel(hbone::Tunnel& tunnel) {
  in_pool_ = false;
  state_ = State::kAnswer;
  hbone::H2Headers headers;
  headers.method = "CONNECT";
  headers.authority = destination_.target.to_string();
  headers.baggage = hbone::baggage(*result_.source.workload);
  headers.forwarded =
      hbone::forwarded(result_.source.endpoint, destination_.service ? destination_.service->hostname : "");
  headers.traceparent = hbone::traceparent(result_.traceparent, worker_.random(), worker_.random());
  result_.traceparent = headers.traceparent;
  result_.destination.identity = tunnel.peer_identity();
  const bool by_proxy =
      destination_.waypoint || (destination_.workload != nullptr && destination_.workload->native_tunnel);
  stream_ = std::make_unique<StreamPump>(by_proxy ? StreamPump::Peer::kProxy : StreamPump::Peer::kServer,
                                         static_cast<StreamPump::Events&>(*this));
  if (auto open = stream_->app().open(worker_.loop, std::move(accepted_), false, *stream_); !open) {
    return end(ResponseFlag::kConnect, open.error().message());
  }
  auto stream = tunnel.session().connect(headers, *stream_);
  if (!stream) return attempt_failed(ResponseFlag::kH2HandshakeFailure, stream.error().message(), Again::kAnywhere);
  stream_->set_stream(tunnel, *stream);
  timer_.arm(worker_.config.connect_timeout, [this] {
    attempt_failed(ResponseFlag::kConnect,
                   to_waypoint() + "CONNECT " + destination_.target.to_string() + ": no answer in time",
                   Again::kElsewhere);
  });
}

void Outbound::on_response(const hbone::H2Headers& headers) {
  timer_.cancel();
  if (headers.status == "200") {
    state_ = State::kCopy;
    opened();
    stream_->start();
    return;
  }
  const std::string text = to_waypoint() + "CONNECT " + destination_.target.to_string() + ": status " + headers.status;
  if (headers.status == "401") {
    const char* whose = destination_.waypoint ? "waypoint's" : "destination's";
    return end(ResponseFlag::kDeny, text + " (denied by the " + whose + " policy)");
  }
  if (headers.status != "503") return attempt_failed(ResponseFlag::kConnect, text, Again::kNo);
  attempt_failed(ResponseFlag::kConnect, text, destination_.waypoint ? Again::kLater : Again::kElsewhere);
}

void Outbound::on_stream_lost(std::uint32_t error_code, const hbone::Tunnel::Ending* tunnel) {
  // A TLS 1.3 server judges the client's certificate when the first streams are under way already.
  if (tunnel != nullptr && tunnel->phase == hbone::TunnelPhase::kTls) return on_no_tunnel(tunnel->phase, tunnel->why);
  attempt_failed(ResponseFlag::kConnect,
                 to_waypoint() + "CONNECT " + destination_.target.to_string() + ": " + stream_error(error_code),
                 error_code == NGHTTP2_REFUSED_STREAM ? Again::kUnlookedAt : Again::kAnywhere);
}

void Outbound::dial_direct() {
  state_ = State::kDial;
  timer_.cancel();
  charge_.resize(2);
  const bool unknown = destination_.kind == state::Destination::Kind::kUnknown;
  const Endpoint to = unknown ? original_ : destination_.target;
  dialled_ = worker_.loop.now();
  auto fd = dial_from_pod(worker_, *pod_, to);
  if (!fd) return attempt_failed(ResponseFlag::kConnect, fd.error().message(), Again::kElsewhere);
  direct_ = std::make_unique<SocketPump>(static_cast<PumpOwner&>(*this), worker_.scratch, worker_.loop);
  direct_->on_right_connected([this, to](const Error* error) {
    timer_.cancel();
    if (error != nullptr) {
      return attempt_failed(ResponseFlag::kConnect, "connect " + to.to_string() + ": " + error->message(),
                            Again::kElsewhere);
    }
    if (dial_took_long()) return begin_again();
    state_ = State::kCopy;
    opened();
    direct_->start();
  });
  auto left = direct_->left().open(worker_.loop, std::move(accepted_), false, direct_->left_events());
  auto right = direct_->right().open(worker_.loop, std::move(*fd), true, direct_->right_events());
  if (!left || !right) return end(ResponseFlag::kConnect, (left ? right : left).error().message());
  timer_.arm(worker_.config.connect_timeout, [this, to] {
    attempt_failed(ResponseFlag::kConnect, "connect " + to.to_string() + ": timed out", Again::kElsewhere);
  });
}

/// On demand: so long that somebody may have come to what was nobody's address, and has to be asked for again. Once.
bool Outbound::dial_took_long() {
  const state::WorkloadPtr own = own_workload();
  const bool asks = worker_.config.on_demand && own != nullptr && !asked_again_;
  if (!asks || worker_.loop.now() - dialled_ < kLongDial) return false;
  const bool told = is_told(*own, original_.address) && (!named_ || is_told(*own, named_->address));
  asked_again_ = !told;
  return !told;
}

/// Nothing of the application's bytes has been read yet, so nothing is lost by another attempt.
void Outbound::attempt_failed(ResponseFlag flag, const std::string& why, Again again) {
  if (finished()) return;
  const std::string text = first_failure_.empty() ? why : first_failure_ + "; then " + why;
  if (!may_try_again(again)) return end(flag, text);
  // The pauses would say the same again and again.
  if (first_failure_.find(why) == std::string::npos) first_failure_ = text;
  begin_again();
}

void Outbound::begin_again() {
  if (in_pool_) worker_.pool.cancel(*this);
  in_pool_ = false;
  take_back_application();
  state_ = State::kAgain;
  // Not from here: this may come from inside the session or the pump that failed.
  timer_.arm(std::exchange(pause_, milliseconds(0)), [this] {
    state_ = State::kWorkload;
    start();
  });
}

/// Counts the attempt that is to come, and says whom it avoids.
bool Outbound::may_try_again(Again again) {
  if (again == Again::kNo) return false;
  if (again == Again::kUnlookedAt) return ++unlooked_at_ <= kUnlookedAtMax;
  if (may_try_at_once(again)) return true;
  if (again != Again::kLater || pauses_ == kPauses.size()) return false;
  pause_ = kPauses[pauses_++];
  return true;
}

bool Outbound::may_try_at_once(Again again) {
  const state::WorkloadPtr own = own_workload();
  if (tried_again_ || own == nullptr || destination_.workload == nullptr) return false;
  tried_again_ = true;
  // A name that leads to a mesh workload is still the endpoint that failed.
  const state::WorkloadPtr failed = named_ ? named_->endpoint : destination_.workload;
  const auto other = worker_.state->route(*own, original_, number_, failed.get());
  const bool has_other = (destination_.service != nullptr || destination_.waypoint) && other.workload != nullptr &&
                         other.workload != failed && other.kind != state::Destination::Kind::kRefused;
  if (has_other) avoid_ = failed;
  return has_other || has_other_address() || again == Again::kAnywhere;
}

void Outbound::take_back_application() {
  if (stream_) {
    accepted_ = stream_->app().release();
    stream_->cut(NGHTTP2_CANCEL);
    spent_streams_.push_back(std::move(stream_));
  }
  if (direct_) {
    accepted_ = direct_->left().release();
    direct_->cut();
    spent_direct_ = std::move(direct_);
  }
}

void Outbound::on_pump_finished() { end(ResponseFlag::kNone, ""); }

void Outbound::on_pump_broken(const std::string& why) {
  if (state_ == State::kCopy) return end(ResponseFlag::kNone, why);
  end(ResponseFlag::kConnect, "CONNECT " + destination_.target.to_string() + ": " + why);
}

Connection::Bytes Outbound::bytes() const {
  if (stream_) return {stream_->from_app(), stream_->to_app()};
  if (direct_) return {direct_->left_to_right(), direct_->right_to_left()};
  return {};
}

const char* Outbound::direction() const {
  return destination_.kind == state::Destination::Kind::kHbone ? "outbound" : "passthrough";
}

/// The one way out. Whatever is still open is reset: the application sees a refusal, not an empty answer.
void Outbound::end(ResponseFlag flag, const std::string& why) {
  if (finished()) return;
  timer_.cancel();
  if (stream_) stream_->cut(NGHTTP2_CANCEL);
  if (direct_) direct_->cut();
  sys::close_with_reset(accepted_);
  finish(flag, why);
}

void Outbound::cut(ResponseFlag flag, const std::string& why) { end(flag, why); }

}  // namespace weft::proxy
