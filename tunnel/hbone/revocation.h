// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {

class RevocationLists;
/// Null where nothing is revoked.
using RevocationsPtr = std::shared_ptr<const RevocationLists>;

/// Certificate revocation lists (CRLs, RFC 5280, 5): which certificates of a chain are not to be trusted although they
/// verify. What no list names is trusted, and a list past its next update still counts: it can only close. Immutable,
/// thread-safe.
class RevocationLists {
 public:
  /// One CRL.
  struct List {
    std::string issuer;  ///< its name, for people
    WallTime this_update;
    std::optional<WallTime> next_update;
    std::size_t revoked = 0;  ///< certificates in it
    bool verified = false;    ///< one of the known issuers signed it; otherwise that is seen when it is needed
  };
  /// The lists that count after a file was read, and what of the file does not count.
  struct Merged;

  /// Reads concatenated PEM CRLs, the form of Istio's ca-crl ConfigMap. `issuers_pem` are the CA certificates whose
  /// signatures can be checked now: the roots. Errors: kInvalid naming `what`, for all of it, where one CRL cannot be
  /// read, is of a known issuer and not signed by it, or has a critical extension (a delta or a partial list).
  static Result<RevocationsPtr> parse(std::string_view pem, const std::string& what, const std::string& issuers_pem);

  /// What a file that is not there says: nothing. Errors: kInvalid for `issuers_pem`.
  static Result<RevocationsPtr> none(const std::string& issuers_pem);

  /// What counts once `file` was read while `in_force` (may be null) counted: for each issuer the newer of its lists.
  /// A list that an issuer's newer one does not replace stays, also where the file has it no more, until its issuer is
  /// none of the known ones; so nothing that a file lacks opens what was closed.
  static Merged merge(const RevocationsPtr& in_force, const RevocationsPtr& file);

  RevocationLists(const RevocationLists&) = delete;
  RevocationLists& operator=(const RevocationLists&) = delete;
  ~RevocationLists();

  /// What is revoked in a verified chain, the leaf first, the root last, in words; nothing where all is well. The root
  /// itself is not looked for: it goes by leaving the roots.
  [[nodiscard]] std::optional<std::string> find(const std::vector<X509*>& chain) const;
  [[nodiscard]] std::vector<List> lists() const;
  [[nodiscard]] bool empty() const { return entries_.empty(); }

 private:
  struct Entry;
  RevocationLists() = default;
  [[nodiscard]] bool knows_issuer_of(const Entry& entry) const;
  std::vector<std::shared_ptr<const Entry>> entries_;
  std::vector<std::string> issuer_keys_;  ///< digests of the known issuers' keys
};

struct RevocationLists::Merged {
  RevocationsPtr lists;
  std::vector<std::string> notes;  ///< lists of the file that do not count, and kept ones that it has not
};

}  // namespace weft::hbone
