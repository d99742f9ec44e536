// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <string>

/// What cert_store.cc and tls_error.cc share about checking a peer. Nobody else includes this.
namespace weft::hbone {

/// The contexts' certificate verification: the chain as OpenSSL checks it, then what expect_client or expect_server
/// asked for. An SSL for which neither was called is refused. `arg` is unused.
int verify_peer(X509_STORE_CTX* store, void* arg);

/// The server context's ClientHello callback: refuses a client that offers no ALPN at all, which OpenSSL would let
/// pass.
int require_alpn(SSL* ssl, int* alert, void* arg);

/// Why verify_peer or require_alpn refused this peer; empty when they did not.
[[nodiscard]] std::string refusal(const SSL* ssl);

}  // namespace weft::hbone
