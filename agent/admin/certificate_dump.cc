// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/certificate_dump.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <ctime>
#include <memory>

#include "agent/admin/config_dump.h"
#include "tunnel/base/rfc3339.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::admin {
namespace {

using nlohmann::json;

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using Number = std::unique_ptr<BIGNUM, Freed<BN_free>>;

std::string base64(const std::string& text) {
  std::string out(4 * ((text.size() + 2) / 3) + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

std::string pem_of(X509* certificate) {
  const Bio out(BIO_new(BIO_s_mem()));
  if (!out || PEM_write_bio_X509(out.get(), certificate) != 1) return "";
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string serial_of(X509* certificate) {
  const Number number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  char* text = number ? BN_bn2dec(number.get()) : nullptr;
  std::string serial = text != nullptr ? text : "";
  OPENSSL_free(text);
  return serial;
}

std::string time_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "";
  return rfc3339(std::chrono::system_clock::from_time_t(::timegm(&parts)));
}

std::string subject_of(const X509* certificate) {
  const Bio out(BIO_new(BIO_s_mem()));
  if (!out || X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_ONELINE) < 0) return "";
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

/// What `make` says of each certificate.
template <class Make>
json each_certificate(const std::string& pem, Make make) {
  json list = json::array();
  const Bio in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  while (in) {
    const Certificate certificate(PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr));
    if (!certificate) break;
    list.push_back(make(certificate.get()));
  }
  ERR_clear_error();
  return list;
}

}  // namespace

json certificates_in(const std::string& pem) {
  return each_certificate(pem, [](X509* certificate) -> json {
    return {{"pem", base64(pem_of(certificate))},
            {"serialNumber", serial_of(certificate)},
            {"validFrom", time_of(X509_get0_notBefore(certificate))},
            {"expirationTime", time_of(X509_get0_notAfter(certificate))}};
  });
}

json certificate_summaries(const std::string& pem) {
  return each_certificate(pem, [](X509* certificate) -> json {
    return {{"subject", subject_of(certificate)},
            {"sha256", hbone::certificate_digest(certificate)},
            {"validFrom", time_of(X509_get0_notBefore(certificate))},
            {"expirationTime", time_of(X509_get0_notAfter(certificate))}};
  });
}

json to_json(const agent::CaStatus& ca) {
  json roots = json::array(), lists = json::array();
  for (const auto& root : ca.roots) {
    roots.push_back({{"subject", root.subject},
                     {"sha256", root.sha256},
                     {"expirationTime", rfc3339(root.not_after)},
                     {"signs", root.signs}});
  }
  for (const auto& list : ca.crl.lists) {
    json one = {{"issuer", list.issuer},
                {"thisUpdate", rfc3339(list.this_update)},
                {"revoked", list.revoked},
                {"verified", list.verified}};
    if (list.next_update) one["nextUpdate"] = rfc3339(*list.next_update);
    lists.push_back(std::move(one));
  }
  json crl = {{"file", ca.crl.file},   {"usable", ca.crl.problem.empty()}, {"problem", ca.crl.problem},
              {"notes", ca.crl.notes}, {"refused", ca.crl.refused},        {"lists", std::move(lists)}};
  return {{"directory", ca.directory},
          {"usable", ca.problem.empty()},
          {"problem", ca.problem},
          {"roots", std::move(roots)},
          {"crl", std::move(crl)}};
}

json to_json(const hbone::TlsIdentity& certificate) {
  const auto& bundle = certificate.bundle();
  return {{"identity", bundle.identity.to_uri()},
          {"state", "Available"},
          {"certChain", certificates_in(bundle.certificate_pem + "\n" + bundle.chain_pem)},
          {"rootCerts", certificates_in(bundle.roots_pem)}};
}

}  // namespace weft::admin
