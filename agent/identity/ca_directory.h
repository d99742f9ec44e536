// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/hbone/tls_x509.h"

/// A CA's directory: the roots that the mesh trusts (root.pem, one or more), the key of the one that signs
/// (root-key.pem), while a root is replaced the key of the one that will sign or did (next-key.pem, previous-key.pem),
/// and what is revoked (crl.pem). Which root signs follows from the key, so that each change is the replacement of one
/// file, and a directory that is copied file by file is sound at any moment. Any thread; these calls block on the disk.
namespace weft::agent {

[[nodiscard]] std::string root_path(const std::string& dir);
[[nodiscard]] std::string key_path(const std::string& dir);
[[nodiscard]] std::string next_key_path(const std::string& dir);
[[nodiscard]] std::string previous_key_path(const std::string& dir);
[[nodiscard]] std::string crl_path(const std::string& dir);

/// Whether something has this name; a link is not followed.
[[nodiscard]] bool exists(const std::string& path);

using Roots = std::vector<hbone::OpenSslPtr<X509>>;

struct CaContent {
  Roots roots;              ///< in the order of root.pem
  std::size_t signing = 0;  ///< which of them
  hbone::OpenSslPtr<EVP_PKEY> key;
  [[nodiscard]] X509* signing_root() const { return roots[signing].get(); }
};

/// Reads roots and key. Errors: kNotFound for what is missing (says to run `weftctl ca init`), kInvalid for what is no
/// PEM, no self-signed CA certificate, there twice, or does not belong together, kDenied where others than its owner
/// may read the key; errno otherwise. Dates are not looked at.
Result<CaContent> read_ca(const std::string& dir);
/// Which of the roots the key belongs to.
[[nodiscard]] std::optional<std::size_t> root_of_key(const Roots& roots, EVP_PKEY* key);

/// Whether a root can sign at this moment. Errors: kInvalid naming `path` where it is expired, or not yet valid.
Result<void> check_dates(const std::string& path, const X509* root, WallTime now);

/// A root with its key.
struct NewRoot {
  hbone::OpenSslPtr<X509> certificate;
  std::string certificate_pem, key_pem;
};
/// P-256, ten years. Errors: kInternal with OpenSSL's reason.
Result<NewRoot> make_root(WallTime now);
constexpr std::chrono::hours kRootLifetime{24 * 3650};

/// Their PEM, one after the other. Errors: kInternal.
Result<std::string> roots_pem(const Roots& roots);
/// "'CN=Weft mesh root …' (SHA-256 0123456789abcdef…)"
[[nodiscard]] std::string describe_root(const X509* root);

/// Keeps two that change the directory apart; gone with the descriptor, so a killed one leaves nothing.
Result<Fd> lock_directory(const std::string& dir);

}  // namespace weft::agent
