// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tunnel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tunnel/base/sys.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {
namespace {

/// No more frames are made while this much waits for the socket.
constexpr std::size_t kOutputHigh = 256U << 10;
/// Output is sent before the end of the turn once this much has gathered.
constexpr std::size_t kOutputSend = 128U << 10;
/// While its worker keeps too much, a tunnel whose streams keep more than this is not read, and looked at again so
/// often.
constexpr std::size_t kKeptShare = 256U << 10;
constexpr milliseconds kPause{5};
constexpr milliseconds kPingInterval{10'000};
constexpr int kPingsUnanswered = 2;  // 20 s without an answer
/// How long a peer may take nothing of what waits for it.
constexpr int kUserTimeoutMs = 30'000;
/// How long a client may take to hear that the server goes away.
constexpr milliseconds kDrainNotice{1'000};
/// The wall clock is looked at again so often: it may be set.
constexpr milliseconds kExpiryLook{3'600'000};

}  // namespace

Result<std::unique_ptr<Tunnel>> Tunnel::create(TunnelContext context, TunnelOwner& owner, Side side, Fd fd,
                                               std::shared_ptr<const TlsIdentity> identity,
                                               const std::function<void(SSL*)>& prepare, milliseconds timeout) {
  SSL_CTX* ssl_context = side == Side::kClient ? identity->client_context() : identity->server_context();
  std::unique_ptr<Tunnel> tunnel(new Tunnel(context, owner, side, std::move(fd), std::move(identity)));
  auto tls = TlsStream::create(ssl_context, side);
  if (!tls) return Failure(tls.error());
  tunnel->tls_ = std::move(*tls);
  prepare(tunnel->tls_->ssl());
  refuse_revoked(tunnel->tls_->ssl(), context.revocations);
  // Where a peer stops reading no PING gets through to it; the kernel knows. A socket that is not TCP (tests) does not.
  (void)sys::set_option(tunnel->fd_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
  auto watcher = context.loop.watch(tunnel->fd_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP,
                                    [raw = tunnel.get()](std::uint32_t events) { raw->on_event(events); });
  if (!watcher) return Failure(watcher.error());
  tunnel->watcher_ = std::move(*watcher);
  tunnel->timer_.arm(timeout, [raw = tunnel.get()] {
    if (raw->state_ == State::kConnecting) {
      raw->fail("timed out (is a NetworkPolicy or a firewall blocking the port?)");
    } else {
      raw->fail("TLS handshake: timed out");
    }
  });
  return tunnel;
}

Tunnel::~Tunnel() { *alive_ = false; }

void Tunnel::on_event(std::uint32_t events) {
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) fin_seen_ = true;
  if ((events & EPOLLOUT) != 0 && !writable_) {
    writable_ = true;
    schedule_flush();
  }
  const bool readable = (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (state_ == State::kOpen) {
    if (readable) read_socket();
    return;
  }
  unread_ = unread_ || readable;
  if (context_.starts == nullptr) return go_on_opening();
  opening_.queue(*context_.starts, [this] { go_on_opening(); });
}

/// A step of what is expensive: key exchange, signatures, certificates.
void Tunnel::go_on_opening() {
  if (state_ == State::kConnecting && !connected()) return;
  if (std::exchange(unread_, false)) read_socket();
}

/// False while the connection is not there, or when it has failed.
bool Tunnel::connected() {
  if (const int error = sys::take_error(fd_.get()); error != 0) {
    fail(strerrordesc_np(error));
    return false;
  }
  auto peer = sys::peer_endpoint(fd_.get());
  if (!peer) {
    if (peer.error().errno_value != ENOTCONN) fail(peer.error().message());
    return false;  // else not connected yet
  }
  auto local = sys::local_endpoint(fd_.get());
  if (!local) {
    fail(local.error().message());
    return false;
  }
  peer_ = *peer;
  local_ = *local;
  state_ = State::kHandshake;
  if (side_ == Side::kClient) go_on_handshake();
  return state_ != State::kClosed;
}

/// One go at once; a peer that sends much waits for its turn among the others that do.
void Tunnel::read_socket() {
  if (!read_rest_.queued() && read_some(loop::kLightQuantum)) queue_read();
}

void Tunnel::queue_read() {
  read_rest_.queue(context_.loop, [this] {
    if (read_some(loop::kBulkQuantum)) queue_read();
  });
}

/// True where there may be more.
bool Tunnel::read_some(std::size_t at_most) {
  if (context_.kept.is_over() && *kept_ > kKeptShare) {
    pause_timer_.arm(kPause, [this] { read_socket(); });
    return false;
  }
  const auto room = context_.scratch.network().first(at_most);
  const auto got = sys::recv(fd_.get(), room);
  if (!got) {
    fail(got.error().message());
    return false;
  }
  if (!got->has_value()) return false;
  const std::size_t n = **got;
  if (n == 0) {
    fail(state_ == State::kOpen && heard_ && session_->open_streams() == 0 ? "" : "the peer closed the connection");
    return false;
  }
  take_in(room.first(n));
  if (state_ == State::kClosed) return false;
  if (peer_finished_) {
    fail(session_ && session_->open_streams() == 0 ? "" : "the peer closed the tunnel");
    return false;
  }
  // A short read has emptied the socket: what comes later is a new event.
  return n == room.size() || fin_seen_;
}

void Tunnel::take_in(std::span<const std::byte> bytes) {
  tls_->feed(bytes);
  if (state_ == State::kHandshake && !go_on_handshake()) return;
  while (state_ == State::kOpen) {
    const auto room = context_.scratch.plain();
    const auto plain = tls_->read(room);
    if (!plain) {
      fail(plain.error().message());
      return;
    }
    if (plain->bytes > 0) {
      heard_ = true;
      if (auto received = session_->receive(room.first(plain->bytes)); !received) {
        flush();  // nghttp2 has queued a GOAWAY that says why
        fail(received.error().message());
        return;
      }
    }
    if (plain->closed) peer_finished_ = true;
    if (plain->bytes < room.size()) break;
  }
  schedule_flush();
}

/// False when the handshake needs more input or has failed.
bool Tunnel::go_on_handshake() {
  const auto done = tls_->handshake();
  schedule_flush();
  if (!done) {
    flush();  // the alert
    fail(done.error().message());
    return false;
  }
  return *done && open_session();
}

bool Tunnel::open_session() {
  const unsigned char* protocol = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(tls_->ssl(), &protocol, &length);
  if (length != 2 || std::memcmp(protocol, "h2", 2) != 0) {
    fail("TLS handshake: the peer did not choose HTTP/2 (ALPN h2)");
    return false;
  }
  auto identity = hbone::peer_identity(tls_->ssl());
  if (!identity) {
    fail(identity.error().message());
    return false;
  }
  // What a list names since the peer's certificate came, a server would not see: the handshake ends later.
  if (context_.revocations != nullptr && *context_.revocations != nullptr) {
    if (auto revoked = (*context_.revocations)->find(peer_chain(tls_->ssl()))) {
      fail("TLS handshake: the peer's " + *revoked);
      return false;
    }
  }
  peer_identity_ = std::move(*identity);
  const X509* leaf = SSL_get0_peer_certificate(tls_->ssl());
  peer_certificate_ = {serial_hex(leaf), to_wall_time(X509_get0_notAfter(leaf))};
  auto session = H2Session::create(side_ == Side::kClient ? H2Session::Side::kClient : H2Session::Side::kServer, *this,
                                   context_.scratch, context_.budget, context_.clock);
  if (!session) {
    fail(session.error().message());
    return false;
  }
  session_ = std::move(*session);
  if (goaway_sent_) session_->goaway();
  state_ = State::kOpen;
  timer_.cancel();
  if (!draining_) drain_when_expired();
  owner_.on_tunnel_open(*this);
  return state_ == State::kOpen;
}

void Tunnel::drain_when_expired() {
  WallTime end = identity_->not_after();
  for (const X509* certificate : peer_chain(tls_->ssl())) {
    end = std::min(end, to_wall_time(X509_get0_notAfter(certificate)));
  }
  const auto left = std::chrono::ceil<milliseconds>(end - context_.clock.wall_now());
  if (left <= milliseconds(0)) return drain();
  timer_.arm(std::min(left, kExpiryLook), [this] { drain_when_expired(); });
}

std::optional<std::string> Tunnel::find_revoked(const RevocationLists& lists) const {
  if (auto found = lists.find(peer_chain(tls_->ssl()))) return "the peer's " + *found;
  if (auto found = lists.find(identity_->chain())) return "our " + *found;
  return std::nullopt;
}

bool Tunnel::is_trusted_by(const TlsIdentity& current) const {
  const auto chain = peer_chain(tls_->ssl());
  return !chain.empty() && current.has_root(chain.back());
}

void Tunnel::on_ping_timer() {
  // Only a tunnel that carries something is watched (flush() arms the timer): an idle one wakes nobody.
  // Nor is silence the peer's while it is this side that does not read.
  if (session_->open_streams() == 0 || pause_timer_.armed()) {
    unanswered_pings_ = 0;
    return;
  }
  ping_timer_.arm(kPingInterval, [this] { on_ping_timer(); });
  if (!writable_) return;  // TCP_USER_TIMEOUT watches
  if (unanswered_pings_ >= kPingsUnanswered) {
    fail("the peer did not answer PING for 20 s");
    return;
  }
  ++unanswered_pings_;
  session_->ping();
}

void Tunnel::schedule_flush() {
  if (flush_scheduled_ || flush_rest_.queued() || state_ == State::kClosed) return;
  flush_scheduled_ = true;
  context_.loop.at_turn_end([this, alive = alive_] {
    if (!*alive) return;
    flush_scheduled_ = false;
    flush();
  });
}

void Tunnel::flush(std::size_t at_most) {
  if (state_ == State::kClosed || !writable_) return;
  go_bytes_ = 0;
  go_limit_ = at_most;
  if (!send_output()) return;
  if (session_ != nullptr && writable_) {
    if (auto sent = session_->send(*this); !sent) {
      fail(sent.error().message());
      return;
    }
    if (!send_output()) return;
    if (session_->open_streams() > 0 && !ping_timer_.armed()) {
      ping_timer_.arm(kPingInterval, [this] { on_ping_timer(); });
    }
  }
  if (go_bytes_ >= go_limit_ && writable_) {
    flush_rest_.queue(context_.loop, [this] { flush(loop::kBulkQuantum); });
    return;
  }
  if (session_ != nullptr && tls_->output().empty() &&
      (session_->finished() || (goaway_sent_ && session_->open_streams() == 0))) {
    tls_->close();
    send_output();
    fail(session_->violation().empty() ? "" : "HTTP/2 from the peer broke the protocol");
  }
}

/// False when the tunnel failed.
bool Tunnel::send_output() {
  if (auto drained = drain_output(); !drained) {
    fail(drained.error().message());
    return false;
  }
  return true;
}

Result<void> Tunnel::drain_output() {
  auto& output = tls_->output();
  while (writable_ && !output.empty()) {
    const auto sent = sys::send(fd_.get(), output.view());
    if (!sent) return Failure(sent.error());
    if (!sent->has_value()) {
      writable_ = false;
      break;
    }
    output.consume(**sent);
  }
  return {};
}

Result<void> Tunnel::write(std::span<const std::byte> bytes) {
  if (auto written = tls_->write(bytes); !written) return written;
  go_bytes_ += bytes.size();
  if (tls_->output().size() >= kOutputSend) return drain_output();
  return {};
}

bool Tunnel::blocked() const { return tls_->output().size() >= kOutputHigh || go_bytes_ >= go_limit_; }

void Tunnel::drain() {
  if (draining_ || state_ == State::kClosed) return;
  draining_ = true;
  if (session_ != nullptr && side_ == Side::kServer) {
    session_->shutdown_notice();
    timer_.arm(kDrainNotice, [this] { finish_drain(); });
  } else if (session_ == nullptr || session_->open_streams() == 0) {
    finish_drain();
  }
  schedule_flush();
}

void Tunnel::on_stream_closed() {
  if (draining_ && side_ == Side::kClient && session_->open_streams() == 0) finish_drain();
  owner_.on_tunnel_changed(*this);
}

void Tunnel::finish_drain() {
  if (!draining_ || goaway_sent_ || state_ == State::kClosed) return;
  goaway_sent_ = true;
  timer_.cancel();
  if (session_ != nullptr) session_->goaway();
  schedule_flush();
}

void Tunnel::close(const std::string& why) { fail(why); }

TunnelPhase Tunnel::phase() const {
  if (state_ == State::kConnecting) return TunnelPhase::kConnect;
  if (refused_as_revoked(tls_->ssl())) return TunnelPhase::kRevoked;
  // A TLS 1.3 server judges the client's certificate after the client's handshake is complete.
  return state_ == State::kOpen && (heard_ || side_ == Side::kServer) ? TunnelPhase::kOpen : TunnelPhase::kTls;
}

void Tunnel::fail(const std::string& why) {
  if (state_ == State::kClosed) return;
  const TunnelPhase reached = phase();
  const bool handshake = state_ == State::kHandshake && !why.starts_with("TLS ");
  const std::string text = handshake ? "TLS handshake: " + why : why;
  state_ = State::kClosed;
  ending_ = {reached, text};
  timer_.cancel();
  ping_timer_.cancel();
  pause_timer_.cancel();
  opening_.cancel();
  read_rest_.cancel();
  flush_rest_.cancel();
  watcher_.reset();
  // The streams hear of the end when the object goes; the socket says FIN (or RST, where input was left) already now.
  fd_.reset();
  owner_.on_tunnel_closed(*this, reached, text);
}

}  // namespace weft::hbone
