// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/tls_x509.h"

/// Certificate authorities for tests, which also issue what no CA should. Independent of the agent's own CA, so that a
/// mistake there is not repeated here. A failing OpenSSL call ends the test program.
namespace weft::test {

/// What a leaf certificate holds. The defaults and one URI make a good one.
struct LeafOptions {
  enum class Usage { kBoth, kClientOnly, kServerOnly };
  std::vector<std::string> uris;
  std::vector<std::string> dns_names;
  std::chrono::seconds valid_from{-60};  ///< from now
  std::chrono::seconds valid_until{3600};
  Usage usage = Usage::kBoth;
  bool is_ca = false;
};

class TestCa;

/// What a revocation list holds. The defaults make a good one that names nobody.
struct CrlOptions {
  std::vector<std::string> revoked;       ///< certificates as PEM, this CA's or not
  std::chrono::seconds this_update{-60};  ///< from now
  std::chrono::seconds next_update{3600};
  int number = 0;                     ///< 0: none
  bool key_identifier = true;         ///< of the issuer
  bool critical_extension = false;    ///< one that says that the list is not whole
  const TestCa* signed_by = nullptr;  ///< somebody else's key under this CA's name
};

/// A root, or an intermediate below one. Immutable once made.
class TestCa {
 public:
  explicit TestCa(const std::string& name = "test root");
  /// The root of a mesh, made by `weftctl ca init DIR`: for certificates that it should not have issued.
  static TestCa load(const std::string& dir);
  /// A CA that this one signed. Its bundles carry it in chain_pem and this one in roots_pem.
  [[nodiscard]] TestCa intermediate(const std::string& name = "test intermediate") const;

  [[nodiscard]] const std::string& roots_pem() const { return roots_pem_; }

  /// A good bundle.
  [[nodiscard]] hbone::CertificateBundle issue(const state::Identity& identity) const;
  /// A bundle that says `identity` and whose certificate is what `options` says.
  [[nodiscard]] hbone::CertificateBundle issue(const state::Identity& identity, const LeafOptions& options) const;

  /// A revocation list as PEM.
  [[nodiscard]] std::string crl(const CrlOptions& options = {}) const;

  /// Signs the key of a certificate request (PEM), as a CA does that never sees the key: the leaf alone, PEM. It holds
  /// what `options` says; the request's own names are taken where that names no URI.
  [[nodiscard]] std::string sign_request(const std::string& request_pem, LeafOptions options) const;

  // The usual bad ones.
  [[nodiscard]] hbone::CertificateBundle expired(const state::Identity& identity) const;
  [[nodiscard]] hbone::CertificateBundle not_yet_valid(const state::Identity& identity) const;
  [[nodiscard]] hbone::CertificateBundle without_san(const state::Identity& identity) const;
  [[nodiscard]] hbone::CertificateBundle with_two_sans(const state::Identity& identity,
                                                       const std::string& other_uri) const;
  [[nodiscard]] hbone::CertificateBundle with_dns_san_only(const state::Identity& identity) const;
  [[nodiscard]] hbone::CertificateBundle with_usage(const state::Identity& identity, LeafOptions::Usage usage) const;

 private:
  struct Empty {};
  explicit TestCa(Empty) {}
  [[nodiscard]] hbone::OpenSslPtr<X509> sign(EVP_PKEY* key, const LeafOptions& options) const;
  hbone::OpenSslPtr<EVP_PKEY> key_;
  hbone::OpenSslPtr<X509> certificate_;
  std::string chain_pem_;
  std::string roots_pem_;
};

/// How a context made by raw_context differs from a good peer.
struct RawOptions {
  bool server = false;
  std::optional<std::string> alpn = "h2";  ///< one protocol, or none at all
  std::string groups = "X25519:P-256";
  int max_version = TLS1_3_VERSION;
  bool present_certificate = true;
};
/// A TLS context that takes the bundle unchecked and verifies nobody: for playing a bad peer.
[[nodiscard]] hbone::OpenSslPtr<SSL_CTX> raw_context(const hbone::CertificateBundle& bundle, RawOptions options = {});

/// For the test CA's own files: ends the test where OpenSSL could not do `what`, with its reason.
void must(bool ok, const char* what);

}  // namespace weft::test
