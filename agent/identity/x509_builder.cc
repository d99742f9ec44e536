// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/x509_builder.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <array>
#include <memory>

namespace weft::agent::x509 {
namespace {

using hbone::OpenSslPtr;

bool set_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] &= 0x7f;  // positive
  bytes[0] |= 0x40;  // never zero, always the same length
  const OpenSslPtr<BIGNUM> number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_time(ASN1_TIME* time, WallTime value) {
  return ASN1_TIME_set(time, std::chrono::system_clock::to_time_t(value)) != nullptr;
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return length > 0 ? std::string(data, static_cast<std::size_t>(length)) : std::string();
}

/// Null for keys that bring their own.
const EVP_MD* digest_for(EVP_PKEY* key) {
  const bool inside = EVP_PKEY_is_a(key, "ED25519") == 1 || EVP_PKEY_is_a(key, "ED448") == 1;
  return inside ? nullptr : EVP_sha256();
}

/// One URI; null where OpenSSL fails.
OpenSslPtr<GENERAL_NAMES> uri_names(const std::string& uri) {
  OpenSslPtr<GENERAL_NAMES> names(GENERAL_NAMES_new());
  OpenSslPtr<GENERAL_NAME> name(GENERAL_NAME_new());
  OpenSslPtr<ASN1_IA5STRING> value(ASN1_IA5STRING_new());
  if (!names || !name || !value || ASN1_STRING_set(value.get(), uri.data(), static_cast<int>(uri.size())) != 1)
    return nullptr;
  GENERAL_NAME_set0_value(name.get(), GEN_URI, value.release());
  if (sk_GENERAL_NAME_push(names.get(), name.get()) <= 0) return nullptr;
  static_cast<void>(name.release());  // the stack owns it now
  return names;
}

Failure failed(const std::string& what) { return fail(ErrorCode::kInternal, what + ": " + hbone::openssl_reason()); }

}  // namespace

Builder::Builder(EVP_PKEY* key, WallTime not_before, WallTime not_after) : certificate_(X509_new()) {
  ERR_clear_error();
  X509* c = certificate_.get();
  ok_ = c != nullptr && X509_set_version(c, X509_VERSION_3) == 1 && set_serial(c) &&
        set_time(X509_getm_notBefore(c), not_before) && set_time(X509_getm_notAfter(c), not_after) &&
        X509_set_pubkey(c, key) == 1;
}

Builder& Builder::common_name(const std::string& name) {
  ok_ = ok_ && X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate_.get()), "CN", MBSTRING_UTF8,
                                          reinterpret_cast<const unsigned char*>(name.data()),
                                          static_cast<int>(name.size()), -1, 0) == 1;
  return *this;
}

Builder& Builder::issuer(X509* certificate) {
  if (!ok_) return *this;
  issuer_ = certificate != nullptr ? certificate : certificate_.get();
  ok_ = X509_set_issuer_name(certificate_.get(), X509_get_subject_name(issuer_)) == 1;
  return *this;
}

Builder& Builder::extension(int nid, const char* value) {
  if (!ok_) return *this;
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer_, certificate_.get(), nullptr, nullptr, 0);
  const OpenSslPtr<X509_EXTENSION> made(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  ok_ = made && X509_add_ext(certificate_.get(), made.get(), -1) == 1;
  return *this;
}

Builder& Builder::uri_san(const std::string& uri) {
  if (!ok_) return *this;
  const auto names = uri_names(uri);
  ok_ = names && X509_add1_ext_i2d(certificate_.get(), NID_subject_alt_name, names.get(), 1, X509V3_ADD_DEFAULT) == 1;
  return *this;
}

Result<OpenSslPtr<X509>> Builder::sign(EVP_PKEY* issuer_key) {
  if (ok_ && X509_sign(certificate_.get(), issuer_key, digest_for(issuer_key)) > 0) return std::move(certificate_);
  return failed("make a certificate");
}

Result<OpenSslPtr<X509_CRL>> make_crl(X509* issuer, EVP_PKEY* issuer_key, WallTime this_update, WallTime next_update,
                                      std::uint64_t number, const std::vector<RevokedSerial>& revoked) {
  ERR_clear_error();
  OpenSslPtr<X509_CRL> crl(X509_CRL_new());
  const OpenSslPtr<ASN1_STRING> from(ASN1_TIME_new()), until(ASN1_TIME_new()), counted(ASN1_INTEGER_new());
  bool ok =
      crl && from && until && counted && set_time(from.get(), this_update) && set_time(until.get(), next_update) &&
      ASN1_INTEGER_set_uint64(counted.get(), number) == 1 && X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) == 1 &&
      X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(issuer)) == 1 &&
      X509_CRL_set1_lastUpdate(crl.get(), from.get()) == 1 && X509_CRL_set1_nextUpdate(crl.get(), until.get()) == 1 &&
      X509_CRL_add1_ext_i2d(crl.get(), NID_crl_number, counted.get(), 0, X509V3_ADD_DEFAULT) == 1;
  if (ok) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, nullptr, nullptr, crl.get(), 0);
    const OpenSslPtr<X509_EXTENSION> key_id(
        X509V3_EXT_conf_nid(nullptr, &context, NID_authority_key_identifier, "keyid:always"));
    ok = key_id && X509_CRL_add_ext(crl.get(), key_id.get(), -1) == 1;
  }
  for (const auto& one : revoked) {
    OpenSslPtr<X509_REVOKED> entry(X509_REVOKED_new());
    const OpenSslPtr<ASN1_STRING> when(ASN1_TIME_new());
    ok = ok && entry && when && set_time(when.get(), one.revoked) &&
         X509_REVOKED_set_serialNumber(entry.get(), one.serial.get()) == 1 &&
         X509_REVOKED_set_revocationDate(entry.get(), when.get()) == 1 &&
         X509_CRL_add0_revoked(crl.get(), entry.get()) == 1;
    if (!ok) break;
    static_cast<void>(entry.release());  // the list owns it now
  }
  if (ok && X509_CRL_sort(crl.get()) == 1 && X509_CRL_sign(crl.get(), issuer_key, digest_for(issuer_key)) > 0) {
    return crl;
  }
  return failed("make a CRL");
}

Result<OpenSslPtr<EVP_PKEY>> generate_key() {
  OpenSslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  if (!key) return failed("generate a P-256 key");
  return key;
}

Result<std::string> make_request(EVP_PKEY* key, const std::string& uri) {
  ERR_clear_error();
  const std::unique_ptr<X509_REQ, decltype(&X509_REQ_free)> request(X509_REQ_new(), &X509_REQ_free);
  const auto names = uri_names(uri);
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  STACK_OF(X509_EXTENSION)* extensions = nullptr;
  bool ok = request && names && out && X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) == 1 &&
            X509_REQ_set_pubkey(request.get(), key) == 1 &&
            X509V3_add1_i2d(&extensions, NID_subject_alt_name, names.get(), 1, X509V3_ADD_DEFAULT) == 1 &&
            X509_REQ_add_extensions(request.get(), extensions) == 1;
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  ok = ok && X509_REQ_sign(request.get(), key, digest_for(key)) > 0 &&
       PEM_write_bio_X509_REQ(out.get(), request.get()) == 1;
  if (!ok) return failed("make a certificate request");
  return text_of(out.get());
}

Result<std::string> to_pem(X509* certificate) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (!out || PEM_write_bio_X509(out.get(), certificate) != 1) return failed("write a certificate as PEM");
  return text_of(out.get());
}

Result<std::string> to_pem(X509_CRL* crl) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (!out || PEM_write_bio_X509_CRL(out.get(), crl) != 1) return failed("write a CRL as PEM");
  return text_of(out.get());
}

Result<std::string> to_pem(EVP_PKEY* key) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_secmem()));
  if (!out || PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return failed("write a key as PEM");
  }
  return text_of(out.get());
}

}  // namespace weft::agent::x509
