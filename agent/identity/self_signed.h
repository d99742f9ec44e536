// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "agent/identity/certificate_source.h"
#include "tunnel/base/clock.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::agent {

/// Makes a mesh's root: `dir`/root.pem and `dir`/root-key.pem (0600), P-256, ten years. `dir` is made with 0700 where
/// it is missing. Both files appear whole, the key first. Two inits at once: one wins, the other is refused. Errors:
/// kInvalid where either file is there already (a root is never overwritten: the whole mesh would have to be
/// re-issued), kDenied where others may write to `dir`, errno otherwise.
Result<void> init_ca(const std::string& dir, const Clock& clock = Clock::real());

/// The CA of a mesh without a control plane: each agent has the same root and its key, and issues for its own node. It
/// only reads the directory, once, so that many agents may share a read-only mount. issue() is thread-safe.
class SelfSignedCa : public CertificateSource {
 public:
  static constexpr std::chrono::hours kDefaultTtl{1};
  /// Leaves start this much before now, for peers whose clocks are behind.
  static constexpr std::chrono::minutes kBackdate{2};

  /// Errors: kNotFound for a missing or empty directory (says to run `weftctl ca init`); kInvalid where a file cannot
  /// be read as PEM, the key is not the root's, the root is no CA or not self-signed, is expired or not yet valid;
  /// kDenied where others than its owner may read the key.
  static Result<std::unique_ptr<SelfSignedCa>> load(const std::string& dir, const Clock& clock = Clock::real());

  /// issue(identity, kDefaultTtl).
  Result<hbone::CertificateBundle> issue(const state::Identity& identity) override;
  /// A P-256 leaf for `ttl` from now, at most until the root ends: URI SAN = the identity, digitalSignature, for TLS
  /// servers and clients. Errors: kInvalid for an identity that is not of SPIFFE's form, a `ttl` that is not positive,
  /// or an expired root.
  Result<hbone::CertificateBundle> issue(const state::Identity& identity, std::chrono::seconds ttl) const;

  [[nodiscard]] const std::string& root_pem() const { return root_pem_; }
  [[nodiscard]] WallTime not_after() const { return hbone::to_wall_time(X509_get0_notAfter(root_.get())); }

 private:
  explicit SelfSignedCa(const Clock& clock) : clock_(clock) {}

  const Clock& clock_;
  std::string dir_;
  std::string root_pem_;
  hbone::OpenSslPtr<X509> root_;
  hbone::OpenSslPtr<EVP_PKEY> key_;
};

}  // namespace weft::agent
