// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_directory.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "agent/identity/ca_files.h"
#include "agent/identity/x509_builder.h"
#include "tunnel/base/rfc3339.h"

namespace weft::agent {
namespace {

using hbone::to_wall_time;

constexpr std::chrono::hours kRootBackdate{1};

Failure not_found(const std::string& dir, const std::string& what) {
  return fail(ErrorCode::kNotFound, "load the CA from " + dir + ": " + what +
                                        " (make the mesh's root once with `weftctl ca init " + dir +
                                        "` and give the directory to every node)");
}

/// A part of the CA that was not found, told for somebody who may not have made one yet.
template <class T>
Result<T> explained(Result<T> part, const std::string& dir, const std::string& path) {
  if (part || part.error().code != ErrorCode::kNotFound) return part;
  if (!exists(dir)) return not_found(dir, "there is no such directory");
  if (!exists(root_path(dir)) && !exists(key_path(dir))) return not_found(dir, "there is no CA in it");
  return not_found(dir, path + " is missing");
}

Result<void> check_roots(const std::string& path, const Roots& roots) {
  if (roots.empty()) return fail(ErrorCode::kInvalid, "read " + path + ": no certificate in it, expected the root");
  for (std::size_t i = 0; i < roots.size(); ++i) {
    const std::string which = path + ": certificate " + std::to_string(i + 1);
    if (X509_check_ca(roots[i].get()) != 1) return fail(ErrorCode::kInvalid, which + " is not a CA's");
    if (X509_self_signed(roots[i].get(), 1) != 1) {
      ERR_clear_error();
      return fail(ErrorCode::kInvalid, which + " is not signed by itself, so it is not a root");
    }
    for (std::size_t other = 0; other < i; ++other) {
      if (X509_cmp(roots[i].get(), roots[other].get()) == 0) {
        return fail(ErrorCode::kInvalid, which + " is in it twice");
      }
    }
  }
  return {};
}

}  // namespace

std::string root_path(const std::string& dir) { return dir + "/root.pem"; }
std::string key_path(const std::string& dir) { return dir + "/root-key.pem"; }
std::string next_key_path(const std::string& dir) { return dir + "/next-key.pem"; }
std::string previous_key_path(const std::string& dir) { return dir + "/previous-key.pem"; }
std::string crl_path(const std::string& dir) { return dir + "/crl.pem"; }

bool exists(const std::string& path) { return ::faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0; }

Result<CaContent> read_ca(const std::string& dir) {
  const auto pem = explained(read_pem_file(root_path(dir)), dir, root_path(dir));
  if (!pem) return Failure(pem.error());
  auto key = explained(read_key_file(key_path(dir)), dir, key_path(dir));
  if (!key) return Failure(key.error());
  CaContent content;
  content.key = std::move(*key);
  auto roots = hbone::read_certificates(*pem, root_path(dir));
  if (!roots) return Failure(roots.error());
  content.roots = std::move(*roots);
  if (auto checked = check_roots(root_path(dir), content.roots); !checked) return Failure(checked.error());
  const auto signing = root_of_key(content.roots, content.key.get());
  if (!signing) {
    return fail(ErrorCode::kInvalid, "load the CA from " + dir +
                                         ": root-key.pem is not the key of a root in root.pem (are they of two "
                                         "meshes, or was only one of them copied?)");
  }
  content.signing = *signing;
  return content;
}

std::optional<std::size_t> root_of_key(const Roots& roots, EVP_PKEY* key) {
  for (std::size_t i = 0; i < roots.size(); ++i) {
    if (X509_check_private_key(roots[i].get(), key) == 1) return i;
    ERR_clear_error();
  }
  return std::nullopt;
}

Result<void> check_dates(const std::string& path, const X509* root, WallTime now) {
  const auto from = to_wall_time(X509_get0_notBefore(root)), until = to_wall_time(X509_get0_notAfter(root));
  if (now >= until) {
    return fail(ErrorCode::kInvalid, path + ": the root expired at " + rfc3339(until) +
                                         " (replace it with `weftctl ca rotate`, or is this node's clock wrong?)");
  }
  if (now < from) {
    return fail(ErrorCode::kInvalid,
                path + ": the root is not valid before " + rfc3339(from) + " (is this node's clock behind?)");
  }
  return {};
}

Result<NewRoot> make_root(WallTime now) {
  const auto key = x509::generate_key();
  if (!key) return Failure(key.error());
  auto root = x509::Builder(key->get(), now - kRootBackdate, now + kRootLifetime)
                  .common_name("Weft mesh root " + rfc3339(now))
                  .issuer(nullptr)
                  .extension(NID_basic_constraints, "critical,CA:TRUE,pathlen:0")
                  .extension(NID_key_usage, "critical,keyCertSign,cRLSign")
                  .extension(NID_subject_key_identifier, "hash")
                  .sign(key->get());
  if (!root) return Failure(root.error());
  auto key_pem = x509::to_pem(key->get());
  if (!key_pem) return Failure(key_pem.error());
  auto certificate_pem = x509::to_pem(root->get());
  if (!certificate_pem) return Failure(certificate_pem.error());
  return NewRoot{std::move(*root), std::move(*certificate_pem), std::move(*key_pem)};
}

Result<std::string> roots_pem(const Roots& roots) {
  std::string out;
  for (const auto& root : roots) {
    const auto pem = x509::to_pem(root.get());
    if (!pem) return Failure(pem.error());
    out += *pem;
  }
  return out;
}

std::string describe_root(const X509* root) {
  constexpr std::size_t kShown = 16;
  return "'" + hbone::name_text(X509_get_subject_name(root)) + "' (SHA-256 " +
         hbone::certificate_digest(root).substr(0, kShown) + ")";
}

Result<Fd> lock_directory(const std::string& dir) {
  Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open directory " + dir);
  if (::flock(fd.get(), LOCK_EX) < 0) return fail_errno(errno, "lock directory " + dir);
  return fd;
}

}  // namespace weft::agent
