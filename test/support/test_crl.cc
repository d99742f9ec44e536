// SPDX-License-Identifier: Apache-2.0
#include <openssl/pem.h>

#include <ctime>

#include "test/support/test_ca.h"

namespace weft::test {
namespace {

using hbone::OpenSslPtr;

OpenSslPtr<ASN1_STRING> time_from_now(std::chrono::seconds offset) {
  return OpenSslPtr<ASN1_STRING>(ASN1_TIME_adj(nullptr, std::time(nullptr), 0, offset.count()));
}

void add_revoked(X509_CRL* crl, const std::string& certificate_pem) {
  const auto certificates = hbone::read_certificates(certificate_pem, "the certificate to revoke");
  must(certificates && certificates->size() == 1, "read the certificate to revoke");
  OpenSslPtr<X509_REVOKED> entry(X509_REVOKED_new());
  must(X509_REVOKED_set_serialNumber(entry.get(), X509_get_serialNumber(certificates->front().get())) == 1 &&
           X509_REVOKED_set_revocationDate(entry.get(), time_from_now(std::chrono::seconds(-1)).get()) == 1 &&
           X509_CRL_add0_revoked(crl, entry.get()) == 1,
       "add a revoked certificate");
  static_cast<void>(entry.release());  // the list owns it now
}

void add_extension(X509_CRL* crl, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, nullptr, nullptr, crl, 0);
  const OpenSslPtr<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  must(extension && X509_CRL_add_ext(crl, extension.get(), -1) == 1, value);
}

}  // namespace

std::string TestCa::crl(const CrlOptions& options) const {
  const OpenSslPtr<X509_CRL> crl(X509_CRL_new());
  must(X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) == 1 &&
           X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(certificate_.get())) == 1 &&
           X509_CRL_set1_lastUpdate(crl.get(), time_from_now(options.this_update).get()) == 1 &&
           X509_CRL_set1_nextUpdate(crl.get(), time_from_now(options.next_update).get()) == 1,
       "make a CRL");
  for (const auto& certificate : options.revoked) add_revoked(crl.get(), certificate);
  if (options.number > 0) {
    const OpenSslPtr<ASN1_STRING> number(ASN1_INTEGER_new());
    must(ASN1_INTEGER_set(number.get(), options.number) == 1 &&
             X509_CRL_add1_ext_i2d(crl.get(), NID_crl_number, number.get(), 0, X509V3_ADD_DEFAULT) == 1,
         "number the CRL");
  }
  if (options.key_identifier) {
    add_extension(crl.get(), certificate_.get(), NID_authority_key_identifier, "keyid:always");
  }
  if (options.critical_extension) {
    add_extension(crl.get(), certificate_.get(), NID_issuing_distribution_point, "critical,onlyuser:TRUE");
  }
  must(X509_CRL_sort(crl.get()) == 1 &&
           X509_CRL_sign(crl.get(), (options.signed_by != nullptr ? options.signed_by : this)->key_.get(),
                         EVP_sha256()) > 0,
       "sign a CRL");
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  must(PEM_write_bio_X509_CRL(out.get(), crl.get()) == 1, "write a CRL");
  char* data = nullptr;
  const long length = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(length)};
}

}  // namespace weft::test
