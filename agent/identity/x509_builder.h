// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/clock.h"
#include "tunnel/hbone/tls_x509.h"

/// Makes certificates with OpenSSL; self_signed.cc only. Thread-safe.
namespace weft::agent::x509 {

/// Collects the failures of the many small steps that a certificate is made of; asked once at the end.
class Builder {
 public:
  /// A version 3 certificate with a random 127-bit serial for `key`.
  Builder(EVP_PKEY* key, WallTime not_before, WallTime not_after);
  Builder& common_name(const std::string& name);
  /// The issuer's name, and the certificate that key identifiers are taken from; null: the certificate itself.
  Builder& issuer(X509* certificate);
  /// An extension in OpenSSL's text form. `value` is a constant: text from outside has no place in that language.
  Builder& extension(int nid, const char* value);
  /// The only SAN, critical because the subject is empty (RFC 5280, 4.2.1.6).
  Builder& uri_san(const std::string& uri);
  /// Signs, and gives the certificate. Errors: kInternal with OpenSSL's reason.
  Result<hbone::OpenSslPtr<X509>> sign(EVP_PKEY* issuer_key);

 private:
  hbone::OpenSslPtr<X509> certificate_;
  X509* issuer_ = nullptr;
  bool ok_ = true;
};

/// A new P-256 key. Errors: kInternal with OpenSSL's reason.
Result<hbone::OpenSslPtr<EVP_PKEY>> generate_key();
/// Errors: kInternal with OpenSSL's reason.
Result<std::string> to_pem(X509* certificate);
Result<std::string> to_pem(EVP_PKEY* key);

}  // namespace weft::agent::x509
