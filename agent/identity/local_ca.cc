// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/local_ca.h"

#include <openssl/evp.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "agent/identity/ca_directory.h"
#include "agent/identity/ca_files.h"
#include "tunnel/base/log.h"
#include "tunnel/base/rfc3339.h"

namespace weft::agent {
namespace {

LocalCa::Options with_crl_file(LocalCa::Options options) {
  if (options.crl_file.empty()) options.crl_file = crl_path(options.directory);
  return options;
}

/// Of a file's content, or of why it cannot be read.
std::string digest_of(const std::string& path, std::size_t at_most) {
  auto text = read_pem_file(path, at_most);
  const std::string content = text ? std::move(*text) : "error " + text.error().message();
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  EVP_Digest(content.data(), content.size(), digest.data(), &size, EVP_sha256(), nullptr);
  return {reinterpret_cast<const char*>(digest.data()), size};
}

/// A key is not read to see whether it changed: that would leave it in ordinary memory. Nor would its content tell that
/// it was closed to others.
std::string version_of_key(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) < 0) return "errno " + std::to_string(errno);
  std::string text;
  for (const auto number :
       {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino),
        static_cast<std::uint64_t>(status.st_size), static_cast<std::uint64_t>(status.st_ctim.tv_sec),
        static_cast<std::uint64_t>(status.st_ctim.tv_nsec)}) {
    text += std::to_string(number) + " ";
  }
  return text;
}

}  // namespace

LocalCa::LocalCa(Options options, const Clock& clock)
    : options_(with_crl_file(std::move(options))),
      clock_(clock),
      watch_({options_.directory, directory_of(options_.crl_file)}, options_.poll_interval) {}

LocalCa::~LocalCa() { stop(); }

Result<std::unique_ptr<LocalCa>> LocalCa::open(Options options, const Clock& clock) {
  std::unique_ptr<LocalCa> made(new LocalCa(std::move(options), clock));
  if (auto opened = made->watch_.open(); !opened) return Failure(opened.error());
  made->known_ = made->fingerprint();
  auto loaded = SelfSignedCa::load(made->options_.directory, clock);
  if (!loaded) return Failure(loaded.error());
  made->ca_ = std::move(*loaded);
  if (auto read = made->load_crl(); !read) return Failure(read.error());
  return made;
}

Result<void> LocalCa::start(Events events) {
  events_ = std::move(events);
  try {
    thread_ = std::thread([this] {
      while (watch_.wait()) look();
    });
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start the thread that watches " + options_.directory);
  }
  return {};
}

void LocalCa::stop() {
  if (!thread_.joinable()) return;
  watch_.stop();
  thread_.join();
}

Result<hbone::CertificateBundle> LocalCa::issue(const state::Identity& identity) {
  std::shared_ptr<SelfSignedCa> ca;
  {
    const std::lock_guard lock(mutex_);
    if (!problem_.empty()) return fail(ErrorCode::kUnavailable, problem_);
    ca = ca_;
  }
  return ca->issue(identity, options_.lifetime);
}

hbone::RevocationsPtr LocalCa::revocations() const {
  const std::lock_guard lock(mutex_);
  return revocations_;
}

std::string LocalCa::fingerprint() const {
  return digest_of(root_path(options_.directory), kMaxPemBytes) + version_of_key(key_path(options_.directory)) +
         digest_of(options_.crl_file, kMaxCrlBytes);
}

void LocalCa::look() {
  auto settled = watch_.settled(known_, [this] { return fingerprint(); });
  if (!settled) return;
  if (*settled != known_) {
    known_ = std::move(*settled);
    load_ca();
    if (auto read = load_crl(); !read) {
      log::error("CRL refused, the last version stays in force file={} error={}", options_.crl_file,
                 log::quote(read.error().message()));
    }
  }
  tell_notes();
}

void LocalCa::load_ca() {
  auto loaded = SelfSignedCa::load(options_.directory, clock_);
  if (!loaded) {
    log::error("CA cannot be used, no certificate is issued until it can directory={} error={}", options_.directory,
               log::quote(loaded.error().message()));
    const std::lock_guard lock(mutex_);
    problem_ = loaded.error().message();
    return;
  }
  const std::shared_ptr<SelfSignedCa> now = std::move(*loaded);
  bool replaced = false, back = false;
  {
    const std::lock_guard lock(mutex_);
    back = !std::exchange(problem_, {}).empty();
    replaced = now->roots_pem() != ca_->roots_pem() || X509_cmp(now->signing_root(), ca_->signing_root()) != 0;
    ca_ = now;
  }
  if (!replaced && !back) return;
  log::info("CA in force directory={} signing={} roots={}", options_.directory,
            log::quote(describe_root(now->signing_root())), now->roots().size());
  if (replaced && events_.replaced) events_.replaced();
  if (!replaced && events_.back) events_.back();
}

/// The file's lists; empty where there is no file, or nothing in it.
Result<hbone::RevocationsPtr> LocalCa::read_crl() const {
  const auto text = read_pem_file(options_.crl_file, kMaxCrlBytes);
  if (!text && text.error().code != ErrorCode::kNotFound) return Failure(text.error());
  const bool nothing = !text || text->find_first_not_of(" \t\r\n") == std::string::npos;
  if (nothing) return hbone::RevocationLists::none(ca_->roots_pem());
  return hbone::RevocationLists::parse(*text, options_.crl_file, ca_->roots_pem());
}

Result<void> LocalCa::load_crl() {
  const auto file = read_crl();
  if (!file) {
    const std::lock_guard lock(mutex_);
    crl_problem_ = file.error().message();
    ++crl_refused_;
    return Failure(file.error());
  }
  auto merged = hbone::RevocationLists::merge(revocations_, *file);
  {
    const std::lock_guard lock(mutex_);
    crl_problem_.clear();
    crl_notes_ = std::move(merged.notes);
    if (merged.lists->empty() && revocations_ == nullptr) return {};
    revocations_ = merged.lists;
  }
  std::size_t revoked = 0;
  for (const auto& list : merged.lists->lists()) revoked += list.revoked;
  log::info("CRL in force file={} lists={} revoked={}", options_.crl_file, merged.lists->lists().size(), revoked);
  if (events_.revoked) events_.revoked(merged.lists);
  return {};
}

std::vector<std::string> LocalCa::notes() const {
  std::vector<std::string> out = crl_notes_;
  if (revocations_ == nullptr) return out;
  for (const auto& list : revocations_->lists()) {
    if (!list.next_update || clock_.wall_now() < *list.next_update) continue;
    out.push_back("the CRL of '" + list.issuer + "' expired at " + rfc3339(*list.next_update) +
                  ": what it lists stays revoked, what was revoked since is not known here");
  }
  return out;
}

/// Each note once, when it begins to be true.
void LocalCa::tell_notes() {
  std::vector<std::string> now;
  {
    const std::lock_guard lock(mutex_);
    now = notes();
  }
  for (const auto& note : now) {
    if (std::ranges::find(told_, note) == told_.end()) {
      log::warn("CRL is not as it should be file={} note={}", options_.crl_file, log::quote(note));
    }
  }
  told_ = std::move(now);
}

CaStatus LocalCa::status() const {
  const std::lock_guard lock(mutex_);
  CaStatus out;
  out.directory = options_.directory;
  out.problem = problem_;
  for (const auto& root : ca_->roots()) {
    out.roots.push_back({.subject = hbone::name_text(X509_get_subject_name(root.get())),
                         .sha256 = hbone::certificate_digest(root.get()),
                         .not_after = hbone::to_wall_time(X509_get0_notAfter(root.get())),
                         .signs = root.get() == ca_->signing_root()});
  }
  out.crl.file = options_.crl_file;
  out.crl.problem = crl_problem_;
  out.crl.notes = notes();
  if (revocations_) out.crl.lists = revocations_->lists();
  out.crl.refused = crl_refused_;
  return out;
}

}  // namespace weft::agent
