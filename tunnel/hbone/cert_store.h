// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/hbone/revocation.h"
#include "tunnel/hbone/tls_x509.h"
#include "tunnel/state/identity.h"

namespace weft::hbone {

/// A leaf certificate with its key and chain, as a CA issued it, in PEM. The chain holds the intermediates and no root.
struct CertificateBundle {
  state::Identity identity;
  std::string certificate_pem;
  std::string private_key_pem;
  std::string chain_pem;
  std::string roots_pem;  ///< what peers are verified against; several while a root is replaced
};

/// TLS contexts made from one bundle: TLS 1.3 only, AES-256-GCM and AES-128-GCM, X25519, P-256 and P-384, ALPN h2, both
/// sides present a certificate. Immutable; shared by the connections that use it, so a renewal never cuts one.
class TlsIdentity {
 public:
  /// Errors: kInvalid naming what in the bundle is wrong: key and certificate do not match, the certificate's SAN is
  /// not exactly the bundle's identity, it does not chain to the roots, or a PEM cannot be read. The bundle's private
  /// key is wiped in any case.
  static Result<std::shared_ptr<const TlsIdentity>> create(CertificateBundle bundle);

  /// Without its private key, which the contexts alone have.
  [[nodiscard]] const CertificateBundle& bundle() const { return bundle_; }
  [[nodiscard]] WallTime not_before() const { return not_before_; }
  [[nodiscard]] WallTime not_after() const { return not_after_; }
  [[nodiscard]] const std::string& serial() const { return serial_; }  ///< hex
  /// Its own chain as it verified: the leaf first, the root last.
  [[nodiscard]] std::vector<X509*> chain() const;
  /// Whether this certificate is one of the roots.
  [[nodiscard]] bool has_root(const X509* certificate) const;
  /// Contexts for either end, borrowed. SSL_new on them is thread-safe.
  [[nodiscard]] SSL_CTX* client_context() const { return client_.get(); }
  [[nodiscard]] SSL_CTX* server_context() const { return server_.get(); }

 private:
  struct ContextDeleter {
    void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  };
  TlsIdentity() = default;
  CertificateBundle bundle_;
  WallTime not_before_, not_after_;
  std::string serial_;
  std::vector<OpenSslPtr<X509>> chain_, roots_;
  std::unique_ptr<SSL_CTX, ContextDeleter> client_, server_;
};

/// What a server's certificate must carry: one URI SAN out of these.
struct ExpectedPeer {
  std::vector<std::string> uris;
};

/// Sets up an SSL made from server_context(): the client must present a certificate with exactly one URI SAN, a SPIFFE
/// identity of `trust_domain`. Chain and validity are checked by the context.
void expect_client(SSL* ssl, const std::string& trust_domain);
/// Sets up an SSL made from client_context(): the server's certificate must carry one of `expected`. `expected` is
/// copied.
void expect_server(SSL* ssl, ExpectedPeer expected);
/// After expect_client or expect_server: a peer whose chain the lists name is refused. `lists` is read when the peer's
/// certificate arrives, so that it may change until then; it outlives the SSL, on the same thread.
void refuse_revoked(SSL* ssl, const RevocationsPtr* lists);
/// Whether the handshake failed because of that.
[[nodiscard]] bool refused_as_revoked(const SSL* ssl);
/// The peer's identity, once the handshake succeeded.
Result<state::Identity> peer_identity(SSL* ssl);
/// The peer's chain as it verified, the leaf first, the root last; borrowed. Empty before the handshake.
[[nodiscard]] std::vector<X509*> peer_chain(const SSL* ssl);
/// Why the handshake on `ssl` failed, in words: the verification's result (expired, unknown root, "client certificate
/// has no SPIFFE SAN", "server identity is X, expected Y"), the peer's alert, or OpenSSL's own text. Clears the error
/// queue.
std::string handshake_error(SSL* ssl);
/// True when both sides agreed on HTTP/2. A server of ours refuses anything else during the handshake; a client must
/// ask this once its handshake is done, because a server may leave ALPN out.
[[nodiscard]] bool alpn_is_h2(const SSL* ssl);

/// The certificates of this node's workloads, by identity. Thread-safe. Control threads put, workers get.
class CertStore {
 public:
  explicit CertStore(const Clock& clock = Clock::real()) : clock_(clock) {}
  /// Null until put was called for the identity, and once its certificate is past its end: with that no tunnel is begun
  /// and no connection, on either side.
  [[nodiscard]] std::shared_ptr<const TlsIdentity> get(const state::Identity& identity) const;
  /// Why get() gives nothing, in words.
  [[nodiscard]] std::string why_none(const state::Identity& identity) const;
  void put(std::shared_ptr<const TlsIdentity> tls_identity);
  void remove(const state::Identity& identity);
  /// Those past their end, too.
  [[nodiscard]] std::vector<std::shared_ptr<const TlsIdentity>> all() const;

 private:
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::unordered_map<state::Identity, std::shared_ptr<const TlsIdentity>> certificates_;
};

}  // namespace weft::hbone
