// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/self_signed.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "agent/identity/ca_files.h"
#include "agent/identity/x509_builder.h"
#include "tunnel/base/fd.h"

namespace weft::agent {
namespace {

using hbone::OpenSslPtr;
using hbone::to_text;
using hbone::to_wall_time;

constexpr std::chrono::hours kRootLifetime{24 * 3650};
constexpr std::chrono::hours kRootBackdate{1};

std::string certificate_path(const std::string& dir) { return dir + "/root.pem"; }
std::string key_path(const std::string& dir) { return dir + "/root-key.pem"; }

bool exists(const std::string& path) { return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0; }

Result<void> refuse_existing(const std::string& dir) {
  const bool certificate = exists(certificate_path(dir)), key = exists(key_path(dir));
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

/// Keeps two inits apart; gone with the descriptor, so a killed init leaves nothing.
Result<Fd> lock_directory(const std::string& dir) {
  Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open directory " + dir);
  if (::flock(fd.get(), LOCK_EX) < 0) return fail_errno(errno, "lock directory " + dir);
  return fd;
}

Result<OpenSslPtr<X509>> make_root(EVP_PKEY* key, WallTime now) {
  return x509::Builder(key, now - kRootBackdate, now + kRootLifetime)
      .common_name("Weft mesh root " + to_text(now))
      .issuer(nullptr)
      .extension(NID_basic_constraints, "critical,CA:TRUE,pathlen:0")
      .extension(NID_key_usage, "critical,keyCertSign,cRLSign")
      .extension(NID_subject_key_identifier, "hash")
      .sign(key);
}

Failure not_found(const std::string& dir, const std::string& what) {
  return fail(ErrorCode::kNotFound, "load the CA from " + dir + ": " + what +
                                        " (make the mesh's root once with `weftctl ca " + "init " + dir +
                                        "` and give the directory to every node)");
}

/// A part of the CA that was not found, told for somebody who may not have made one yet.
template <class T>
Result<T> explained(Result<T> part, const std::string& dir, const std::string& path) {
  if (part || part.error().code != ErrorCode::kNotFound) return part;
  if (!exists(dir)) return not_found(dir, "there is no such directory");
  if (!exists(certificate_path(dir)) && !exists(key_path(dir))) return not_found(dir, "there is no CA in it");
  return not_found(dir, path + " is missing");
}

/// Whether the root can be the root of a mesh at this moment.
Result<void> check_root(const std::string& path, X509* root, WallTime now) {
  if (X509_check_ca(root) != 1) return fail(ErrorCode::kInvalid, path + ": the certificate is not a CA's");
  if (X509_self_signed(root, 1) != 1) {
    ERR_clear_error();
    return fail(ErrorCode::kInvalid, path + ": the certificate is not signed by itself, so it is not a root");
  }
  const auto from = to_wall_time(X509_get0_notBefore(root)), until = to_wall_time(X509_get0_notAfter(root));
  if (now >= until) {
    return fail(ErrorCode::kInvalid, path + ": the root expired at " + to_text(until) +
                                         " (make a new one with `weftctl " +
                                         "ca init` in a new directory, or is this node's clock wrong?)");
  }
  if (now < from) {
    return fail(ErrorCode::kInvalid,
                path + ": the root is not valid before " + to_text(from) + " (is this node's clock behind?)");
  }
  return {};
}

}  // namespace

Result<void> init_ca(const std::string& dir, const Clock& clock) {
  if (auto made = make_private_directory(dir); !made) return made;
  const auto lock = lock_directory(dir);
  if (!lock) return Failure(lock.error());
  if (auto free = refuse_existing(dir); !free) return free;
  auto key = x509::generate_key();
  if (!key) return Failure(key.error());
  auto root = make_root(key->get(), clock.wall_now());
  if (!root) return Failure(root.error());
  const auto key_pem = x509::to_pem(key->get());
  if (!key_pem) return Failure(key_pem.error());
  const auto root_pem = x509::to_pem(root->get());
  if (!root_pem) return Failure(root_pem.error());
  if (auto written = write_file_atomically(key_path(dir), *key_pem, 0600); !written) return written;
  return write_file_atomically(certificate_path(dir), *root_pem, 0644);
}

Result<std::unique_ptr<SelfSignedCa>> SelfSignedCa::load(const std::string& dir, const Clock& clock) {
  auto root_pem = explained(read_pem_file(certificate_path(dir)), dir, certificate_path(dir));
  if (!root_pem) return Failure(root_pem.error());
  auto key = explained(read_key_file(key_path(dir)), dir, key_path(dir));
  if (!key) return Failure(key.error());
  auto roots = hbone::read_certificates(*root_pem, certificate_path(dir));
  if (!roots) return Failure(roots.error());
  if (roots->size() != 1) {
    return fail(ErrorCode::kInvalid, "read " + certificate_path(dir) + ": " + std::to_string(roots->size()) +
                                         " certificates in it, expected one");
  }
  X509* root = roots->front().get();
  if (X509_check_private_key(root, key->get()) != 1) {
    ERR_clear_error();
    return fail(ErrorCode::kInvalid,
                "load the CA from " + dir + ": root-key.pem is not the key of root.pem (are they of two meshes?)");
  }
  if (auto checked = check_root(certificate_path(dir), root, clock.wall_now()); !checked)
    return Failure(checked.error());
  std::unique_ptr<SelfSignedCa> ca(new SelfSignedCa(clock));
  ca->dir_ = dir;
  ca->root_pem_ = std::move(*root_pem);
  ca->root_ = std::move(roots->front());
  ca->key_ = std::move(*key);
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
    return fail(ErrorCode::kInvalid, what + "the root in " + dir_ + " expired at " + to_text(not_after()));
  const auto key = x509::generate_key();
  if (!key) return Failure(key.error());
  // The bound before the sum: a lifetime of centuries must not overflow.
  const auto lifetime =
      std::min<WallTime::duration>(std::min<std::chrono::seconds>(ttl, kRootLifetime), not_after() - now);
  const auto leaf = x509::Builder(key->get(), now - kBackdate, now + lifetime)
                        .issuer(root_.get())
                        .extension(NID_basic_constraints, "critical,CA:FALSE")
                        .extension(NID_key_usage, "critical,digitalSignature")
                        .extension(NID_ext_key_usage, "serverAuth,clientAuth")
                        .extension(NID_authority_key_identifier, "keyid")
                        .uri_san(uri)
                        .sign(key_.get());
  if (!leaf) return fail(leaf.error().code, what + leaf.error().context);
  auto certificate_pem = x509::to_pem(leaf->get());
  if (!certificate_pem) return Failure(certificate_pem.error());
  auto key_pem = x509::to_pem(key->get());
  if (!key_pem) return Failure(key_pem.error());
  return hbone::CertificateBundle{identity, std::move(*certificate_pem), std::move(*key_pem), "", root_pem_};
}

}  // namespace weft::agent
