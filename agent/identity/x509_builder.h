// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/hbone/tls_x509.h"

/// Makes certificates and revocation lists with OpenSSL, for the local CA. Thread-safe.
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

/// A certificate that a list names.
struct RevokedSerial {
  hbone::OpenSslPtr<ASN1_STRING> serial;  ///< an integer
  WallTime revoked;
};
/// A version 2 revocation list of `issuer`, numbered, with its key's identifier. Errors: kInternal with OpenSSL's
/// reason.
Result<hbone::OpenSslPtr<X509_CRL>> make_crl(X509* issuer, EVP_PKEY* issuer_key, WallTime this_update,
                                             WallTime next_update, std::uint64_t number,
                                             const std::vector<RevokedSerial>& revoked);

/// A new P-256 key. Errors: kInternal with OpenSSL's reason.
Result<hbone::OpenSslPtr<EVP_PKEY>> generate_key();
/// A certificate request for `key`, signed with it, as PEM: no subject, and `uri` as its only SAN. Errors: kInternal
/// with OpenSSL's reason.
Result<std::string> make_request(EVP_PKEY* key, const std::string& uri);
/// Errors: kInternal with OpenSSL's reason.
Result<std::string> to_pem(X509* certificate);
Result<std::string> to_pem(EVP_PKEY* key);
Result<std::string> to_pem(X509_CRL* crl);

}  // namespace weft::agent::x509
