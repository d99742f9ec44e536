// SPDX-License-Identifier: Apache-2.0
#include "test/netns/hbone_raw_peer.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

namespace weft::test {
namespace {

using SteadyPoint = std::chrono::steady_clock::time_point;

constexpr std::chrono::seconds kPatience{5};
constexpr std::size_t kFrameHeader = 9;
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

SteadyPoint patience_ends() { return std::chrono::steady_clock::now() + stretched(kPatience); }

void put(std::string& into, std::uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) into += static_cast<char>((value >> (8 * i)) & 0xff);
}

std::uint32_t get32(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = (value << 8U) | static_cast<std::uint8_t>(bytes.at(at + i));
  return value;
}

/// A length in HPACK, with a prefix of `bits` (RFC 7541, 5.1).
void put_length(std::string& into, std::size_t value, int bits) {
  const std::size_t most = (1U << static_cast<unsigned>(bits)) - 1;
  if (value < most) {
    into += static_cast<char>(value);
    return;
  }
  into += static_cast<char>(most);
  for (value -= most; value >= 128; value >>= 7U) into += static_cast<char>(value % 128 + 128);
  into += static_cast<char>(value);
}

void put_text(std::string& into, std::string_view text) {
  put_length(into, text.size(), 7);
  into += text;
}

}  // namespace

namespace h2 {

std::string frame(std::uint8_t type, std::uint8_t flags, std::int32_t stream, std::string_view payload) {
  std::string out;
  put(out, payload.size(), 3);
  out += static_cast<char>(type);
  out += static_cast<char>(flags);
  put(out, static_cast<std::uint32_t>(stream), 4);
  return out.append(payload);
}

std::string settings(const std::vector<std::pair<std::uint16_t, std::uint32_t>>& entries) {
  std::string payload;
  for (const auto& [id, value] : entries) {
    put(payload, id, 2);
    put(payload, value, 4);
  }
  return frame(NGHTTP2_SETTINGS, 0, 0, payload);
}

std::string ping() { return frame(NGHTTP2_PING, 0, 0, "hostile!"); }

std::string priority(std::int32_t stream) {
  std::string payload;
  put(payload, 0, 4);  // depends on no other stream
  put(payload, 15, 1);
  return frame(NGHTTP2_PRIORITY, 0, stream, payload);
}

std::string data(std::int32_t stream, std::string_view payload) { return frame(NGHTTP2_DATA, 0, stream, payload); }

std::string padding_only(std::int32_t stream) {
  return frame(NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, stream, std::string(1, '\0'));
}

std::string rst_stream(std::int32_t stream, std::uint32_t error_code) {
  std::string payload;
  put(payload, error_code, 4);
  return frame(NGHTTP2_RST_STREAM, 0, stream, payload);
}

std::string window_update(std::int32_t stream, std::uint32_t increment) {
  std::string payload;
  put(payload, increment, 4);
  return frame(NGHTTP2_WINDOW_UPDATE, 0, stream, payload);
}

std::string headers(std::int32_t stream, std::string_view block) {
  return frame(NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, stream, block);
}

std::string connect_block(const std::string& authority) {
  std::string out("\x02", 1);  // :method, by the static table
  put_text(out, "CONNECT");
  out += '\x01';  // :authority
  put_text(out, authority);
  return out;
}

std::string field(const std::string& name, const std::string& value, bool indexed) {
  std::string out(1, indexed ? '\x40' : '\0');
  put_text(out, name);
  put_text(out, value);
  return out;
}

std::string connect(std::int32_t stream, const std::string& authority) {
  return headers(stream, connect_block(authority));
}

}  // namespace h2

std::vector<Fd> dial_many(const Netns& netns, const Endpoint& to, int count, const std::optional<IpAddress>& from) {
  return run_in(netns, [&] {
    std::vector<Fd> out;
    const auto target = to.to_sockaddr();
    for (int i = 0; i < count; ++i) {
      Fd fd(::socket(target.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const auto deadline = std::chrono::duration_cast<std::chrono::seconds>(stretched(kPatience));
      const timeval timeout{.tv_sec = deadline.count(), .tv_usec = 0};
      ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
      if (from) {
        const auto source = Endpoint{*from, 0}.to_sockaddr();
        if (::bind(fd.get(), source.get(), source.length) != 0) {
          throw TestError("bind " + from->to_string() + ": " + std::strerror(errno));
        }
      }
      if (::connect(fd.get(), target.get(), target.length) != 0) {
        throw TestError("connect " + to.to_string() + ": " + std::strerror(errno));
      }
      out.push_back(std::move(fd));
    }
    return out;
  });
}

bool has_ended(const Fd& fd) {
  std::array<char, 4096> block{};
  for (;;) {
    const ssize_t got = ::recv(fd.get(), block.data(), block.size(), MSG_DONTWAIT);
    if (got > 0) continue;
    return got == 0 || errno != EAGAIN;
  }
}

RawPeer::RawPeer(const Netns& netns, const Endpoint& gateway, SSL_CTX* context, Options options)
    : options_(std::move(options)) {
  std::signal(SIGPIPE, SIG_IGN);
  fd_ = std::move(dial_many(netns, gateway, 1, options_.from).front());
  nghttp2_hd_inflater* inflater = nullptr;
  if (nghttp2_hd_inflate_new(&inflater) != 0) throw TestError("no memory");
  inflater_.reset(inflater);
  handshake(context);
  if (over_ || !write(std::string(kPreface) + options_.settings)) return;
  if (read_until([this] { return accepted_; }) && options_.acknowledge) {
    write(h2::frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, ""));
  }
}

void RawPeer::handshake(SSL_CTX* context) {
  ssl_.reset(SSL_new(context));
  if (!ssl_ || SSL_set_fd(ssl_.get(), fd_.get()) != 1) throw TestError("make an SSL");
  SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  const int flags = ::fcntl(fd_.get(), F_GETFL);
  ::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
  const auto until = patience_ends();
  for (;;) {
    ERR_clear_error();
    const int result = SSL_connect(ssl_.get());
    if (result == 1) return;
    if (!wait(result, until)) return end("handshake");
  }
}

bool RawPeer::wait(int result, SteadyPoint end) {
  const int error = SSL_get_error(ssl_.get(), result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return false;
  pollfd waits{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  if (error == SSL_ERROR_WANT_WRITE) waits.events = static_cast<short>(reading_ ? POLLIN | POLLOUT : POLLOUT);
  const auto left = std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now());
  return left.count() > 0 && ::poll(&waits, 1, static_cast<int>(left.count())) > 0;
}

void RawPeer::end(const std::string& why) {
  over_ = true;
  const auto error = ERR_peek_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  why_ = why + ": " + (reason != nullptr ? reason : std::strerror(errno));
  ERR_clear_error();
}

bool RawPeer::write(std::string_view bytes) {
  auto until = patience_ends();
  while (!bytes.empty() && !over_) {
    while (reading_ && read_some()) {
    }
    if (over_) return false;
    ERR_clear_error();
    std::size_t written = 0;
    const int result = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written);
    if (result == 1) {
      bytes.remove_prefix(written);
      until = patience_ends();
      continue;
    }
    const bool waiting = SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_WRITE;
    if (waiting && !wait(result, until)) return false;
    if (waiting) continue;
    while (read_some()) {  // the server's last words
    }
    if (!over_) end("write");
  }
  return !over_;
}

int RawPeer::repeat(std::string_view bytes, int most) {
  int times = 0;
  while (times < most && write(bytes)) ++times;
  return times;
}

bool RawPeer::read_until(const std::function<bool()>& done) {
  const auto until = patience_ends();
  while (!done()) {
    if (over_) return false;
    if (read_some()) continue;
    pollfd readable{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    const auto left = std::chrono::duration_cast<milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) <= 0) return done();
  }
  return true;
}

bool RawPeer::read_some() {
  if (over_) return false;
  std::array<char, 16384> block;
  ERR_clear_error();
  std::size_t got = 0;
  const int result = SSL_read_ex(ssl_.get(), block.data(), block.size(), &got);
  if (result != 1) {
    const int error = SSL_get_error(ssl_.get(), result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) end("read");
    return false;
  }
  input_.append(block.data(), got);
  take_frames();
  return true;
}

void RawPeer::take_frames() {
  std::size_t at = 0;
  while (input_.size() - at >= kFrameHeader) {
    const std::size_t length = get32(input_, at) >> 8U;
    if (input_.size() - at < kFrameHeader + length) break;
    const auto stream = static_cast<std::int32_t>(get32(input_, at + 5) & 0x7fffffffU);
    take_frame(static_cast<std::uint8_t>(input_[at + 3]), stream,
               std::string_view(input_).substr(at + kFrameHeader, length));
    at += kFrameHeader + length;
  }
  input_.erase(0, at);
}

void RawPeer::take_frame(std::uint8_t type, std::int32_t stream, std::string_view payload) {
  switch (type) {
    case NGHTTP2_SETTINGS:
      accepted_ = true;
      return;
    case NGHTTP2_HEADERS:
      return take_headers(stream, payload);
    case NGHTTP2_DATA:
      data_bytes_ += payload.size();
      return;
    case NGHTTP2_RST_STREAM:
      resets_[stream] = get32(payload, 0);
      return;
    case NGHTTP2_GOAWAY:
      goaway_ = get32(payload, 4);
      return;
    default:
      return;
  }
}

void RawPeer::take_headers(std::int32_t stream, std::string_view block) {
  while (true) {
    nghttp2_nv nv{};
    int flags = 0;
    const auto taken = nghttp2_hd_inflate_hd2(inflater_.get(), &nv, &flags,
                                              reinterpret_cast<const std::uint8_t*>(block.data()), block.size(), 1);
    if (taken < 0) throw TestError("the server's header block cannot be read");
    block.remove_prefix(static_cast<std::size_t>(taken));
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
      const std::string_view name(reinterpret_cast<const char*>(nv.name), nv.namelen);
      if (name == ":status") statuses_[stream].assign(reinterpret_cast<const char*>(nv.value), nv.valuelen);
    }
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0 && block.empty()) break;
  }
  nghttp2_hd_inflate_end_headers(inflater_.get());
}

}  // namespace weft::test
