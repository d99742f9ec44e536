// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "test/support/netns.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::test {

/// A peer that dials podIP:15008 itself and says there what it likes: HTTP/2 over blocking TLS, one thread. Every wait
/// ends after seconds; what cannot happen throws TestError.
class HbonePeer {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;
  /// What came of a request.
  struct Answer {
    std::string status;       ///< empty: none came
    bool closed = false;      ///< the stream is over
    std::uint32_t error = 0;  ///< HTTP/2's, of a stream that is over
  };

  /// Dials out of `netns` with a context of raw_context().
  HbonePeer(const Netns& netns, const Endpoint& gateway, SSL_CTX* context);
  HbonePeer(const HbonePeer&) = delete;
  HbonePeer& operator=(const HbonePeer&) = delete;
  ~HbonePeer();

  /// True once the server has taken the handshake and spoken HTTP/2. A TLS 1.3 server judges the client's certificate
  /// when the client thinks that all is done.
  [[nodiscard]] bool accepted() const { return accepted_; }
  /// Why not.
  [[nodiscard]] const std::string& refusal() const { return refusal_; }
  /// True while the server keeps the connection.
  [[nodiscard]] bool alive();

  std::int32_t request(const Headers& headers);
  /// CONNECT with an authority.
  std::int32_t connect(const std::string& authority) {
    return request({{":method", "CONNECT"}, {":authority", authority}});
  }
  /// Waits for the status or the end of the stream.
  Answer answer(std::int32_t stream);
  void send(std::int32_t stream, const std::string& data);
  /// Sends what waits, END_STREAM behind it, and RST_STREAM at once after that.
  void end_and_reset(std::int32_t stream, std::uint32_t error);
  /// Waits until `text` stands in what the stream brought, or it ends; all that it brought.
  std::string receive_until(std::int32_t stream, const std::string& text);

 private:
  struct Stream {
    Answer answer;
    std::string received, to_send;
    bool ends = false;  ///< END_STREAM goes behind what waits
  };
  struct Callbacks;
  void dial(const Netns& netns, const Endpoint& gateway, SSL_CTX* context);
  void start_session();
  /// Sends what waits and reads once; false when the connection is over.
  bool turn();
  bool flush();

  Fd fd_;
  hbone::OpenSslPtr<SSL> ssl_;
  nghttp2_session* session_ = nullptr;
  bool accepted_ = false, over_ = false;
  std::string refusal_;
  std::map<std::int32_t, Stream> streams_;
};

}  // namespace weft::test
