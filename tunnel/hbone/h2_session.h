// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/hbone/flood_guard.h"
#include "tunnel/hbone/scratch.h"

namespace weft::hbone {

class H2Session;

/// Header fields of one CONNECT or of its answer; names are lower case. Only what Weft acts on is kept.
struct H2Headers {
  std::string method, authority, status;
  std::string baggage, forwarded, traceparent;
};

/// One end of a CONNECT stream. Calls come from H2Session::receive, send and the session's destructor; none of them may
/// call receive or send, or destroy the session or the stream's owner (end those at the end of the turn).
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;
  /// Client side: the answer's headers.
  virtual void on_response(const H2Headers& headers) = 0;
  /// Payload. Each byte must be returned by H2Session::consume once it was passed on: that is the backpressure.
  virtual void on_data(std::span<const std::byte> data) = 0;
  /// The peer will send no more.
  virtual void on_end() = 0;
  /// The stream is over; the last call. `error_code` is HTTP/2's: 0 when both halves ended or the peer asked to stop
  /// without an error.
  virtual void on_closed(std::uint32_t error_code) = 0;
  /// Fills `into` with payload to send. Empty `bytes` without `end` means: nothing now, resume() will be called.
  struct Chunk {
    std::size_t bytes = 0;
    bool end = false;
  };
  virtual Chunk produce(std::span<std::byte> into) = 0;
};

/// What a session tells its owner. The rules of StreamHandler hold.
class SessionEvents {
 public:
  virtual ~SessionEvents() = default;
  /// Server side: a request arrived. Refuse it or attach a handler now; H2Session::accept may come later.
  virtual void on_request(std::int32_t stream_id, const H2Headers& headers) = 0;
  /// Server side: a request that was not acceptable as HTTP/2 was refused by the session itself (header list too long).
  virtual void on_bad_request(std::string_view reason) = 0;
  /// The peer takes no new streams.
  virtual void on_goaway() = 0;
  /// A PING of ours was answered.
  virtual void on_pong() = 0;
  /// The client has heard shutdown_notice(): no request comes any more that it sent before.
  virtual void on_drained() = 0;
  /// A stream ended, so that another may start.
  virtual void on_stream_closed() = 0;
  /// Something to send came up outside of receive(): call send() before the turn ends.
  virtual void on_want_send() = 0;
};

/// Takes serialized frames. write() may be called many times for one send().
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  /// Encrypts and keeps `bytes`.
  virtual Result<void> write(std::span<const std::byte> bytes) = 0;
  /// True while so much waits for the socket that no more should be made.
  [[nodiscard]] virtual bool blocked() const = 0;
};

/// The windows and limits of one HTTP/2 session, in bytes. Starting values: design of the HBONE side in
/// ARCHITECTURE.md.
inline constexpr std::uint32_t kStreamWindow = 256U << 10;
inline constexpr std::uint32_t kMaxStreamWindow = 4U << 20;
inline constexpr std::int32_t kConnectionWindow = 16 << 20;
inline constexpr std::uint32_t kMaxFrame = 1U << 20;
inline constexpr std::uint32_t kClientHeaderList = 16U << 10;
inline constexpr std::uint32_t kServerHeaderList = 64U << 10;
inline constexpr std::uint32_t kServerMaxStreams = 200;
inline constexpr std::uint32_t kClientMaxStreams = 100;

/// HTTP/2 over some byte transport, for CONNECT streams only (RFC 9113, section 8.5). It owns no socket. One thread.
class H2Session {
 public:
  enum class Side : std::uint8_t { kClient, kServer };
  static Result<std::unique_ptr<H2Session>> create(Side side, SessionEvents& events, Scratch& scratch,
                                                   WindowBudget& budget, const Clock& clock = Clock::real());
  /// Streams that still live get on_closed(CANCEL).
  ~H2Session();
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

  /// Takes in bytes of the peer. An error ends the session.
  Result<void> receive(std::span<const std::byte> bytes);
  /// Writes frames to `sink` until nothing is left or the sink is blocked.
  Result<void> send(FrameSink& sink);
  /// True when neither side has anything more to say.
  [[nodiscard]] bool finished() const;

  /// Client: starts a CONNECT stream; `handler` is borrowed until on_closed or detach.
  Result<std::int32_t> connect(const H2Headers& headers, StreamHandler& handler);
  /// Server: gives an arrived request its handler, borrowed until on_closed, reset or refuse.
  void attach(std::int32_t stream_id, StreamHandler& handler);
  /// Server: answers 200 and starts to carry the stream's payload. kNotFound: the client has ended it meanwhile.
  Result<void> accept(std::int32_t stream_id, const H2Headers& headers);
  /// Server: answers with an error status and ends the stream; no more calls to its handler.
  void refuse(std::int32_t stream_id, int status);

  /// `produce` has something again.
  void resume(std::int32_t stream_id);
  /// The stream's reader passed on `bytes` of payload.
  void consume(std::int32_t stream_id, std::size_t bytes);
  /// Gives the stream the largest window at once, whatever the budget says, for a peer that throws away what waits for
  /// window when its own side closes. What a slow reader makes of it is up to KeptBudget.
  void widen(std::int32_t stream_id);
  /// Ends the stream at once with an HTTP/2 error code; no more calls to its handler.
  void reset(std::int32_t stream_id, std::uint32_t error_code);

  void ping();
  /// Server: says that no new streams are wanted, and asks (on_drained tells of the answer) whether the client has
  /// heard it. Until then what it has sent already is served.
  void shutdown_notice();
  /// Says that no new streams are taken; those that live go on.
  void goaway();

  /// What the peer did that ended the session or ends it now: a violation of FloodGuard, or "http2_error"; empty:
  /// nothing.
  [[nodiscard]] std::string_view violation() const { return violation_; }

  [[nodiscard]] std::size_t open_streams() const { return streams_.size(); }
  /// How many streams a client may have open on this session.
  [[nodiscard]] std::size_t max_streams() const;
  [[nodiscard]] bool accepts_new_streams() const;

 private:
  struct Stream {
    StreamHandler* handler = nullptr;
    H2Headers headers;             ///< gathered until they are complete
    std::size_t header_bytes = 0;  ///< as RFC 9113, 6.5.2 counts them
    std::size_t received_since_growth = 0;
    std::uint32_t window = kStreamWindow;
    std::uint32_t budgeted = 0;  ///< of it, what came out of the budget
    SteadyTime window_started;   ///< server: until it is answered, when the request came
    bool deferred = false;       ///< nghttp2 waits for resume()
    bool refused = false;        ///< an error status is on its way
    bool answered = false;       ///< server: a status has been given
  };
  struct SessionDeleter {
    void operator()(nghttp2_session* session) const { nghttp2_session_del(session); }
  };
  struct Callbacks;  // the C callbacks

  H2Session(Side side, SessionEvents& events, Scratch& scratch, WindowBudget& budget, const Clock& clock)
      : side_(side),
        events_(events),
        scratch_(scratch),
        budget_(budget),
        clock_(clock),
        guard_(clock, side == Side::kClient ? kClientHeaderList : kServerHeaderList) {}
  Result<void> start();
  void want_send();
  Stream* find(std::int32_t stream_id);
  int on_frame(const nghttp2_frame& frame);
  void on_frame_sent(const nghttp2_frame& frame);
  int on_headers_complete(std::int32_t stream_id, bool end_stream, Stream& stream);
  int on_header(std::int32_t stream_id, std::string_view name, std::string_view value);
  void on_data(std::int32_t stream_id, std::span<const std::byte> data);
  void on_stream_close(std::int32_t stream_id, std::uint32_t error_code);
  ssize_t produce(std::int32_t stream_id, std::size_t limit, std::uint32_t* flags);
  int send_data(const std::uint8_t* frame_header, std::size_t length);
  int judge(const nghttp2_frame& frame);
  int violated(std::string_view what);
  void grow_window(std::int32_t stream_id, Stream& stream);
  void set_window(std::int32_t stream_id, Stream& stream, std::uint32_t bytes) {
    stream.window = bytes;
    nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, stream_id,
                                          static_cast<std::int32_t>(bytes));
  }
  Result<void> flush_staged(FrameSink& sink);

  Side side_;
  SessionEvents& events_;
  Scratch& scratch_;
  WindowBudget& budget_;
  const Clock& clock_;
  std::unordered_map<std::int32_t, Stream> streams_;
  FloodGuard guard_;
  std::string_view violation_;
  bool peer_going_away_ = false;
  bool in_receive_ = false;
  std::size_t staged_ = 0;  ///< bytes of scratch_.frames() that send() has filled
  std::unique_ptr<nghttp2_session, SessionDeleter> session_;
};

}  // namespace weft::hbone
