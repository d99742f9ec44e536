// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <openssl/err.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "test/support/test_ca.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::hbone {

using test::LeafOptions;
using test::raw_context;
using test::RawOptions;
using test::TestCa;

inline const state::Identity kClient{"cluster.local", "shop", "web"};
inline const state::Identity kServer{"cluster.local", "shop", "db"};
inline const state::Identity kOther{"cluster.local", "shop", "cache"};

inline std::shared_ptr<const TlsIdentity> tls(CertificateBundle bundle) {
  auto out = TlsIdentity::create(std::move(bundle));
  EXPECT_TRUE(out) << out.error().message();
  return out ? *out : nullptr;
}

/// Two TLS ends joined in memory, and how their handshake went. Texts are empty where nothing failed.
class Pair {
 public:
  Pair(SSL_CTX* client, SSL_CTX* server) : client_(SSL_new(client)), server_(SSL_new(server)) {
    SSL_set_connect_state(client_.get());
    SSL_set_accept_state(server_.get());
    for (SSL* ssl : {client_.get(), server_.get()}) SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  }

  SSL* client() { return client_.get(); }
  SSL* server() { return server_.get(); }
  [[nodiscard]] const std::string& client_error() const { return client_error_; }
  [[nodiscard]] const std::string& server_error() const { return server_error_; }
  /// Changes what the client sends first, on its way.
  void rewrite_client_hello(std::function<void(std::string&)> rewrite) { rewrite_ = std::move(rewrite); }

  /// Steps both ends until neither has anything to say; then lets both read, since the alert of a server that refuses
  /// the client's certificate arrives after the client's handshake is done.
  Pair& run() {
    for (int turn = 0; turn < 6; ++turn) {
      step(client(), client_error_);
      move(client(), server());
      step(server(), server_error_);
      move(server(), client());
    }
    for (auto [ssl, error] : {std::pair(client(), &client_error_), std::pair(server(), &server_error_)}) {
      char byte = 0;
      ERR_clear_error();
      if (!error->empty() || !SSL_is_init_finished(ssl)) continue;
      const int n = SSL_read(ssl, &byte, 1);
      if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_SSL) *error = handshake_error(ssl);
    }
    return *this;
  }
  bool succeeded() { return client_error_.empty() && server_error_.empty() && done(client()) && done(server()); }

 private:
  static bool done(SSL* ssl) { return SSL_is_init_finished(ssl) != 0; }
  static void step(SSL* ssl, std::string& error) {
    if (!error.empty() || done(ssl)) return;
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl);
    if (result == 1) return;
    if (SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ) error = handshake_error(ssl);
  }
  void move(SSL* from, SSL* to) {
    char* data = nullptr;
    const long length = BIO_get_mem_data(SSL_get_wbio(from), &data);
    if (length <= 0) return;
    std::string bytes(data, static_cast<std::size_t>(length));
    BIO_reset(SSL_get_wbio(from));
    if (from == client() && rewrite_) std::exchange(rewrite_, nullptr)(bytes);
    BIO_write(SSL_get_rbio(to), bytes.data(), static_cast<int>(bytes.size()));
  }

  OpenSslPtr<SSL> client_, server_;
  std::string client_error_, server_error_;
  std::function<void(std::string&)> rewrite_;
};

class TlsTest : public ::testing::Test {
 protected:
  /// Our server against a peer that presents `bundle`, which may be bad.
  std::string refusal_of_client(const CertificateBundle& bundle, RawOptions options = {}) {
    const auto server = tls(ca_.issue(kServer));
    const auto client = raw_context(bundle, options);
    Pair pair(client.get(), server->server_context());
    expect_client(pair.server(), "cluster.local");
    pair.run();
    EXPECT_FALSE(SSL_is_init_finished(pair.server()));
    EXPECT_FALSE(peer_identity(pair.server()));
    peer_saw_ = pair.client_error();
    return pair.server_error();
  }
  /// Our client against a server that presents `bundle`.
  std::string refusal_of_server(const CertificateBundle& bundle,
                                std::vector<std::string> expected = {kServer.to_uri()}) {
    const auto client = tls(ca_.issue(kClient));
    RawOptions options;
    options.server = true;
    const auto server = raw_context(bundle, options);
    Pair pair(client->client_context(), server.get());
    expect_server(pair.client(), {std::move(expected)});
    pair.run();
    EXPECT_FALSE(peer_identity(pair.client()));
    peer_saw_ = pair.server_error();
    return pair.client_error();
  }

  TestCa ca_;
  TestCa other_ca_;  // the same name and another key, as two meshes may have
  std::string peer_saw_;
};

}  // namespace weft::hbone
