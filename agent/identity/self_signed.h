// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "agent/identity/ca_directory.h"
#include "agent/identity/certificate_source.h"
#include "tunnel/base/clock.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::agent {

/// Makes a mesh's root: `dir`/root.pem and `dir`/root-key.pem (0600), P-256, ten years. `dir` is made with 0700 where
/// it is missing. Both files appear whole, the key first. Two inits at once: one wins, the other is refused. Errors:
/// kInvalid where either file is there already (a root is never overwritten: the whole mesh would have to be
/// re-issued), kDenied where others may write to `dir`, errno otherwise.
Result<void> init_ca(const std::string& dir, const Clock& clock = Clock::real());

/// The CA of a mesh without a control plane: each agent has the same roots and the key of one of them, and issues for
/// its own node. It only reads the directory, once, so that many agents may share a read-only mount. Immutable;
/// thread-safe.
class SelfSignedCa : public CertificateSource {
 public:
  static constexpr std::chrono::hours kDefaultTtl{1};
  /// Leaves start this much before now, for peers whose clocks are behind.
  static constexpr std::chrono::minutes kBackdate{2};

  /// Errors: those of read_ca(), kDenied where others than its owner may read the key among them; kInvalid where the
  /// root that signs is expired or not yet valid.
  static Result<std::unique_ptr<SelfSignedCa>> load(const std::string& dir, const Clock& clock = Clock::real());

  /// issue(identity, kDefaultTtl).
  Result<hbone::CertificateBundle> issue(const state::Identity& identity) override;
  /// A P-256 leaf of the root that signs, for `ttl` from now, at most until the root ends: URI SAN = the identity,
  /// digitalSignature, for TLS servers and clients. Errors: kInvalid for an identity that is not of SPIFFE's form, a
  /// `ttl` that is not positive, or an expired root.
  Result<hbone::CertificateBundle> issue(const state::Identity& identity, std::chrono::seconds ttl) const;

  /// All that are trusted; bundles carry them.
  [[nodiscard]] const std::string& roots_pem() const { return roots_pem_; }
  [[nodiscard]] const Roots& roots() const { return content_.roots; }
  /// The one that signs.
  [[nodiscard]] const X509* signing_root() const { return content_.signing_root(); }
  /// Its end.
  [[nodiscard]] WallTime not_after() const { return hbone::to_wall_time(X509_get0_notAfter(signing_root())); }

 private:
  explicit SelfSignedCa(const Clock& clock) : clock_(clock) {}

  const Clock& clock_;
  std::string dir_;
  std::string roots_pem_;
  CaContent content_;
};

}  // namespace weft::agent
