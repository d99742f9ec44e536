// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tls_stream.h"

#include <openssl/err.h>

#include <algorithm>
#include <cstring>

#include "tunnel/hbone/cert_store.h"

namespace weft::hbone {
namespace {

TlsStream& stream_of(BIO* bio) { return *static_cast<TlsStream*>(BIO_get_data(bio)); }

}  // namespace

int TlsStream::bio_read(BIO* bio, char* into, int length) {
  BIO_clear_retry_flags(bio);
  auto& input = stream_of(bio).input_;
  const std::size_t n = std::min(static_cast<std::size_t>(length), input.size());
  if (n == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  std::memcpy(into, input.data(), n);
  input = input.subspan(n);
  return static_cast<int>(n);
}

int TlsStream::bio_write(BIO* bio, const char* data, int length) {
  BIO_clear_retry_flags(bio);
  stream_of(bio).output_.append(std::as_bytes(std::span(data, static_cast<std::size_t>(length))));
  return length;
}

long TlsStream::bio_ctrl(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/// OpenSSL handles these messages within one read for as long as there are any.
void TlsStream::on_message(int sent, int /*version*/, int type, const void* /*data*/, std::size_t /*length*/,
                           SSL* /*ssl*/, void* self) {
  auto& stream = *static_cast<TlsStream*>(self);
  if (sent != 0 || type != SSL3_RT_HANDSHAKE || !stream.established_) return;
  if (stream.late_messages_.take(Clock::real().now())) return;
  stream.flooded_ = true;
  stream.input_ = {};
}

BIO_METHOD* TlsStream::bio_method() {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weft memory");
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
  }();
  return method;
}

Result<std::unique_ptr<TlsStream>> TlsStream::create(SSL_CTX* context, Side side) {
  std::unique_ptr<TlsStream> stream(new TlsStream());
  stream->ssl_.reset(SSL_new(context));
  BIO* bio = BIO_new(bio_method());
  if (!stream->ssl_ || bio == nullptr) {
    BIO_free(bio);
    return fail(ErrorCode::kUnavailable, "new TLS session: out of memory");
  }
  BIO_set_data(bio, stream.get());
  BIO_set_init(bio, 1);
  SSL_set_bio(stream->ssl_.get(), bio, bio);
  SSL_set_msg_callback(stream->ssl_.get(), on_message);
  SSL_set_msg_callback_arg(stream->ssl_.get(), stream.get());
  if (side == Side::kClient) {
    SSL_set_connect_state(stream->ssl_.get());
  } else {
    SSL_set_accept_state(stream->ssl_.get());
  }
  return stream;
}

Result<bool> TlsStream::handshake() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  if (result == 1) {
    established_ = true;
    return true;
  }
  if (SSL_get_error(ssl_.get(), result) == SSL_ERROR_WANT_READ) return false;
  return fail(ErrorCode::kDenied, "TLS handshake: " + handshake_error(ssl_.get()));
}

Result<TlsStream::Plain> TlsStream::read(std::span<std::byte> into) {
  Plain plain;
  while (plain.bytes < into.size()) {
    std::size_t n = 0;
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_.get(), into.data() + plain.bytes, into.size() - plain.bytes, &n);
    plain.bytes += n;
    if (flooded_) return fail(ErrorCode::kDenied, "TLS read: the peer asks for new keys without end");
    if (result == 1) continue;
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ) return plain;
    if (error == SSL_ERROR_ZERO_RETURN) {
      plain.closed = true;
      return plain;
    }
    return fail(ErrorCode::kUnavailable, "TLS read: " + handshake_error(ssl_.get()));
  }
  return plain;
}

Result<void> TlsStream::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    std::size_t written = 0;
    ERR_clear_error();
    // The memory BIO takes everything: a write is cut short only by OpenSSL's partial-write mode, never refused.
    if (SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written) != 1) {
      return fail(ErrorCode::kUnavailable, "TLS write: " + handshake_error(ssl_.get()));
    }
    bytes = bytes.subspan(written);
  }
  return {};
}

void TlsStream::close() {
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

}  // namespace weft::hbone
