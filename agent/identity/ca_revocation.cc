// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_revocation.h"

#include <openssl/err.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/identity/ca_directory.h"
#include "agent/identity/ca_files.h"
#include "agent/identity/x509_builder.h"
#include "tunnel/base/rfc3339.h"

namespace weft::agent {
namespace {

using hbone::OpenSslPtr;
using Crls = std::vector<OpenSslPtr<X509_CRL>>;

constexpr mode_t kCrlMode = 0644;
constexpr std::size_t kMaxSerialDigits = 40;  // RFC 5280, 4.1.2.2: 20 octets

bool is_signed_by(X509_CRL* crl, X509* root) {
  if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(root)) != 0) return false;
  const bool good = X509_CRL_verify(crl, X509_get0_pubkey(root)) == 1;
  ERR_clear_error();
  return good;
}

/// The CRLs of the directory's file; none where there is no file.
Result<Crls> read_crl_file(const std::string& dir) {
  const auto pem = read_pem_file(crl_path(dir), kMaxCrlBytes);
  if (!pem && pem.error().code == ErrorCode::kNotFound) return Crls();
  if (!pem) return Failure(pem.error());
  return hbone::read_crls(*pem, crl_path(dir));
}

/// A root that can sign, and what its list is to hold.
struct Signer {
  X509* root = nullptr;
  OpenSslPtr<EVP_PKEY> key;
  std::uint64_t number = 0;  ///< of its latest list
  std::vector<x509::RevokedSerial> revoked;

  [[nodiscard]] bool has(const ASN1_INTEGER* serial) const {
    return std::ranges::any_of(revoked,
                               [&](const auto& one) { return ASN1_INTEGER_cmp(one.serial.get(), serial) == 0; });
  }
  /// False where it is in the list already.
  bool add(const ASN1_INTEGER* serial, WallTime when) {
    if (has(serial)) return false;
    revoked.push_back({OpenSslPtr<ASN1_STRING>(ASN1_INTEGER_dup(serial)), when});
    return true;
  }
  void take(X509_CRL* crl) {
    const OpenSslPtr<ASN1_STRING> counted(
        static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(crl, NID_crl_number, nullptr, nullptr)));
    std::uint64_t value = 0;
    if (counted && ASN1_INTEGER_get_uint64(&value, counted.get()) == 1) number = std::max(number, value);
    ERR_clear_error();
    STACK_OF(X509_REVOKED)* entries = X509_CRL_get_REVOKED(crl);
    for (int i = 0; i < sk_X509_REVOKED_num(entries); ++i) {
      const X509_REVOKED* entry = sk_X509_REVOKED_value(entries, i);
      add(X509_REVOKED_get0_serialNumber(entry), hbone::to_wall_time(X509_REVOKED_get0_revocationDate(entry)));
    }
  }
};

/// The directory's roots, and those of them that can sign.
struct Lists {
  Fd lock;
  CaContent content;
  std::vector<Signer> signers;
  std::string others_pem;  ///< CRLs that nobody here can sign
};

Result<void> add_signer(Lists& lists, const std::string& path) {
  if (!exists(path)) return {};
  auto key = read_key_file(path);
  if (!key) return Failure(key.error());
  const auto index = root_of_key(lists.content.roots, key->get());
  if (!index) return {};
  X509* root = lists.content.roots[*index].get();
  const bool known = std::ranges::any_of(lists.signers, [&](const Signer& signer) { return signer.root == root; });
  if (!known) lists.signers.push_back({.root = root, .key = std::move(*key), .number = 0, .revoked = {}});
  return {};
}

Result<Lists> open_lists(const std::string& dir) {
  Lists lists;
  auto lock = lock_directory(dir);
  if (!lock) return Failure(lock.error());
  lists.lock = std::move(*lock);
  auto content = read_ca(dir);
  if (!content) return Failure(content.error());
  lists.content = std::move(*content);
  for (const auto& path : {key_path(dir), next_key_path(dir), previous_key_path(dir)}) {
    if (auto added = add_signer(lists, path); !added) return Failure(added.error());
  }
  const auto crls = read_crl_file(dir);
  if (!crls) return Failure(crls.error());
  for (const auto& crl : *crls) {
    const auto own =
        std::ranges::find_if(lists.signers, [&](const Signer& signer) { return is_signed_by(crl.get(), signer.root); });
    if (own != lists.signers.end()) {
      own->take(crl.get());
      continue;
    }
    const auto pem = x509::to_pem(crl.get());
    if (!pem) return Failure(pem.error());
    lists.others_pem += *pem;
  }
  return lists;
}

Result<OpenSslPtr<ASN1_STRING>> parse_serial(const std::string& text) {
  std::string digits = text;
  std::erase(digits, ':');
  const bool good = !digits.empty() && digits.size() <= kMaxSerialDigits &&
                    digits.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
  BIGNUM* number = nullptr;
  if (good && BN_hex2bn(&number, digits.c_str()) > 0) {
    const OpenSslPtr<BIGNUM> owned(number);
    OpenSslPtr<ASN1_STRING> serial(BN_to_ASN1_INTEGER(number, nullptr));
    if (serial) return serial;
  }
  return fail(ErrorCode::kInvalid, "revoke serial \"" + hbone::printable(text) +
                                       "\": expected hexadecimal digits, as `weftctl certificates` shows them");
}

/// The signer whose root issued the certificate.
Result<Signer*> issuer_of(Lists& lists, const std::string& path, X509* certificate) {
  for (const auto& root : lists.content.roots) {
    const bool issued = X509_NAME_cmp(X509_get_issuer_name(certificate), X509_get_subject_name(root.get())) == 0 &&
                        X509_verify(certificate, X509_get0_pubkey(root.get())) == 1;
    ERR_clear_error();
    if (!issued) continue;
    for (auto& signer : lists.signers) {
      if (signer.root == root.get()) return &signer;
    }
    return fail(ErrorCode::kInvalid, "revoke the certificate in " + path + ": it is of " + describe_root(root.get()) +
                                         ", whose key is not in the directory");
  }
  return fail(ErrorCode::kInvalid, "revoke the certificate in " + path + ": no root of the directory issued it");
}

Result<void> add_certificate(Lists& lists, const std::string& path, WallTime now, std::string& text) {
  const auto pem = read_pem_file(path);
  if (!pem) return Failure(pem.error());
  const auto certificates = hbone::read_certificates(*pem, path);
  if (!certificates) return Failure(certificates.error());
  if (certificates->empty()) return fail(ErrorCode::kInvalid, "read " + path + ": no certificate in it");
  X509* leaf = certificates->front().get();
  const auto signer = issuer_of(lists, path, leaf);
  if (!signer) return Failure(signer.error());
  const bool added = (*signer)->add(X509_get0_serialNumber(leaf), now);
  text += (added ? "revoked " : "revoked already ") + hbone::serial_hex(leaf) + "\n";
  return {};
}

/// Which root issued it cannot be known: a serial is random, so the lists of all may have it.
Result<void> add_serial(Lists& lists, const std::string& digits, WallTime now, std::string& text) {
  const auto serial = parse_serial(digits);
  if (!serial) return Failure(serial.error());
  bool added = false;
  for (auto& signer : lists.signers) added = signer.add(serial->get(), now) || added;
  text += (added ? "revoked " : "revoked already ") + hbone::serial_hex(serial->get()) + "\n";
  return {};
}

}  // namespace

Result<std::string> revoke(const RevokeRequest& request, const Clock& clock) {
  auto lists = open_lists(request.directory);
  if (!lists) return Failure(lists.error());
  const WallTime now = clock.wall_now();
  std::string text;
  for (const auto& serial : request.serials) {
    if (auto added = add_serial(*lists, serial, now, text); !added) return Failure(added.error());
  }
  for (const auto& path : request.certificates) {
    if (auto added = add_certificate(*lists, path, now, text); !added) return Failure(added.error());
  }
  std::string pem;
  std::size_t count = 0;
  for (const auto& signer : lists->signers) {
    const auto crl = x509::make_crl(signer.root, signer.key.get(), now, now + request.next_update, signer.number + 1,
                                    signer.revoked);
    if (!crl) return Failure(crl.error());
    const auto one = x509::to_pem(crl->get());
    if (!one) return Failure(one.error());
    pem += *one;
    count = std::max(count, signer.revoked.size());
  }
  if (auto written = write_file_atomically(crl_path(request.directory), pem + lists->others_pem, kCrlMode); !written) {
    return Failure(written.error());
  }
  return text + "wrote " + crl_path(request.directory) + ": " + std::to_string(count) +
         (count == 1 ? " certificate is" : " certificates are") + " revoked; a newer list is to follow until " +
         rfc3339(now + request.next_update) +
         "\nagents that have the directory see it at once; copy the file to the others\n";
}

Result<void> drop_crl(const std::string& dir, X509* root) {
  const auto crls = read_crl_file(dir);
  if (!crls) return Failure(crls.error());
  std::string kept;
  bool dropped = false;
  for (const auto& crl : *crls) {
    if (is_signed_by(crl.get(), root)) {
      dropped = true;
      continue;
    }
    const auto pem = x509::to_pem(crl.get());
    if (!pem) return Failure(pem.error());
    kept += *pem;
  }
  if (!dropped) return {};
  if (!kept.empty()) return write_file_atomically(crl_path(dir), kept, kCrlMode);
  if (::unlink(crl_path(dir).c_str()) < 0 && errno != ENOENT) return fail_errno(errno, "remove " + crl_path(dir));
  return {};
}

}  // namespace weft::agent
