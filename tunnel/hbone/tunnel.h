// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/h2_session.h"
#include "tunnel/hbone/tls_stream.h"
#include "tunnel/loop/event_loop.h"
#include "tunnel/loop/start_queue.h"

namespace weft::hbone {

class Tunnel;

/// How far a tunnel came before it failed; it chooses the response flag of the connections that waited for it.
enum class TunnelPhase : std::uint8_t {
  kNotBegun,  ///< a limit of this side's own
  kConnect,
  kTls,
  kRevoked,  ///< kTls, and the peer's certificate was revoked
  kOpen,
};

/// Who owns tunnels: the pool on the client's side, the inbound proxy on the server's. Calls come on the loop's thread,
/// also from inside the session's callbacks: an owner may start and end streams, and destroys tunnels only through
/// EventLoop::defer_delete.
class TunnelOwner {
 public:
  virtual ~TunnelOwner() = default;
  /// The handshake is complete and ALPN chose h2: streams may start.
  virtual void on_tunnel_open(Tunnel& tunnel) = 0;
  /// Server side: a CONNECT arrived (see SessionEvents).
  virtual void on_tunnel_request(Tunnel& tunnel, std::int32_t stream_id, const H2Headers& headers) = 0;
  virtual void on_tunnel_bad_request(Tunnel& tunnel, std::string_view reason) = 0;
  /// A stream ended or the peer takes no more streams: what the owner may do with it has changed.
  virtual void on_tunnel_changed(Tunnel& tunnel) = 0;
  /// It is over: the streams have had their on_closed; `why` is empty where it ended in good order. The last call.
  virtual void on_tunnel_closed(Tunnel& tunnel, TunnelPhase phase, const std::string& why) = 0;
};

/// What the tunnels of one worker share.
struct TunnelContext {
  loop::EventLoop& loop;
  Scratch& scratch;
  WindowBudget& budget;
  KeptBudget& kept;
  const Clock& clock;
  const RevocationsPtr* revocations = nullptr;  ///< those in force; may be null, and be changed between turns
  /// Where the steps of the handshake wait for their turn; lives as long as the tunnel is not closed. Null: none waits.
  loop::StartQueue* starts = nullptr;
};

/// One HBONE connection: a socket, TLS on it, HTTP/2 in that. It reads whole socket buffers into the worker's scratch,
/// decrypts and parses them there, and writes everything that one turn of the loop produced with one send. Certificates
/// are looked at in the handshake; when one of either side's chain ends the tunnel drains: its streams live on, and new
/// ones need a tunnel with certificates that are valid then. One thread.
class Tunnel final : public loop::Deferred, private SessionEvents, private FrameSink {
 public:
  using Side = TlsStream::Side;

  /// `fd` is connected or connecting (client) or accepted (server). `identity` is held while the tunnel lives;
  /// `prepare` sets the verification up on the SSL. `timeout` covers everything until the tunnel is open.
  static Result<std::unique_ptr<Tunnel>> create(TunnelContext context, TunnelOwner& owner, Side side, Fd fd,
                                                std::shared_ptr<const TlsIdentity> identity,
                                                const std::function<void(SSL*)>& prepare, milliseconds timeout);
  ~Tunnel() override;

  [[nodiscard]] bool open() const { return state_ == State::kOpen; }
  [[nodiscard]] bool closed() const { return state_ == State::kClosed; }
  [[nodiscard]] bool draining() const { return draining_; }
  /// Whether a client may begin another stream.
  [[nodiscard]] bool takes_streams() const { return open() && !draining_ && session_->accepts_new_streams(); }
  /// Only while open.
  [[nodiscard]] H2Session& session() { return *session_; }
  [[nodiscard]] const state::Identity& peer_identity() const { return peer_identity_; }
  /// The peer's certificate. Only while open.
  struct PeerCertificate {
    std::string serial;  ///< hex
    WallTime not_after;
  };
  [[nodiscard]] const PeerCertificate& peer_certificate() const { return peer_certificate_; }
  /// The certificate that this side showed.
  [[nodiscard]] const TlsIdentity& identity() const { return *identity_; }
  /// What in the peer's chain or in this side's own is revoked, in words; nothing where all is well. Only while open.
  [[nodiscard]] std::optional<std::string> find_revoked(const RevocationLists& lists) const;
  /// Whether the root that vouched for the peer is among those of `current`. Only while open.
  [[nodiscard]] bool is_trusted_by(const TlsIdentity& current) const;
  [[nodiscard]] const Endpoint& peer() const { return peer_; }
  [[nodiscard]] const Endpoint& local() const { return local_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  /// How it ended, null while it has not: a stream that is told of its end in the tunnel's destructor may ask.
  struct Ending {
    TunnelPhase phase;
    std::string why;
  };
  [[nodiscard]] const Ending* ending() const { return ending_ ? &*ending_ : nullptr; }
  /// As H2Session::violation(), or "tls_flood"; also once it is closed.
  [[nodiscard]] std::string_view violation() const {
    if (tls_->flooded()) return "tls_flood";
    return session_ ? session_->violation() : std::string_view();
  }

  /// For the streams: where they count what they keep.
  void join_budget(KeptShare& share) { share.join(context_.kept, kept_); }

  /// It takes no more streams, and closes with GOAWAY when its last one has ended. A server says so at once, and first
  /// lets the client hear of it, so that no request that is under way is lost.
  void drain();
  /// At once: streams are cut, the owner gets on_tunnel_closed.
  void close(const std::string& why);
  /// How far it is known to have come.
  [[nodiscard]] TunnelPhase phase() const;

 private:
  enum class State : std::uint8_t { kConnecting, kHandshake, kOpen, kClosed };

  Tunnel(TunnelContext context, TunnelOwner& owner, Side side, Fd fd, std::shared_ptr<const TlsIdentity> identity)
      : context_(context),
        owner_(owner),
        side_(side),
        fd_(std::move(fd)),
        identity_(std::move(identity)),
        timer_(context.loop),
        ping_timer_(context.loop),
        pause_timer_(context.loop) {}

  void on_event(std::uint32_t events);
  void go_on_opening();
  bool connected();
  void read_socket();
  void queue_read();
  bool read_some(std::size_t at_most);
  void take_in(std::span<const std::byte> bytes);
  bool go_on_handshake();
  bool open_session();
  void drain_when_expired();
  void schedule_flush();
  void flush(std::size_t at_most = loop::kLightQuantum);
  bool send_output();
  Result<void> drain_output();
  void on_ping_timer();
  void finish_drain();
  void fail(const std::string& why);

  // SessionEvents
  void on_request(std::int32_t stream_id, const H2Headers& headers) override {
    owner_.on_tunnel_request(*this, stream_id, headers);
  }
  void on_bad_request(std::string_view reason) override { owner_.on_tunnel_bad_request(*this, reason); }
  void on_goaway() override { owner_.on_tunnel_changed(*this); }
  void on_pong() override { unanswered_pings_ = 0; }
  void on_drained() override { finish_drain(); }
  void on_stream_closed() override;
  void on_want_send() override { schedule_flush(); }
  // FrameSink
  Result<void> write(std::span<const std::byte> bytes) override;
  [[nodiscard]] bool blocked() const override;

  TunnelContext context_;
  TunnelOwner& owner_;
  Side side_;
  Fd fd_;
  std::shared_ptr<const TlsIdentity> identity_;
  State state_ = State::kConnecting;
  bool writable_ = false;
  bool draining_ = false;
  bool goaway_sent_ = false;
  bool flush_scheduled_ = false;
  bool peer_finished_ = false;  ///< close_notify arrived
  bool fin_seen_ = false;       ///< the socket's own end was reported: read on until it shows
  bool heard_ = false;          ///< the peer has sent HTTP/2: it accepted our certificate
  bool unread_ = false;         ///< something arrived before the tunnel was open
  std::size_t go_bytes_ = 0;    ///< handed to encryption in this go
  std::size_t go_limit_ = 0;
  int unanswered_pings_ = 0;
  Endpoint peer_, local_;
  state::Identity peer_identity_;
  PeerCertificate peer_certificate_;
  std::optional<Ending> ending_;
  std::unique_ptr<TlsStream> tls_;
  std::unique_ptr<H2Session> session_;
  loop::Watcher watcher_;
  loop::Timer timer_;
  loop::Timer ping_timer_;
  loop::Timer pause_timer_;
  loop::StartTask opening_;
  loop::BulkTask read_rest_, flush_rest_;
  /// What its streams keep for applications that read slowly, in bytes.
  std::shared_ptr<std::size_t> kept_ = std::make_shared<std::size_t>(0);
  /// Outlives the tunnel in tasks of the loop that must not touch it any more.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace weft::hbone
