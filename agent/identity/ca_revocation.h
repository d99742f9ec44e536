// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/hbone/tls_x509.h"

/// The revocation list of a mesh's own CA, `dir`/crl.pem: one CRL for each root whose key is in the directory. Any
/// thread; these calls block on the disk.
namespace weft::agent {

struct RevokeRequest {
  std::string directory;                         ///< of the CA
  std::vector<std::string> serials;              ///< in hex, with or without colons
  std::vector<std::string> certificates;         ///< PEM files; the first certificate of each
  std::chrono::seconds next_update{30 * 86400};  ///< until then a newer list is to follow
};

/// Adds to the list and signs it anew; without serials and certificates it gets new dates only. CRLs of other issuers
/// in the file stay as they are. The text says what was done. Errors: kInvalid for a serial that is no number, a
/// certificate that no root here issued, or a list in the file that cannot be read; those of read_ca(); errno.
Result<std::string> revoke(const RevokeRequest& request, const Clock& clock = Clock::real());

/// Takes the CRLs of a root out of the file, and the file away when nothing is left. The caller holds the directory's
/// lock. Errors: as above.
Result<void> drop_crl(const std::string& dir, X509* root);

}  // namespace weft::agent
