// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"

/// What the TLS code and the CA code need of OpenSSL's certificates, with owners instead of raw pointers. Thread-safe.
namespace weft::hbone {

/// Frees any OpenSSL object that this project owns.
struct OpenSslDeleter {
  void operator()(X509* p) const { X509_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(EVP_PKEY_CTX* p) const { EVP_PKEY_CTX_free(p); }
  void operator()(OSSL_PARAM* p) const { OSSL_PARAM_free(p); }
  void operator()(OSSL_PARAM_BLD* p) const { OSSL_PARAM_BLD_free(p); }
  void operator()(BIO* p) const { BIO_free_all(p); }
  void operator()(X509_CRL* p) const { X509_CRL_free(p); }
  void operator()(X509_REVOKED* p) const { X509_REVOKED_free(p); }
  void operator()(X509_STORE* p) const { X509_STORE_free(p); }
  void operator()(X509_STORE_CTX* p) const { X509_STORE_CTX_free(p); }
  void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
  void operator()(SSL* p) const { SSL_free(p); }
  void operator()(BIGNUM* p) const { BN_free(p); }
  void operator()(GENERAL_NAME* p) const { GENERAL_NAME_free(p); }
  void operator()(GENERAL_NAMES* p) const { GENERAL_NAMES_free(p); }
  void operator()(ASN1_STRING* p) const { ASN1_STRING_free(p); }  // times and integers, too
  void operator()(AUTHORITY_KEYID* p) const { AUTHORITY_KEYID_free(p); }
  void operator()(X509_EXTENSION* p) const { X509_EXTENSION_free(p); }
  void operator()(STACK_OF(X509) * p) const { sk_X509_free(p); }  // the certificates are borrowed
};
template <class T>
using OpenSslPtr = std::unique_ptr<T, OpenSslDeleter>;

/// All certificates of a PEM text, in order; an empty text gives none. Errors: kInvalid naming `what` when a
/// certificate cannot be read.
Result<std::vector<OpenSslPtr<X509>>> read_certificates(std::string_view pem, std::string_view what);
/// The same of revocation lists; blocks of other kinds are passed over.
Result<std::vector<OpenSslPtr<X509_CRL>>> read_crls(std::string_view pem, std::string_view what);
/// The unencrypted private key of a PEM text; never asks for a passphrase. An elliptic curve's key leaves no copy
/// outside of OpenSSL's secure heap, where the process has one; one of another kind may. Errors: kInvalid naming
/// `what`.
Result<OpenSslPtr<EVP_PKEY>> read_private_key(std::string_view pem, std::string_view what);

/// The URI SANs of a certificate byte for byte (they may hold anything, NUL too), in order.
[[nodiscard]] std::vector<std::string> uri_sans(const X509* certificate);
/// The SANs of all kinds counted, for telling "no SAN at all" from "only other kinds".
[[nodiscard]] std::size_t san_count(const X509* certificate);
/// A moment of a certificate; the epoch where it cannot be read, which every check takes as long past.
[[nodiscard]] WallTime to_wall_time(const ASN1_TIME* time);
/// The serial number in upper-case hex.
[[nodiscard]] std::string serial_hex(const ASN1_INTEGER* serial);
[[nodiscard]] std::string serial_hex(const X509* certificate);
/// SHA-256 of the certificate in lower-case hex; empty where OpenSSL fails.
[[nodiscard]] std::string certificate_digest(const X509* certificate);
/// SHA-256 of the public key as the certificate has it, as bytes; empty where OpenSSL fails.
[[nodiscard]] std::string key_digest(const X509* certificate);
/// "CN=x, O=y", printable ASCII only, at most 200 characters.
[[nodiscard]] std::string name_text(const X509_NAME* name);

/// Bytes from a peer made fit for an error text: what is not printable ASCII becomes '?', the rest is cut at `limit`.
[[nodiscard]] std::string printable(std::string_view bytes, std::size_t limit = 200);
/// True when every byte is visible ASCII (no blanks, no control characters).
[[nodiscard]] bool is_visible_ascii(std::string_view bytes);
/// The reason of OpenSSL's latest error on this thread, "unknown reason" when there is none. Clears the queue.
[[nodiscard]] std::string openssl_reason();

}  // namespace weft::hbone
