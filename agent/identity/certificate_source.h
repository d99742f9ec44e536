// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tunnel/base/error.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/state/identity.h"

namespace weft::agent {

/// A CA that issues certificates for workloads: the local one, or a remote one behind a client.
class CertificateSource {
 public:
  virtual ~CertificateSource() = default;
  /// A new key and a certificate for it. May block, for a bounded time. Called on one thread. Errors: kUnavailable or
  /// kTimeout where trying again may help; the text says what the CA said.
  virtual Result<hbone::CertificateBundle> issue(const state::Identity& identity) = 0;
};

}  // namespace weft::agent
