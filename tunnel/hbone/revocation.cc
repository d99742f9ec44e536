// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/revocation.h"

#include "tunnel/base/rfc3339.h"

#include <openssl/err.h>
#include <openssl/x509.h>

#include <algorithm>
#include <unordered_map>

namespace weft::hbone {
namespace {

/// The key identifier of a CRL's issuer as bytes; empty where it names none.
std::string authority_key_id(const X509_CRL* crl) {
  const OpenSslPtr<AUTHORITY_KEYID> id(
      static_cast<AUTHORITY_KEYID*>(X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, nullptr, nullptr)));
  if (!id || id->keyid == nullptr) return "";
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(id->keyid)),
          static_cast<std::size_t>(ASN1_STRING_length(id->keyid))};
}

/// Whether the CRL says that it comes from this certificate: the names agree, and the key identifiers where both have
/// one.
bool may_be_from(const X509_CRL* crl, X509* issuer) {
  if (X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(issuer)) != 0) return false;
  const std::string wanted = authority_key_id(crl);
  const ASN1_OCTET_STRING* own = X509_get0_subject_key_id(issuer);
  if (wanted.empty() || own == nullptr) return true;
  return wanted == std::string_view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(own)),
                                    static_cast<std::size_t>(ASN1_STRING_length(own)));
}

bool is_signed_by(X509_CRL* crl, const X509* issuer) {
  const bool good = X509_CRL_verify(crl, X509_get0_pubkey(issuer)) == 1;
  ERR_clear_error();
  return good;
}

/// A delta CRL, an indirect one, or one for some certificates only says so by a critical extension, and taken for a
/// whole one it would say too little.
std::string critical_extension(const X509_CRL* crl) {
  for (int i = 0; i < X509_CRL_get_ext_count(crl); ++i) {
    X509_EXTENSION* extension = X509_CRL_get_ext(crl, i);
    if (X509_EXTENSION_get_critical(extension) == 0) continue;
    const int nid = OBJ_obj2nid(X509_EXTENSION_get_object(extension));
    return nid == NID_undef ? "that is not known here" : OBJ_nid2ln(nid);
  }
  return "";
}

/// -1, 0 or 1 as the first is smaller; 0 where one of them is missing.
int compare_numbers(const X509_CRL* a, const X509_CRL* b) {
  const auto number_of = [](const X509_CRL* crl) {
    return OpenSslPtr<ASN1_STRING>(
        static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(crl, NID_crl_number, nullptr, nullptr)));
  };
  const auto first = number_of(a), second = number_of(b);
  return first && second ? ASN1_INTEGER_cmp(first.get(), second.get()) : 0;
}

std::string claimed_identity(const X509* certificate) {
  const auto uris = uri_sans(certificate);
  return uris.empty() ? "'" + name_text(X509_get_subject_name(certificate)) + "'" : printable(uris.front());
}

}  // namespace

struct RevocationLists::Entry {
  OpenSslPtr<X509_CRL> crl;
  std::string key_id;
  std::string issuer_key;  ///< digest of the key that signed it, where that is known
  WallTime this_update;
  std::unordered_map<std::string, WallTime> revoked;  ///< when, by serial in hex

  [[nodiscard]] std::string issuer() const { return name_text(X509_CRL_get_issuer(crl.get())); }
  [[nodiscard]] bool same_issuer(const Entry& other) const {
    return X509_NAME_cmp(X509_CRL_get_issuer(crl.get()), X509_CRL_get_issuer(other.crl.get())) == 0 &&
           key_id == other.key_id && (issuer_key == other.issuer_key || issuer_key.empty() || other.issuer_key.empty());
  }
  [[nodiscard]] bool is_older_than(const Entry& other) const {
    if (const int order = compare_numbers(crl.get(), other.crl.get()); order != 0) return order < 0;
    return this_update < other.this_update;
  }
  [[nodiscard]] bool has_all_of(const Entry& other) const {
    return std::ranges::all_of(other.revoked, [this](const auto& one) { return revoked.contains(one.first); });
  }
  [[nodiscard]] bool is_from(const X509* certificate_issuer) const {
    if (!issuer_key.empty()) return issuer_key == key_digest(certificate_issuer);
    return is_signed_by(crl.get(), certificate_issuer);
  }

  /// Finds out who signed it, and takes its content. Errors: see parse().
  Result<void> read(const std::vector<OpenSslPtr<X509>>& issuers) {
    if (const std::string extension = critical_extension(crl.get()); !extension.empty()) {
      return fail(ErrorCode::kInvalid, "it has the critical extension " + extension +
                                           ", so it is not the whole list of its issuer, which is needed");
    }
    bool known = false;
    for (const auto& certificate : issuers) {
      if (!may_be_from(crl.get(), certificate.get())) continue;
      known = true;
      if (!is_signed_by(crl.get(), certificate.get())) continue;
      if ((X509_get_key_usage(certificate.get()) & KU_CRL_SIGN) == 0) {
        return fail(ErrorCode::kInvalid, "its issuer may not sign CRLs (its key usage says so)");
      }
      issuer_key = key_digest(certificate.get());
      break;
    }
    if (known && issuer_key.empty()) return fail(ErrorCode::kInvalid, "its issuer has not signed it (was it changed?)");
    key_id = authority_key_id(crl.get());
    this_update = to_wall_time(X509_CRL_get0_lastUpdate(crl.get()));
    STACK_OF(X509_REVOKED)* list = X509_CRL_get_REVOKED(crl.get());
    for (int i = 0; i < sk_X509_REVOKED_num(list); ++i) {
      const X509_REVOKED* one = sk_X509_REVOKED_value(list, i);
      revoked.emplace(serial_hex(X509_REVOKED_get0_serialNumber(one)),
                      to_wall_time(X509_REVOKED_get0_revocationDate(one)));
    }
    return {};
  }
};

RevocationLists::~RevocationLists() = default;

Result<RevocationsPtr> RevocationLists::parse(std::string_view pem, const std::string& what,
                                              const std::string& issuers_pem) {
  const auto issuers = read_certificates(issuers_pem, "roots");
  if (!issuers) return Failure(issuers.error());
  auto crls = read_crls(pem, what);
  if (!crls) return Failure(crls.error());
  if (crls->empty()) return fail(ErrorCode::kInvalid, "read " + what + ": no CRL in it");
  std::shared_ptr<RevocationLists> out(new RevocationLists());
  for (const auto& issuer : *issuers) out->issuer_keys_.push_back(key_digest(issuer.get()));
  for (auto& crl : *crls) {
    auto entry = std::make_shared<Entry>();
    entry->crl = std::move(crl);
    if (auto read = entry->read(*issuers); !read) {
      return fail(read.error().code, "read " + what + ": CRL " + std::to_string(out->entries_.size() + 1) + " of '" +
                                         entry->issuer() + "': " + read.error().context);
    }
    out->entries_.push_back(std::move(entry));
  }
  return RevocationsPtr(std::move(out));
}

Result<RevocationsPtr> RevocationLists::none(const std::string& issuers_pem) {
  const auto issuers = read_certificates(issuers_pem, "roots");
  if (!issuers) return Failure(issuers.error());
  std::shared_ptr<RevocationLists> out(new RevocationLists());
  for (const auto& issuer : *issuers) out->issuer_keys_.push_back(key_digest(issuer.get()));
  return RevocationsPtr(std::move(out));
}

/// Also true of lists whose issuer nobody here can know.
bool RevocationLists::knows_issuer_of(const Entry& entry) const {
  return entry.issuer_key.empty() || std::ranges::find(issuer_keys_, entry.issuer_key) != issuer_keys_.end();
}

RevocationLists::Merged RevocationLists::merge(const RevocationsPtr& in_force, const RevocationsPtr& file) {
  Merged merged;
  if (in_force == nullptr || file == nullptr) {
    merged.lists = file != nullptr ? file : in_force;
    return merged;
  }
  std::shared_ptr<RevocationLists> out(new RevocationLists());
  out->issuer_keys_ = file->issuer_keys_;
  out->entries_ = file->entries_;
  for (const auto& former : in_force->entries_) {
    if (!file->knows_issuer_of(*former)) continue;  // the root left
    const auto found =
        std::ranges::find_if(out->entries_, [&](const auto& entry) { return entry->same_issuer(*former); });
    if (found == out->entries_.end()) {
      merged.notes.push_back("the CRL of '" + former->issuer() + "' is not in the file any more; the last one counts");
      out->entries_.push_back(former);
    } else if ((*found)->is_older_than(*former)) {
      merged.notes.push_back("the CRL of '" + former->issuer() + "' is of " + rfc3339((*found)->this_update) +
                             ", older than the one that counts, of " + rfc3339(former->this_update));
      *found = former;
    } else if ((*found)->issuer_key.empty() && !(*found)->has_all_of(*former)) {
      // Nobody can say yet whether the newer one is genuine.
      merged.notes.push_back("the CRL of '" + former->issuer() +
                             "' lacks what an earlier one listed, and is of no known issuer; both count");
      out->entries_.push_back(former);
    }
  }
  merged.lists = std::move(out);
  return merged;
}

std::optional<std::string> RevocationLists::find(const std::vector<X509*>& chain) const {
  for (std::size_t i = 0; i + 1 < chain.size(); ++i) {
    const std::string serial = serial_hex(chain[i]);
    for (const auto& entry : entries_) {
      const auto found = entry->revoked.find(serial);
      if (found == entry->revoked.end()) continue;
      if (X509_NAME_cmp(X509_CRL_get_issuer(entry->crl.get()), X509_get_issuer_name(chain[i])) != 0) continue;
      if (!entry->is_from(chain[i + 1])) continue;
      return std::string(i == 0 ? "certificate " : "issuing certificate ") + serial + " of " +
             claimed_identity(chain[i]) + " was revoked at " + rfc3339(found->second) + " (CRL of '" + entry->issuer() +
             "')";
    }
  }
  return std::nullopt;
}

std::vector<RevocationLists::List> RevocationLists::lists() const {
  std::vector<List> out;
  for (const auto& entry : entries_) {
    List list;
    list.issuer = entry->issuer();
    list.this_update = entry->this_update;
    if (const ASN1_TIME* next = X509_CRL_get0_nextUpdate(entry->crl.get())) list.next_update = to_wall_time(next);
    list.revoked = entry->revoked.size();
    list.verified = !entry->issuer_key.empty();
    out.push_back(std::move(list));
  }
  return out;
}

}  // namespace weft::hbone
