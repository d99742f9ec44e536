// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/h2_session.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace weft::hbone {
namespace {

constexpr std::size_t kFrameHeader = 9;
/// Payload of one DATA frame at most: large enough for bulk, small enough that a short stream waits for one frame only.
constexpr std::size_t kDataChunk = 64U << 10;
/// Where more than these share a tunnel a frame is one TLS record: a round of all of them takes a quarter of the time.
constexpr std::size_t kFewStreams = 4;
constexpr std::size_t kSharedDataChunk = 16U << 10;
/// Frames are gathered up to this size before they are encrypted together.
constexpr std::size_t kStageTarget = 64U << 10;
static_assert(kStageTarget + kDataChunk + 2 * kFrameHeader <= Scratch::kSize);
/// A stream's window doubles when its reader takes a whole window within this time.
constexpr milliseconds kGrowWithin{200};
constexpr std::uint64_t kNoLimit = 1ULL << 40U;
/// Tells the PING of a drain from the others, whose payload is zero.
constexpr std::array<std::uint8_t, 8> kDrainPing{'d', 'r', 'a', 'i', 'n'};

std::string_view text(const std::uint8_t* data, std::size_t length) {
  return {reinterpret_cast<const char*>(data), length};
}

nghttp2_nv field(std::string_view name, std::string_view value) {
  // nghttp2 copies both; its structure has no const.
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NONE};
}

std::vector<nghttp2_nv> fields(const H2Headers& headers) {
  std::vector<nghttp2_nv> out;
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!value.empty()) out.push_back(field(name, value));
  };
  add(":status", headers.status);
  add(":method", headers.method);
  add(":authority", headers.authority);
  add("baggage", headers.baggage);
  add("forwarded", headers.forwarded);
  add("traceparent", headers.traceparent);
  return out;
}

Failure h2_failure(int code, const char* what) {
  return fail(code == NGHTTP2_ERR_NOMEM ? ErrorCode::kUnavailable : ErrorCode::kInvalid,
              std::string(what) + ": " + nghttp2_strerror(code));
}

}  // namespace

/// nghttp2's callbacks, each handed to the session it belongs to.
struct H2Session::Callbacks {
  static H2Session& self(void* user) { return *static_cast<H2Session*>(user); }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) self(user).streams_.try_emplace(frame->hd.stream_id);
    return 0;
  }
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_length,
                       const std::uint8_t* value, std::size_t value_length, std::uint8_t, void* user) {
    return self(user).on_header(frame->hd.stream_id, text(name, name_length), text(value, value_length));
  }
  static int on_begin_frame(nghttp2_session*, const nghttp2_frame_hd* head, void* user) {
    return self(user).violated(self(user).guard_.frame_begins(*head));
  }
  static int on_invalid_frame(nghttp2_session*, const nghttp2_frame* /*frame*/, int /*code*/, void* user) {
    return self(user).violated(self(user).guard_.invalid_frame());
  }
  static int on_unknown_frame(nghttp2_session*, void** /*payload*/, const nghttp2_frame_hd* /*head*/, void* user) {
    const int code = self(user).violated(self(user).guard_.unknown_frame());
    return code != 0 ? code : NGHTTP2_ERR_CANCEL;  // nobody wants it
  }
  static int on_frame_recv(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    return self(user).on_frame(*frame);
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t stream_id, const std::uint8_t* data,
                     std::size_t length, void* user) {
    self(user).on_data(stream_id, std::as_bytes(std::span(data, length)));
    return 0;
  }
  static int on_frame_send(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    self(user).on_frame_sent(*frame);
    return 0;
  }
  static int on_stream_close(nghttp2_session*, std::int32_t stream_id, std::uint32_t error_code, void* user) {
    self(user).on_stream_close(stream_id, error_code);
    return 0;
  }
  static ssize_t read_length(nghttp2_session*, std::uint8_t, std::int32_t, std::int32_t session_window,
                             std::int32_t stream_window, std::uint32_t max_frame, void* user) {
    const std::size_t chunk = self(user).streams_.size() > kFewStreams ? kSharedDataChunk : kDataChunk;
    return std::min({static_cast<ssize_t>(session_window), static_cast<ssize_t>(stream_window),
                     static_cast<ssize_t>(max_frame), static_cast<ssize_t>(chunk)});
  }
  static ssize_t read_data(nghttp2_session*, std::int32_t stream_id, std::uint8_t*, std::size_t length,
                           std::uint32_t* flags, nghttp2_data_source*, void* user) {
    return self(user).produce(stream_id, length, flags);
  }
  static int send_data(nghttp2_session*, nghttp2_frame*, const std::uint8_t* frame_header, std::size_t length,
                       nghttp2_data_source*, void* user) {
    return self(user).send_data(frame_header, length);
  }

  static nghttp2_session_callbacks* table() {
    static nghttp2_session_callbacks* const callbacks = [] {
      nghttp2_session_callbacks* c = nullptr;
      if (nghttp2_session_callbacks_new(&c) != 0) std::abort();
      nghttp2_session_callbacks_set_on_begin_headers_callback(c, on_begin_headers);
      nghttp2_session_callbacks_set_on_header_callback(c, on_header);
      nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
      nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid_frame);
      nghttp2_session_callbacks_set_unpack_extension_callback(c, on_unknown_frame);
      nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
      nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
      nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
      nghttp2_session_callbacks_set_data_source_read_length_callback(c, read_length);
      nghttp2_session_callbacks_set_send_data_callback(c, send_data);
      return c;
    }();
    return callbacks;
  }
};

Result<std::unique_ptr<H2Session>> H2Session::create(Side side, SessionEvents& events, Scratch& scratch,
                                                     WindowBudget& budget, const Clock& clock) {
  std::unique_ptr<H2Session> session(new H2Session(side, events, scratch, budget, clock));
  if (auto started = session->start(); !started) return Failure(started.error());
  return session;
}

Result<void> H2Session::start() {
  nghttp2_option* option = nullptr;
  if (nghttp2_option_new(&option) != 0) return fail(ErrorCode::kUnavailable, "new HTTP/2 session: out of memory");
  const std::unique_ptr<nghttp2_option, decltype(&nghttp2_option_del)> guard(option, nghttp2_option_del);
  nghttp2_option_set_no_auto_window_update(option, 1);
  nghttp2_option_set_no_closed_streams(option, 1);
  nghttp2_option_set_peer_max_concurrent_streams(option, kClientMaxStreams);
  // Resets are judged here, where those of answered streams are no attack: applications end connections that way.
  nghttp2_option_set_stream_reset_rate_limit(option, kNoLimit, kNoLimit);
  // nghttp2 would pass over them in silence.
  for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; ++type) {
    nghttp2_option_set_user_recv_extension_type(option, static_cast<std::uint8_t>(type));
  }
  nghttp2_session* raw = nullptr;
  const bool client = side_ == Side::kClient;
  const int made = client ? nghttp2_session_client_new2(&raw, Callbacks::table(), this, option)
                          : nghttp2_session_server_new2(&raw, Callbacks::table(), this, option);
  if (made != 0) return h2_failure(made, "new HTTP/2 session");
  session_.reset(raw);

  std::vector<nghttp2_settings_entry> settings{
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kStreamWindow},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrame},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, client ? kClientHeaderList : kServerHeaderList},
  };
  if (client) {
    settings.push_back({NGHTTP2_SETTINGS_ENABLE_PUSH, 0});
  } else {
    settings.push_back({NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kServerMaxStreams});
  }
  if (const int code = nghttp2_submit_settings(raw, NGHTTP2_FLAG_NONE, settings.data(), settings.size()); code != 0) {
    return h2_failure(code, "HTTP/2 settings");
  }
  if (const int code = nghttp2_session_set_local_window_size(raw, NGHTTP2_FLAG_NONE, 0, kConnectionWindow); code != 0) {
    return h2_failure(code, "HTTP/2 connection window");
  }
  return {};
}

H2Session::~H2Session() {
  for (auto& [id, stream] : std::exchange(streams_, {})) {
    budget_.give_back(stream.budgeted);
    if (stream.handler != nullptr) stream.handler->on_closed(NGHTTP2_CANCEL);
  }
}

Result<void> H2Session::receive(std::span<const std::byte> bytes) {
  in_receive_ = true;
  const ssize_t n =
      nghttp2_session_mem_recv(session_.get(), reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  in_receive_ = false;
  if (!violation_.empty()) {
    nghttp2_session_terminate_session(session_.get(), NGHTTP2_ENHANCE_YOUR_CALM);
    return fail(ErrorCode::kDenied,
                "HTTP/2 from the peer: " + std::string(violation_) + " (a peer that is hostile or broken)");
  }
  if (n < 0) {
    violation_ = n == NGHTTP2_ERR_FLOODED ? "frame_flood" : "http2_error";
    return h2_failure(static_cast<int>(n), "HTTP/2 from the peer");
  }
  return {};
}

Result<void> H2Session::flush_staged(FrameSink& sink) {
  const auto staged = scratch_.frames().first(staged_);
  staged_ = 0;
  return sink.write(staged);
}

Result<void> H2Session::send(FrameSink& sink) {
  while (!sink.blocked()) {
    const std::uint8_t* data = nullptr;
    // DATA frames are put into the stage by produce() and send_data(); everything else comes back here.
    const std::size_t before = staged_;
    const ssize_t n = nghttp2_session_mem_send(session_.get(), &data);
    if (n < 0) return h2_failure(static_cast<int>(n), "HTTP/2 to the peer");
    if (n == 0 && staged_ == before) break;
    if (n > 0) {
      const auto frame = std::as_bytes(std::span(data, static_cast<std::size_t>(n)));
      if (staged_ + frame.size() > scratch_.frames().size()) {
        if (auto flushed = flush_staged(sink); !flushed) return flushed;
      }
      std::ranges::copy(frame, scratch_.frames().begin() + static_cast<std::ptrdiff_t>(staged_));
      staged_ += frame.size();
    }
    if (staged_ >= kStageTarget) {
      if (auto flushed = flush_staged(sink); !flushed) return flushed;
    }
  }
  return flush_staged(sink);
}

void H2Session::want_send() {
  // Whoever calls receive() calls send() next.
  if (!in_receive_) events_.on_want_send();
}

bool H2Session::finished() const {
  return nghttp2_session_want_read(session_.get()) == 0 && nghttp2_session_want_write(session_.get()) == 0;
}

H2Session::Stream* H2Session::find(std::int32_t stream_id) {
  const auto it = streams_.find(stream_id);
  return it == streams_.end() ? nullptr : &it->second;
}

Result<std::int32_t> H2Session::connect(const H2Headers& headers, StreamHandler& handler) {
  const auto nva = fields(headers);
  nghttp2_data_provider provider{};
  provider.read_callback = Callbacks::read_data;
  const std::int32_t id = nghttp2_submit_request(session_.get(), nullptr, nva.data(), nva.size(), &provider, nullptr);
  if (id < 0) return h2_failure(id, "HTTP/2 CONNECT");
  Stream& stream = streams_[id];
  stream.handler = &handler;
  stream.window_started = clock_.now();
  want_send();
  return id;
}

void H2Session::attach(std::int32_t stream_id, StreamHandler& handler) {
  if (Stream* stream = find(stream_id)) stream->handler = &handler;
}

Result<void> H2Session::accept(std::int32_t stream_id, const H2Headers& headers) {
  Stream* stream = find(stream_id);
  if (stream == nullptr) return fail(ErrorCode::kNotFound, "answer a CONNECT: the client has reset it");
  stream->window_started = clock_.now();
  stream->answered = true;
  const auto nva = fields(headers);
  nghttp2_data_provider provider{};
  provider.read_callback = Callbacks::read_data;
  const int code = nghttp2_submit_response(session_.get(), stream_id, nva.data(), nva.size(), &provider);
  if (code != 0) return h2_failure(code, "answer a CONNECT");
  want_send();
  return {};
}

void H2Session::refuse(std::int32_t stream_id, int status) {
  Stream* stream = find(stream_id);
  if (stream == nullptr) return;
  stream->handler = nullptr;
  H2Headers headers;
  headers.status = std::to_string(status);
  const auto nva = fields(headers);
  nghttp2_submit_response(session_.get(), stream_id, nva.data(), nva.size(), nullptr);
  stream->refused = true;
  stream->answered = true;
  want_send();
}

void H2Session::resume(std::int32_t stream_id) {
  Stream* stream = find(stream_id);
  if (stream == nullptr || !stream->deferred) return;
  stream->deferred = false;
  nghttp2_session_resume_data(session_.get(), stream_id);
  want_send();
}

void H2Session::consume(std::int32_t stream_id, std::size_t bytes) {
  nghttp2_session_consume_stream(session_.get(), stream_id, bytes);
  if (Stream* stream = find(stream_id)) {
    stream->received_since_growth += bytes;
    if (stream->received_since_growth >= stream->window) grow_window(stream_id, *stream);
  }
  want_send();
}

void H2Session::grow_window(std::int32_t stream_id, Stream& stream) {
  stream.received_since_growth = 0;
  const SteadyTime since = std::exchange(stream.window_started, clock_.now());
  const bool fast = stream.window_started - since < kGrowWithin;
  if (!fast || stream.window >= kMaxStreamWindow || !budget_.take(stream.window)) return;
  stream.budgeted += stream.window;
  set_window(stream_id, stream, stream.window * 2);
}

void H2Session::widen(std::int32_t stream_id) {
  Stream* stream = find(stream_id);
  if (stream != nullptr && stream->window < kMaxStreamWindow) set_window(stream_id, *stream, kMaxStreamWindow);
  want_send();
}

void H2Session::reset(std::int32_t stream_id, std::uint32_t error_code) {
  Stream* stream = find(stream_id);
  if (stream == nullptr) return;
  stream->handler = nullptr;
  nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, stream_id, error_code);
  want_send();
}

void H2Session::ping() {
  nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, nullptr);
  want_send();
}

void H2Session::shutdown_notice() {
  nghttp2_submit_shutdown_notice(session_.get());
  nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, kDrainPing.data());
  want_send();
}

void H2Session::goaway() {
  nghttp2_submit_goaway(session_.get(), NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_.get()),
                        NGHTTP2_NO_ERROR, nullptr, 0);
  want_send();
}

std::size_t H2Session::max_streams() const {
  const auto peer = nghttp2_session_get_remote_settings(session_.get(), NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return std::min<std::size_t>(peer, kClientMaxStreams);
}

bool H2Session::accepts_new_streams() const {
  return !peer_going_away_ && nghttp2_session_check_request_allowed(session_.get()) != 0;
}

int H2Session::on_header(std::int32_t stream_id, std::string_view name, std::string_view value) {
  Stream* stream = find(stream_id);
  if (stream == nullptr) return 0;
  stream->header_bytes += name.size() + value.size() + 32;
  if (stream->header_bytes > (side_ == Side::kClient ? kClientHeaderList : kServerHeaderList)) {
    events_.on_bad_request("header list too long");
    if (const int code = violated(guard_.header_list_too_long()); code != 0) return code;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // resets the stream alone
  }
  H2Headers& headers = stream->headers;
  const std::array<std::pair<std::string_view, std::string*>, 6> known{{{":method", &headers.method},
                                                                        {":authority", &headers.authority},
                                                                        {":status", &headers.status},
                                                                        {"baggage", &headers.baggage},
                                                                        {"forwarded", &headers.forwarded},
                                                                        {"traceparent", &headers.traceparent}}};
  for (const auto& [key, into] : known) {
    if (name == key) {
      if (!into->empty()) *into += ',';  // a field on several lines is one list (RFC 9110, 5.2)
      *into += value;
    }
  }
  return 0;
}

/// Gives what nghttp2's callbacks return: an empty `what` is no violation.
int H2Session::violated(std::string_view what) {
  if (what.empty()) return 0;
  violation_ = what;
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

int H2Session::judge(const nghttp2_frame& frame) {
  if (const int code = violated(guard_.frame_arrived(frame)); code != 0) return code;
  if (frame.hd.type != NGHTTP2_RST_STREAM || side_ != Side::kServer) return 0;
  const Stream* stream = find(frame.hd.stream_id);
  const bool early = stream != nullptr && !stream->answered;
  return early ? violated(guard_.taken_back(stream->window_started)) : 0;
}

int H2Session::on_frame(const nghttp2_frame& frame) {
  if (const int code = judge(frame); code != 0) return code;
  switch (frame.hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA: {
      Stream* stream = find(frame.hd.stream_id);
      if (stream == nullptr) return 0;
      const bool end_stream = (frame.hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
      if (frame.hd.type == NGHTTP2_HEADERS && frame.headers.cat != NGHTTP2_HCAT_HEADERS) {
        return on_headers_complete(frame.hd.stream_id, end_stream, *stream);
      }
      if (end_stream && stream->handler != nullptr) stream->handler->on_end();
      return 0;
    }
    case NGHTTP2_GOAWAY:
      peer_going_away_ = true;
      events_.on_goaway();
      return 0;
    case NGHTTP2_PING:
      if ((frame.hd.flags & NGHTTP2_FLAG_ACK) == 0) return 0;
      events_.on_pong();
      if (std::ranges::equal(frame.ping.opaque_data, kDrainPing)) events_.on_drained();
      return 0;
    default:
      return 0;
  }
}

void H2Session::on_frame_sent(const nghttp2_frame& frame) {
  // nghttp2 itself ends a session whose peer breaks the protocol.
  if (frame.hd.type == NGHTTP2_GOAWAY && frame.goaway.error_code != NGHTTP2_NO_ERROR && violation_.empty()) {
    violation_ = "http2_error";
  }
  // It sent more than its window: no stream of such a peer can be relied on.
  if (frame.hd.type == NGHTTP2_RST_STREAM && frame.rst_stream.error_code == NGHTTP2_FLOW_CONTROL_ERROR) {
    violation_ = "http2_error";
    nghttp2_session_terminate_session(session_.get(), NGHTTP2_FLOW_CONTROL_ERROR);
  }
  if (frame.hd.type == NGHTTP2_DATA && frame.hd.length > 0) guard_.data_sent();
  if (frame.hd.type != NGHTTP2_HEADERS) return;
  const Stream* stream = find(frame.hd.stream_id);
  if (stream == nullptr || !stream->refused) return;
  // The client's half is still open: tell it that nothing of it will be read (RFC 9113, 8.1). Not before the answer is
  // out, since nghttp2 drops what a reset stream still has to send.
  nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, frame.hd.stream_id, NGHTTP2_NO_ERROR);
}

int H2Session::on_headers_complete(std::int32_t stream_id, bool end_stream, Stream& stream) {
  const H2Headers headers = std::exchange(stream.headers, {});
  if (side_ == Side::kServer) {
    stream.window_started = clock_.now();
    events_.on_request(stream_id, headers);
  } else if (stream.handler != nullptr) {
    stream.handler->on_response(headers);
  }
  // The callback may have ended the stream.
  Stream* after = find(stream_id);
  if (end_stream && after != nullptr && after->handler != nullptr) after->handler->on_end();
  return 0;
}

void H2Session::on_data(std::int32_t stream_id, std::span<const std::byte> data) {
  // The connection's window is no reader's: it comes back at once, so that one slow stream never stalls the others.
  nghttp2_session_consume_connection(session_.get(), data.size());
  Stream* stream = find(stream_id);
  if (stream != nullptr && stream->handler != nullptr) {
    stream->handler->on_data(data);
  } else {
    nghttp2_session_consume_stream(session_.get(), stream_id, data.size());
  }
}

void H2Session::on_stream_close(std::int32_t stream_id, std::uint32_t error_code) {
  const auto node = streams_.extract(stream_id);
  if (node.empty()) return;
  budget_.give_back(node.mapped().budgeted);
  if (node.mapped().handler != nullptr) node.mapped().handler->on_closed(error_code);
  events_.on_stream_closed();
}

ssize_t H2Session::produce(std::int32_t stream_id, std::size_t limit, std::uint32_t* flags) {
  Stream* stream = find(stream_id);
  if (stream == nullptr || stream->handler == nullptr) return NGHTTP2_ERR_DEFERRED;
  // The payload goes behind the place of its frame header, so that nothing is copied again.
  const auto room = scratch_.frames().subspan(staged_ + kFrameHeader);
  const StreamHandler::Chunk chunk = stream->handler->produce(room.first(std::min(limit, room.size())));
  if (chunk.bytes == 0 && !chunk.end) {
    stream->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (chunk.end) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(chunk.bytes);
}

int H2Session::send_data(const std::uint8_t* frame_header, std::size_t length) {
  std::memcpy(scratch_.frames().data() + staged_, frame_header, kFrameHeader);
  staged_ += kFrameHeader + length;
  // A pause hands the stage over to encryption before another frame could outgrow it.
  return staged_ >= kStageTarget ? NGHTTP2_ERR_PAUSE : 0;
}

}  // namespace weft::hbone
