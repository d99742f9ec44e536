// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_rotation.h"

#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/identity/ca_directory.h"
#include "agent/identity/ca_files.h"
#include "agent/identity/ca_revocation.h"

namespace weft::agent {
namespace {

using Step = Rotation::Step;

/// A directory, and how far its rotation is.
struct Opened {
  Fd lock;
  CaContent content;
  Step step = Step::kNone;
  std::size_t other = 0;  ///< the root that comes or goes
  std::string changed;    ///< the file that the last step replaced
};

/// The trusted root that does not sign and whose key this is.
Result<std::optional<std::size_t>> root_of_file(const CaContent& content, const std::string& path) {
  if (!exists(path)) return std::optional<std::size_t>();
  const auto key = read_key_file(path);
  if (!key) return Failure(key.error());
  const auto index = root_of_key(content.roots, key->get());
  return index == content.signing ? std::optional<std::size_t>() : index;
}

Result<Opened> open_directory(const std::string& dir) {
  Opened opened;
  auto lock = lock_directory(dir);
  if (!lock) return Failure(lock.error());
  opened.lock = std::move(*lock);
  auto content = read_ca(dir);
  if (!content) return Failure(content.error());
  opened.content = std::move(*content);
  // In this order: an activation that was cut off has left the signing root's own key under both names.
  for (const auto& [path, step, changed] : {std::tuple{next_key_path(dir), Step::kPrepared, root_path(dir)},
                                            std::tuple{previous_key_path(dir), Step::kActivated, key_path(dir)}}) {
    const auto found = root_of_file(opened.content, path);
    if (!found) return Failure(found.error());
    if (!found->has_value()) continue;
    opened.step = step;
    opened.other = **found;
    opened.changed = changed;
    break;
  }
  return opened;
}

/// When the file appeared under its name: a rename changes the time of the inode, not that of the content.
std::optional<WallTime> since(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) < 0) return std::nullopt;
  return std::chrono::system_clock::from_time_t(status.st_ctim.tv_sec);
}

Failure wrong_step(const std::string& dir, const Opened& opened, const char* wanted) {
  const std::string what = "rotate the root in " + dir + ": cannot " + wanted + ": ";
  switch (opened.step) {
    case Step::kNone:
      return fail(ErrorCode::kInvalid, what + "no rotation is under way (begin with `weftctl ca rotate prepare`)");
    case Step::kPrepared:
      return fail(ErrorCode::kInvalid, what +
                                           "a new root is prepared and does not sign yet (go on with `weftctl ca "
                                           "rotate activate`, or back with `weftctl ca rotate back`)");
    case Step::kActivated:
      return fail(ErrorCode::kInvalid, what +
                                           "the new root signs and the old one is still trusted (go on with `weftctl "
                                           "ca rotate finish`, or back with `weftctl ca rotate back`)");
  }
  return fail(ErrorCode::kInternal, what + "unknown step");
}

Result<void> check_settled(const std::string& dir, const Opened& opened, bool now, const Clock& clock) {
  const auto made = since(opened.changed);
  if (now || !made || clock.wall_now() - *made >= kStepSettles) return {};
  const auto age = std::chrono::duration_cast<std::chrono::seconds>(clock.wall_now() - *made);
  return fail(ErrorCode::kInvalid,
              "rotate the root in " + dir + ": the last step was made " +
                  std::to_string(std::max<std::int64_t>(age.count(), 0)) + " s ago, and agents may take " +
                  std::to_string(kStepSettles.count()) +
                  " s to see it (wait until `weftctl certificates` shows it on every node; --now if it does)");
}

Result<Opened> at_step(const std::string& dir, Step step, const char* wanted, bool now, const Clock& clock) {
  auto opened = open_directory(dir);
  if (!opened) return opened;
  if (opened->step != step) return wrong_step(dir, *opened, wanted);
  if (auto settled = check_settled(dir, *opened, now, clock); !settled) return Failure(settled.error());
  return opened;
}

/// root.pem without one of its roots.
Result<void> drop_root(const std::string& dir, const CaContent& content, std::size_t dropped) {
  Roots kept;
  for (std::size_t i = 0; i < content.roots.size(); ++i) {
    if (i == dropped) continue;
    X509_up_ref(content.roots[i].get());
    kept.emplace_back(content.roots[i].get());
  }
  const auto pem = roots_pem(kept);
  if (!pem) return Failure(pem.error());
  return write_file_atomically(root_path(dir), *pem, 0644);
}

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
  return fail_errno(errno, "remove " + path);
}

/// Puts the key of `from` into the place of the one that signs, which is kept as `kept`.
Result<void> exchange_keys(const std::string& dir, const std::string& from, const std::string& kept) {
  auto pem = read_pem_file(key_path(dir));
  if (!pem) return Failure(pem.error());
  auto written = write_file_atomically(kept, *pem, 0600);
  OPENSSL_cleanse(pem->data(), pem->size());
  if (!written) return written;
  if (::rename(from.c_str(), key_path(dir).c_str()) < 0)
    return fail_errno(errno, "rename " + from + " to " + key_path(dir));
  return sync_directory(dir);
}

std::string both(const CaContent& content, std::size_t first, std::size_t second) {
  return describe_root(content.roots[first].get()) + " and " + describe_root(content.roots[second].get());
}

}  // namespace

Result<Rotation> rotation_state(const std::string& dir) {
  const auto opened = open_directory(dir);
  if (!opened) return Failure(opened.error());
  Rotation state;
  state.step = opened->step;
  state.signing = describe_root(opened->content.signing_root());
  state.trusted = opened->content.roots.size();
  if (opened->step == Step::kNone) return state;
  state.other = describe_root(opened->content.roots[opened->other].get());
  state.since = since(opened->changed);
  return state;
}

Result<std::string> rotate_prepare(const std::string& dir, const Clock& clock) {
  auto opened = at_step(dir, Step::kNone, "prepare a new root", true, clock);
  if (!opened) return Failure(opened.error());
  const auto root = make_root(clock.wall_now());
  if (!root) return Failure(root.error());
  auto trusted = roots_pem(opened->content.roots);
  if (!trusted) return Failure(trusted.error());
  // What an earlier rotation that was cut off may have left.
  if (auto removed = remove_file(previous_key_path(dir)); !removed) return Failure(removed.error());
  if (auto written = write_file_atomically(next_key_path(dir), root->key_pem, 0600); !written) {
    return Failure(written.error());
  }
  if (auto written = write_file_atomically(root_path(dir), *trusted + root->certificate_pem, 0644); !written) {
    return Failure(written.error());
  }
  return "prepared " + describe_root(root->certificate.get()) + ": trusted from now on beside " +
         describe_root(opened->content.signing_root()) +
         ", which still signs\ncopy root.pem to every node, see that `weftctl certificates` shows both roots on each, "
         "then `weftctl ca rotate activate " +
         dir + "`\n";
}

Result<std::string> rotate_activate(const std::string& dir, bool now, const Clock& clock) {
  const auto opened = at_step(dir, Step::kPrepared, "activate a new root", now, clock);
  if (!opened) return Failure(opened.error());
  const X509* next = opened->content.roots[opened->other].get();
  if (auto valid = check_dates(root_path(dir), next, clock.wall_now()); !valid) return Failure(valid.error());
  if (auto done = exchange_keys(dir, next_key_path(dir), previous_key_path(dir)); !done) return Failure(done.error());
  return "activated " + describe_root(next) + ": it signs from now on; " +
         describe_root(opened->content.signing_root()) +
         " is still trusted\ncopy root-key.pem to every node, see that `weftctl certificates` shows the new issuer "
         "everywhere (agents renew at once; certificates of `weftctl ca issue` are yours to renew), then `weftctl ca "
         "rotate finish " +
         dir + "`\n";
}

Result<std::string> rotate_finish(const std::string& dir, bool now, const Clock& clock) {
  const auto opened = at_step(dir, Step::kActivated, "take the old root out", now, clock);
  if (!opened) return Failure(opened.error());
  X509* old = opened->content.roots[opened->other].get();
  const std::string text = describe_root(old);
  // Its list first: agents keep one that is missing for as long as they trust its issuer.
  if (auto dropped = drop_crl(dir, old); !dropped) return Failure(dropped.error());
  if (auto dropped = drop_root(dir, opened->content, opened->other); !dropped) return Failure(dropped.error());
  if (auto removed = remove_file(previous_key_path(dir)); !removed) return Failure(removed.error());
  return "finished: " + text + " is not trusted any more, " + describe_root(opened->content.signing_root()) +
         " signs\ncopy root.pem" + (exists(crl_path(dir)) ? " and crl.pem" : "") + " to every node\n";
}

Result<std::string> rotate_back(const std::string& dir, bool now, const Clock& clock) {
  auto opened = open_directory(dir);
  if (!opened) return Failure(opened.error());
  if (opened->step == Step::kNone) return wrong_step(dir, *opened, "go back");
  if (auto settled = check_settled(dir, *opened, now, clock); !settled) return Failure(settled.error());
  X509* other = opened->content.roots[opened->other].get();
  const std::string pair = both(opened->content, opened->content.signing, opened->other);
  if (opened->step == Step::kActivated) {
    if (auto done = exchange_keys(dir, previous_key_path(dir), next_key_path(dir)); !done) return Failure(done.error());
    return "back to prepared: " + describe_root(other) + " signs again, trusted are " + pair +
           "\ncopy root-key.pem to every node\n";
  }
  const std::string text = describe_root(other);
  if (auto dropped = drop_crl(dir, other); !dropped) return Failure(dropped.error());
  if (auto dropped = drop_root(dir, opened->content, opened->other); !dropped) return Failure(dropped.error());
  if (auto removed = remove_file(next_key_path(dir)); !removed) return Failure(removed.error());
  return "back to the beginning: " + text + " is not trusted any more\ncopy root.pem to every node\n";
}

}  // namespace weft::agent
