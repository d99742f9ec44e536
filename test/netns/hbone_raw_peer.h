// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "test/support/netns.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::test {

/// HTTP/2 frames, byte by byte (RFC 9113, section 6). Nothing here asks whether they are allowed.
namespace h2 {
constexpr std::uint8_t kContinuation = NGHTTP2_CONTINUATION, kUnknown = 0x42;
std::string frame(std::uint8_t type, std::uint8_t flags, std::int32_t stream, std::string_view payload);
std::string settings(const std::vector<std::pair<std::uint16_t, std::uint32_t>>& entries = {});
std::string ping();
std::string priority(std::int32_t stream);
std::string data(std::int32_t stream, std::string_view payload);
/// A DATA frame that has no payload but padding.
std::string padding_only(std::int32_t stream);
std::string rst_stream(std::int32_t stream, std::uint32_t error_code);
std::string window_update(std::int32_t stream, std::uint32_t increment);
/// HEADERS that are complete, and leave the stream open.
std::string headers(std::int32_t stream, std::string_view block);
/// A header block in HPACK without its dynamic table: CONNECT.
std::string connect_block(const std::string& authority);
/// One more field of such a block (RFC 7541, 6.2.2); with `indexed` the receiver keeps it in its table (6.2.1).
std::string field(const std::string& name, const std::string& value, bool indexed = false);
std::string connect(std::int32_t stream, const std::string& authority);
}  // namespace h2

/// Blocking sockets, connected out of a namespace, from `from` where that is given. Throws where one cannot connect.
std::vector<Fd> dial_many(const Netns& netns, const Endpoint& to, int count, const std::optional<IpAddress>& from = {});
/// True when the other side has ended the connection; what it sent before is thrown away.
bool has_ended(const Fd& fd);

/// An HBONE peer that writes whatever bytes it likes into its TLS connection, and remembers what the server says to
/// that. Never blocks for longer than seconds. One thread.
class RawPeer {
 public:
  struct Options {
    std::string settings = h2::settings();  ///< the first frame after the preface
    bool acknowledge = true;                ///< the server's SETTINGS
    std::optional<IpAddress> from = {};
  };
  RawPeer(const Netns& netns, const Endpoint& gateway, SSL_CTX* context, Options options);
  RawPeer(const Netns& netns, const Endpoint& gateway, SSL_CTX* context)
      : RawPeer(netns, gateway, context, Options()) {}
  RawPeer(const RawPeer&) = delete;
  RawPeer& operator=(const RawPeer&) = delete;

  /// True once the server has said something in HTTP/2.
  [[nodiscard]] bool accepted() const { return accepted_; }
  /// True when the connection is over; `why` tells OpenSSL's or the system's word for it.
  [[nodiscard]] bool over() const { return over_; }
  [[nodiscard]] const std::string& why() const { return why_; }
  /// What the last GOAWAY said.
  [[nodiscard]] std::optional<std::uint32_t> goaway() const { return goaway_; }
  /// Error codes of the streams that the server has reset.
  [[nodiscard]] const std::map<std::int32_t, std::uint32_t>& resets() const { return resets_; }
  /// Statuses of the streams that the server has answered.
  [[nodiscard]] const std::map<std::int32_t, std::string>& statuses() const { return statuses_; }
  [[nodiscard]] std::uint64_t data_bytes() const { return data_bytes_; }
  [[nodiscard]] SSL* ssl() const { return ssl_.get(); }
  [[nodiscard]] const Fd& fd() const { return fd_; }

  /// From now on nothing is read: not from TLS, not from the socket.
  void stop_reading() { reading_ = false; }
  /// Writes everything, and reads meanwhile. False when the connection ended, or the server took nothing for seconds.
  bool write(std::string_view bytes);
  /// Writes `bytes` again and again: how often, until the connection ended, or the server took nothing for seconds, or
  /// `most` times.
  int repeat(std::string_view bytes, int most);
  /// Reads until `done` says true; false when the connection ends or seconds pass first.
  bool read_until(const std::function<bool()>& done);

 private:
  void handshake(SSL_CTX* context);
  /// Reads what is there; false when there was nothing.
  bool read_some();
  void take_frames();
  void take_frame(std::uint8_t type, std::int32_t stream, std::string_view payload);
  void take_headers(std::int32_t stream, std::string_view block);
  /// Waits until OpenSSL can go on after `result`; false when it cannot.
  bool wait(int result, std::chrono::steady_clock::time_point end);
  void end(const std::string& why);

  struct InflaterDeleter {
    void operator()(nghttp2_hd_inflater* inflater) const { nghttp2_hd_inflate_del(inflater); }
  };
  Options options_;
  Fd fd_;
  hbone::OpenSslPtr<SSL> ssl_;
  std::unique_ptr<nghttp2_hd_inflater, InflaterDeleter> inflater_;
  bool accepted_ = false, over_ = false, reading_ = true;
  std::string why_, input_;
  std::optional<std::uint32_t> goaway_;
  std::map<std::int32_t, std::uint32_t> resets_;
  std::map<std::int32_t, std::string> statuses_;
  std::uint64_t data_bytes_ = 0;
};

}  // namespace weft::test
