// SPDX-License-Identifier: Apache-2.0
#include "test/netns/hbone_peer.h"

#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>

namespace weft::test {
namespace {

constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr std::chrono::seconds kAnswerDeadline{10};

std::string openssl_text() {
  const auto error = ERR_peek_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return reason != nullptr ? reason : std::strerror(errno);
}

}  // namespace

struct HbonePeer::Callbacks {
  static HbonePeer& of(void* user) { return *static_cast<HbonePeer*>(user); }

  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name, std::size_t name_length,
                       const std::uint8_t* value, std::size_t value_length, std::uint8_t, void* user) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_length);
    if (key != ":status") return 0;
    of(user).streams_[frame->hd.stream_id].answer.status.assign(reinterpret_cast<const char*>(value), value_length);
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* user) {
    if (frame->hd.type == NGHTTP2_SETTINGS) of(user).accepted_ = true;
    return 0;
  }
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t stream, const std::uint8_t* data, std::size_t length,
                     void* user) {
    of(user).streams_[stream].received.append(reinterpret_cast<const char*>(data), length);
    return 0;
  }
  static int on_close(nghttp2_session*, std::int32_t stream, std::uint32_t error, void* user) {
    Answer& answer = of(user).streams_[stream].answer;
    answer.closed = true;
    answer.error = error;
    return 0;
  }
  static ssize_t produce(nghttp2_session*, std::int32_t stream, std::uint8_t* into, std::size_t limit,
                         std::uint32_t* flags, nghttp2_data_source*, void* user) {
    std::string& waiting = of(user).streams_[stream].to_send;
    if (waiting.empty() && !of(user).streams_[stream].ends) return NGHTTP2_ERR_DEFERRED;
    if (waiting.size() <= limit && of(user).streams_[stream].ends) *flags |= NGHTTP2_DATA_FLAG_EOF;
    const std::size_t part = std::min(limit, waiting.size());
    std::memcpy(into, waiting.data(), part);
    waiting.erase(0, part);
    return static_cast<ssize_t>(part);
  }
};

HbonePeer::HbonePeer(const Netns& netns, const Endpoint& gateway, SSL_CTX* context) {
  std::signal(SIGPIPE, SIG_IGN);  // a server that refuses closes while this side still writes
  dial(netns, gateway, context);
  if (SSL_connect(ssl_.get()) != 1) {
    over_ = true;
    refusal_ = openssl_text();
    return;
  }
  start_session();
  while (!accepted_ && turn()) {
  }
}

HbonePeer::~HbonePeer() { nghttp2_session_del(session_); }

void HbonePeer::dial(const Netns& netns, const Endpoint& gateway, SSL_CTX* context) {
  fd_ = run_in(netns, [&] {
    const auto to = gateway.to_sockaddr();
    Fd fd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
    if (::connect(fd.get(), to.get(), to.length) != 0) {
      throw TestError("connect " + gateway.to_string() + ": " + std::strerror(errno));
    }
    return fd;
  });
  ssl_.reset(SSL_new(context));
  if (!ssl_ || SSL_set_fd(ssl_.get(), fd_.get()) != 1) throw TestError("make an SSL: " + openssl_text());
}

void HbonePeer::start_session() {
  nghttp2_session_callbacks* callbacks = nullptr;
  nghttp2_option* option = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0) throw TestError("no memory");
  nghttp2_session_callbacks_set_on_header_callback(callbacks, Callbacks::on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, Callbacks::on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, Callbacks::on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, Callbacks::on_close);
  nghttp2_option_set_max_send_header_block_length(option, std::size_t{1} << 20);
  const int made = nghttp2_session_client_new2(&session_, callbacks, this, option);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_option_del(option);
  if (made != 0 || nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0) != 0) {
    throw TestError("make an HTTP/2 session: failed");
  }
}

bool HbonePeer::flush() {
  const std::uint8_t* data = nullptr;
  for (ssize_t length = 0; (length = nghttp2_session_mem_send(session_, &data)) != 0;) {
    if (length < 0) throw TestError(std::string("HTTP/2: ") + nghttp2_strerror(static_cast<int>(length)));
    if (SSL_write(ssl_.get(), data, static_cast<int>(length)) <= 0) return false;
  }
  return true;
}

bool HbonePeer::turn() {
  if (over_) return false;
  // A server that refuses may have closed already: its alert is still to be read.
  const bool sent = flush();
  ERR_clear_error();
  std::array<std::uint8_t, 16384> block;
  const int got = SSL_read(ssl_.get(), block.data(), block.size());
  if (got > 0) {
    const auto taken = nghttp2_session_mem_recv(session_, block.data(), static_cast<std::size_t>(got));
    if (taken >= 0 && sent && flush()) return true;
  }
  over_ = true;
  if (refusal_.empty()) refusal_ = got > 0 ? "HTTP/2 broke" : openssl_text();
  return false;
}

bool HbonePeer::alive() {
  pollfd readable{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  while (!over_ && (SSL_pending(ssl_.get()) > 0 || ::poll(&readable, 1, 0) > 0)) turn();
  return !over_;
}

std::int32_t HbonePeer::request(const Headers& headers) {
  std::vector<nghttp2_nv> fields;
  for (const auto& [name, value] : headers) {
    fields.push_back({reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
                      reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                      NGHTTP2_NV_FLAG_NO_INDEX});
  }
  const nghttp2_data_provider body{.source = {.ptr = nullptr}, .read_callback = Callbacks::produce};
  const auto stream = nghttp2_submit_request(session_, nullptr, fields.data(), fields.size(), &body, nullptr);
  if (stream < 0) throw TestError(std::string("submit a request: ") + nghttp2_strerror(stream));
  streams_[stream];
  return stream;
}

HbonePeer::Answer HbonePeer::answer(std::int32_t stream) {
  const Answer& answer = streams_[stream].answer;
  const auto end = std::chrono::steady_clock::now() + kAnswerDeadline;
  while (answer.status.empty() && !answer.closed && std::chrono::steady_clock::now() < end && turn()) {
  }
  return answer;
}

void HbonePeer::send(std::int32_t stream, const std::string& data) {
  streams_[stream].to_send += data;
  nghttp2_session_resume_data(session_, stream);
  if (!flush()) over_ = true;
}

void HbonePeer::end_and_reset(std::int32_t stream, std::uint32_t error) {
  Stream& entry = streams_[stream];
  entry.ends = true;
  nghttp2_session_resume_data(session_, stream);
  while (flush() && !entry.to_send.empty() && turn()) {
  }
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, error);
  if (!flush()) over_ = true;
}

std::string HbonePeer::receive_until(std::int32_t stream, const std::string& text) {
  const Stream& entry = streams_[stream];
  const auto end = std::chrono::steady_clock::now() + kAnswerDeadline;
  while (entry.received.find(text) == std::string::npos && !entry.answer.closed &&
         std::chrono::steady_clock::now() < end && turn()) {
  }
  return entry.received;
}

}  // namespace weft::test
