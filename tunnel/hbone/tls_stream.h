// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "tunnel/base/error.h"
#include "tunnel/base/rate_limit.h"
#include "tunnel/loop/buffer.h"

namespace weft::hbone {

/// TLS over memory: the owner moves bytes between it and a socket. Encrypted bytes to send gather in output(), many
/// records to one send(); received bytes are lent for one call and wholly taken in by it. One thread.
class TlsStream {
 public:
  enum class Side : std::uint8_t { kClient, kServer };
  /// `context` gives up a reference of its own to the SSL; verification is set up by the caller on ssl().
  static Result<std::unique_ptr<TlsStream>> create(SSL_CTX* context, Side side);
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  [[nodiscard]] SSL* ssl() const { return ssl_.get(); }

  /// Lends received bytes; they are consumed by handshake() and read() and must live until those want more.
  void feed(std::span<const std::byte> bytes) { input_ = bytes; }

  /// Goes on with the handshake: true when it is complete, false when it needs more input. An error ends the
  /// connection; output() may still hold an alert for the peer.
  Result<bool> handshake();

  /// Decrypts as much of the fed input as fits into `into`. Less than into.size() means that the input is used up.
  struct Plain {
    std::size_t bytes = 0;
    bool closed = false;  ///< the peer sent close_notify
  };
  Result<Plain> read(std::span<std::byte> into);

  /// Encrypts all of `bytes` into output().
  Result<void> write(std::span<const std::byte> bytes);
  /// Puts a close_notify into output().
  void close();

  /// True when the peer asks for so many new keys that it wants nothing else: each costs this side more than the peer,
  /// and an answer. The call that noticed it has failed.
  [[nodiscard]] bool flooded() const { return flooded_; }

  /// Encrypted bytes that wait to be sent.
  [[nodiscard]] loop::Buffer& output() { return output_; }

 private:
  struct SslDeleter {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
  };
  TlsStream() = default;
  static BIO_METHOD* bio_method();
  static int bio_read(BIO* bio, char* into, int length);
  static int bio_write(BIO* bio, const char* data, int length);
  static long bio_ctrl(BIO* bio, int command, long number, void* pointer);
  static void on_message(int sent, int version, int type, const void* data, std::size_t length, SSL* ssl, void* self);

  std::span<const std::byte> input_;
  loop::Buffer output_;
  bool established_ = false, flooded_ = false;
  RateLimit late_messages_{32, 1};  ///< of the handshake protocol after the handshake
  std::unique_ptr<SSL, SslDeleter> ssl_;
};

}  // namespace weft::hbone
