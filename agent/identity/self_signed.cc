// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/self_signed.h"

#include <algorithm>

#include "agent/identity/ca_directory.h"
#include "agent/identity/ca_files.h"
#include "agent/identity/x509_builder.h"
#include "tunnel/base/rfc3339.h"

namespace weft::agent {
namespace {

Result<void> refuse_existing(const std::string& dir) {
  const bool certificate = exists(root_path(dir)), key = exists(key_path(dir));
  if (!certificate && !key) return {};
  if (key && !certificate) {
    return fail(ErrorCode::kInvalid, "init the CA in " + dir +
                                         ": there is a root-key.pem without its root.pem (an earlier " +
                                         "init was cut off; remove root-key.pem if nothing was issued with it)");
  }
  return fail(ErrorCode::kInvalid, "init the CA in " + dir +
                                       ": it has a root.pem already, which is never overwritten " +
                                       "(every certificate of the mesh hangs on it; remove it by hand to begin anew)");
}

}  // namespace

Result<void> init_ca(const std::string& dir, const Clock& clock) {
  if (auto made = make_private_directory(dir); !made) return made;
  const auto lock = lock_directory(dir);
  if (!lock) return Failure(lock.error());
  if (auto free = refuse_existing(dir); !free) return free;
  const auto root = make_root(clock.wall_now());
  if (!root) return Failure(root.error());
  if (auto written = write_file_atomically(key_path(dir), root->key_pem, 0600); !written) return written;
  return write_file_atomically(root_path(dir), root->certificate_pem, 0644);
}

Result<std::unique_ptr<SelfSignedCa>> SelfSignedCa::load(const std::string& dir, const Clock& clock) {
  auto content = read_ca(dir);
  if (!content) return Failure(content.error());
  if (auto checked = check_dates(root_path(dir), content->signing_root(), clock.wall_now()); !checked)
    return Failure(checked.error());
  auto pem = agent::roots_pem(content->roots);
  if (!pem) return Failure(pem.error());
  std::unique_ptr<SelfSignedCa> ca(new SelfSignedCa(clock));
  ca->dir_ = dir;
  ca->roots_pem_ = std::move(*pem);
  ca->content_ = std::move(*content);
  return ca;
}

Result<hbone::CertificateBundle> SelfSignedCa::issue(const state::Identity& identity) {
  return issue(identity, kDefaultTtl);
}

Result<hbone::CertificateBundle> SelfSignedCa::issue(const state::Identity& identity, std::chrono::seconds ttl) const {
  const std::string uri = identity.to_uri();
  const std::string what = "issue a certificate for " + hbone::printable(uri) + ": ";
  const auto parsed = state::Identity::parse(uri);
  if (!parsed || *parsed != identity) return fail(ErrorCode::kInvalid, what + "it is not an identity of SPIFFE's form");
  if (ttl <= std::chrono::seconds(0)) return fail(ErrorCode::kInvalid, what + "the lifetime must be positive");
  const WallTime now = clock_.wall_now();
  if (now >= not_after())
    return fail(ErrorCode::kInvalid, what + "the root in " + dir_ + " expired at " + rfc3339(not_after()));
  const auto key = x509::generate_key();
  if (!key) return Failure(key.error());
  // The bound before the sum: a lifetime of centuries must not overflow.
  const auto lifetime =
      std::min<WallTime::duration>(std::min<std::chrono::seconds>(ttl, kRootLifetime), not_after() - now);
  const auto leaf = x509::Builder(key->get(), now - kBackdate, now + lifetime)
                        .issuer(content_.signing_root())
                        .extension(NID_basic_constraints, "critical,CA:FALSE")
                        .extension(NID_key_usage, "critical,digitalSignature")
                        .extension(NID_ext_key_usage, "serverAuth,clientAuth")
                        .extension(NID_authority_key_identifier, "keyid")
                        .uri_san(uri)
                        .sign(content_.key.get());
  if (!leaf) return fail(leaf.error().code, what + leaf.error().context);
  auto certificate_pem = x509::to_pem(leaf->get());
  if (!certificate_pem) return Failure(certificate_pem.error());
  auto key_pem = x509::to_pem(key->get());
  if (!key_pem) return Failure(key_pem.error());
  return hbone::CertificateBundle{identity, std::move(*certificate_pem), std::move(*key_pem), "", roots_pem_};
}

}  // namespace weft::agent
