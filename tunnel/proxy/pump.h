// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "tunnel/hbone/scratch.h"
#include "tunnel/hbone/tunnel.h"
#include "tunnel/proxy/app_socket.h"

namespace weft::proxy {

/// Hears how a pump ended. Exactly one call, which may come from within an HTTP/2 session: the pump's owner destroys it
/// only at the end of the turn.
class PumpOwner {
 public:
  virtual ~PumpOwner() = default;
  /// Both halves have ended and everything has gone.
  virtual void on_pump_finished() = 0;
  /// One side broke; the pump has already told the other one (RST for RST).
  virtual void on_pump_broken(const std::string& why) = 0;
};

/// The end of a stream in words.
[[nodiscard]] std::string stream_error(std::uint32_t error_code);

/// Copies between an application's socket and a CONNECT stream, both ways, with half-close and backpressure: a byte of
/// the stream returns its window when the application's socket took it; the socket is read only as far as the peer's
/// window allows, straight into the frame that carries it. Holds no buffer unless the application reads slowly. One
/// thread.
class StreamPump final : public hbone::StreamHandler, public AppSocketEvents {
 public:
  /// What else the owner needs to hear before and beside the copying.
  class Events : public PumpOwner {
   public:
    virtual void on_response(const hbone::H2Headers& headers) = 0;  ///< client side
    virtual void on_app_connected(const Error* error) = 0;
    /// The stream ended before start(): nothing was copied, and the application's socket is as it was. `error_code` is
    /// HTTP/2's; `tunnel` says how the tunnel ended, null where it goes on. Instead of PumpOwner's calls.
    virtual void on_stream_lost(std::uint32_t error_code, const hbone::Tunnel::Ending* tunnel) = 0;
  };
  /// Who is at the other end of the stream, and what its RST_STREAM is to the application. A stream whose half the peer
  /// has ended before it was reset has brought all there was to say; the application gets that first.
  enum class Peer : std::uint8_t {
    kClient,  ///< who has asked: the application hears by RST that it is gone
    /// Who answers: RST where its half had not ended. Where it had, the application has its answer, and hears of the
    /// reset when it says more.
    kServer,
    /// A proxy that answers, and ends a stream with CONNECT_ERROR when its server has closed, with END_STREAM or
    /// without (Envoy): the application gets all that came, and a plain end.
    kProxy,
  };
  StreamPump(Peer peer, Events& owner) : peer_(peer), owner_(owner) {}
  ~StreamPump() override;

  [[nodiscard]] AppSocket& app() { return app_; }
  /// Null once the stream is gone.
  [[nodiscard]] const hbone::Tunnel* tunnel() const { return tunnel_; }
  /// The stream that this pump serves from now on; its handler is this object.
  void set_stream(hbone::Tunnel& tunnel, std::int32_t stream_id);
  /// Sends this to the application before anything of the stream, of which some may be here already; it is not counted
  /// as carried. Only within on_app_connected.
  void begin_with(std::span<const std::byte> bytes);
  /// From now on payload of the application goes into the stream.
  void start();
  /// Cuts both sides: RST_STREAM with `error_code` and RST.
  void cut(std::uint32_t error_code);
  /// Lets go of the stream without a word (it was refused).
  void release_stream() { tunnel_ = nullptr; }

  [[nodiscard]] std::uint64_t from_app() const { return from_app_; }
  [[nodiscard]] std::uint64_t to_app() const { return to_app_; }

  // hbone::StreamHandler
  void on_response(const hbone::H2Headers& headers) override { owner_.on_response(headers); }
  void on_data(std::span<const std::byte> data) override;
  void on_end() override;
  void on_closed(std::uint32_t error_code) override;
  Chunk produce(std::span<std::byte> into) override;
  // AppSocketEvents
  void on_connected(const Error* error) override { owner_.on_app_connected(error); }
  void on_readable() override;
  void on_flushed(std::size_t bytes) override;
  void on_broken(const Error& error) override;

 private:
  void break_off(const std::string& why);
  void check_finished();

  Peer peer_;
  Events& owner_;
  AppSocket app_;
  hbone::Tunnel* tunnel_ = nullptr;
  std::int32_t stream_id_ = 0;
  std::uint64_t from_app_ = 0, to_app_ = 0;
  hbone::KeptShare kept_;
  std::size_t begin_kept_ = 0;  ///< of begin_with(), not sent yet
  bool started_ = false;
  bool app_ended_ = false;
  bool stream_ended_ = false;
  std::uint32_t reset_ = NGHTTP2_NO_ERROR;  ///< with what, after the end
  bool over_ = false;                       ///< the owner has had its call
};

/// Copies between two sockets. One thread.
class SocketPump {
 public:
  SocketPump(PumpOwner& owner, hbone::Scratch& scratch, loop::EventLoop& loop)
      : left_(*this), right_(*this), owner_(owner), scratch_(scratch), loop_(loop) {}
  SocketPump(const SocketPump&) = delete;
  SocketPump& operator=(const SocketPump&) = delete;

  [[nodiscard]] AppSocket& left() { return left_.socket; }
  [[nodiscard]] AppSocket& right() { return right_.socket; }
  /// For AppSocket::open: events of that side, until start() only remembered.
  [[nodiscard]] AppSocketEvents& left_events() { return left_; }
  [[nodiscard]] AppSocketEvents& right_events() { return right_; }
  /// Called with the outcome of right's connect.
  void on_right_connected(std::function<void(const Error*)> handler) { right_connected_ = std::move(handler); }
  void start();
  void cut();

  [[nodiscard]] std::uint64_t left_to_right() const { return left_.moved; }
  [[nodiscard]] std::uint64_t right_to_left() const { return right_.moved; }

 private:
  struct Half final : AppSocketEvents {
    explicit Half(SocketPump& p) : pump(p) {}
    void on_connected(const Error* error) override { pump.right_connected_(error); }
    void on_readable() override { pump.copy(*this); }
    void on_flushed(std::size_t) override { pump.copy(pump.other(*this)); }
    void on_broken(const Error& error) override { pump.break_off(error.message()); }
    SocketPump& pump;
    AppSocket socket;
    std::uint64_t moved = 0;
    bool ended = false;
    loop::BulkTask rest;  ///< what is read of it in its turn
  };
  Half& other(Half& half) { return &half == &left_ ? right_ : left_; }
  void copy(Half& from, std::size_t at_most = loop::kLightQuantum);
  void break_off(const std::string& why);

  Half left_, right_;
  PumpOwner& owner_;
  hbone::Scratch& scratch_;
  loop::EventLoop& loop_;
  std::function<void(const Error*)> right_connected_;
  bool started_ = false;
  bool over_ = false;
};

}  // namespace weft::proxy
