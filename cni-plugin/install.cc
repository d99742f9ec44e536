// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install.h"

#include <unistd.h>

#include <algorithm>
#include <optional>

#include "cni-plugin/install_backoff.h"
#include "cni-plugin/install_events.h"
#include "cni-plugin/install_files.h"
#include "cni-plugin/install_list.h"
#include "cni-plugin/install_lock.h"
#include "cni-plugin/install_survey.h"
#include "tunnel/base/log.h"

namespace weft::cni::install {
namespace {

/// Events can be lost (an overrun queue, a mount over the folder): look at least as often.
constexpr std::int64_t kRecheckMs = 5000;
/// After an error, and while a folder is away.
constexpr std::int64_t kRetryMs = 500;
/// After the owner wrote at the same moment.
constexpr std::int64_t kCollisionMs = 20;
/// Without --watch: how long a file that somebody may be writing right now is waited for.
constexpr std::int64_t kWrittenMs = 1000;
/// An exclusive Cilium answers each event in the folder within a second.
constexpr std::int64_t kCiliumStayMs = 5000;

constexpr const char* kCiliumAdvice =
    "Cilium claims the folder for itself and takes out what others put there: set cni.exclusive=false in its values";

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

class Installer {
 public:
  explicit Installer(const Options& options) : options_(options) {}

  int run();

 private:
  /// Everything that there is to do now. Gives the time of the next look, events aside.
  std::int64_t pass();
  bool place_program();
  bool takes_part();
  std::int64_t change(const Survey& seen);
  void announce(const Survey& seen) const;
  void report(const Survey& seen);
  std::int64_t judge(const Survey& seen);
  std::int64_t failed(const Error& error);
  void set_ready(bool ready, const std::string& why);
  [[nodiscard]] std::string path(const std::string& file) const { return options_.conf_dir + "/" + file; }

  const Options& options_;
  std::optional<WatchLock> lock_;
  Backoff backoff_;
  bool program_placed_ = false;
  std::string placed_in_;                       ///< the target that had the entry last
  std::optional<std::int64_t> in_place_since_;  ///< as long as nobody took it out
  std::optional<std::int64_t> settles_;         ///< when an entry that is in place may be counted on
  bool ready_ = false;
  bool failed_ = false;
  bool unsteady_ = false;  ///< a list may be in the middle of being written
  std::string told_state_, told_skipped_, told_cilium_;
};

int Installer::run() {
  auto events = Events::make();
  if (!events) {
    log::error("cannot start reason={}", log::quote(events.error().message()));
    return kFailed;
  }
  remove_leftovers(options_.bin_dir);
  remove_leftovers(options_.conf_dir);
  if (!options_.ready_file.empty()) (void)remove_file(options_.ready_file);
  const auto start = now_ms();
  const auto deadline = start + std::int64_t{1000} * options_.wait_seconds;
  for (;;) {
    const bool complete = events->follow({options_.conf_dir, options_.bin_dir});
    auto next = std::min(pass(), now_ms() + (complete ? kRecheckMs : kRetryMs));
    if (!options_.watch) {
      if (ready_) return kOk;
      // An entry that is in place and only has to prove that it stays is worth the seconds.
      const auto end = std::max({deadline, settles_.value_or(0), unsteady_ ? start + kWrittenMs : 0});
      if (now_ms() >= end) return failed_ ? kFailed : kNotInPlace;
      next = std::min(next, end);
    }
    if (events->wait(std::max<std::int64_t>(next - now_ms(), 0)) == Events::Woken::kStop) break;
  }
  if (!options_.ready_file.empty()) (void)remove_file(options_.ready_file);
  log::info("weft-cni install ends, the entry stays (uninstall takes it out) list={}", placed_in_);
  return options_.watch ? kOk : kNotInPlace;
}

std::int64_t Installer::pass() {
  constexpr int kMaxChanges = 4;
  failed_ = false;
  unsteady_ = false;
  settles_.reset();
  if (!place_program()) return now_ms() + kRetryMs;
  const bool active = takes_part();
  for (int changes = 0;; ++changes) {
    auto seen = survey(options_.conf_dir, options_.entry);
    if (!seen && seen.error().code == ErrorCode::kNotFound) {
      set_ready(false, options_.conf_dir + " is not there yet: waiting for the primary CNI plugin");
      return now_ms() + kRetryMs;
    }
    if (!seen) return failed(seen.error());
    report(*seen);
    if (!seen->in_place) in_place_since_.reset();
    const bool idle = !seen->wanted && seen->stale.empty();
    if (idle || !active) return judge(*seen);
    const auto due = changes < kMaxChanges ? backoff_.due_ms(now_ms()) : now_ms() + kCollisionMs;
    if (due > now_ms()) {
      judge(*seen);
      return due;
    }
    if (const auto retry = change(*seen); retry != 0) return retry;
  }
}

bool Installer::place_program() {
  const std::string to = options_.bin_dir + "/" + kPluginType;
  // Later on only one that is gone is put back: another one is that of a newer release.
  if (program_placed_ && ::access(to.c_str(), X_OK) == 0) return true;
  auto written = copy_program("/proc/self/exe", to);
  if (!written) {
    failed(written.error());
    return false;
  }
  if (program_placed_) log::warn("the program was gone and is back file={}", to);
  if (!program_placed_) log::info("the program {} file={}", *written ? "is installed" : "is there, unchanged", to);
  program_placed_ = true;
  return true;
}

/// False while a watcher that started later takes care of the folder.
bool Installer::takes_part() {
  if (!options_.watch) {
    if (const auto free = WatchLock::take_free(options_.conf_dir); !free && free.error().code == ErrorCode::kDenied) {
      log::warn("a weft-cni install --watch runs on {} and puts its own settings back", options_.conf_dir);
    }
    return true;
  }
  if (lock_) return lock_->held();
  auto lock = WatchLock::take(options_.conf_dir);
  if (lock) lock_ = std::move(*lock);
  // A folder that is away or read-only: what is to be done there will say so.
  return true;
}

/// 0 when the folder is to be looked at again at once.
std::int64_t Installer::change(const Survey& seen) {
  announce(seen);
  if (!placed_in_.empty()) backoff_.repaired(now_ms());
  std::vector<Edit> edits = seen.stale;
  if (seen.wanted) edits.insert(edits.begin(), *seen.wanted);
  for (const auto& edit : edits) {
    auto done = apply(options_.conf_dir, edit);
    if (!done && done.error().code == ErrorCode::kUnavailable) {
      unsteady_ = true;
      return now_ms() + kCollisionMs;
    }
    if (!done) return failed(done.error());
    if (!seen.wanted || edit.file != seen.wanted->file) {
      log::info("{} file={}", edit.text ? "took the entry out" : "removed the list of ours", path(edit.file));
    }
  }
  return 0;
}

void Installer::announce(const Survey& seen) const {
  if (!seen.wanted) return;
  const std::string file = path(seen.target);
  if (seen.target != placed_in_) {
    log::info("{} list={} first={}",
              placed_in_.empty() ? "adding weft-cni" : "another configuration is first now, adding weft-cni", file,
              seen.primary);
    return;
  }
  const int before = backoff_.in_a_row(now_ms());
  log::warn("the owner of the list {}, putting it back list={} in_a_row={}{}",
            seen.had_entry ? "changed the entry of weft-cni" : "rewrote it without weft-cni", file, before + 1,
            before + 1 < Backoff::kQuarrel ? "" : " quarrel=true");
  if (seen.cilium_primary) log::warn("{} list={}", kCiliumAdvice, file);
}

/// What stays the same is said once.
void Installer::report(const Survey& seen) {
  const std::string skipped = joined(seen.skipped);
  if (skipped != told_skipped_ && !skipped.empty()) log::warn("skipped invalid files files={}", log::quote(skipped));
  told_skipped_ = skipped;
  const std::string cilium = joined(seen.cilium_backups);
  if (cilium != told_cilium_ && !cilium.empty()) {
    log::warn("Cilium renamed network configurations (cni.exclusive). {} renamed={}", kCiliumAdvice,
              log::quote(cilium));
  }
  told_cilium_ = cilium;
}

std::int64_t Installer::judge(const Survey& seen) {
  const bool superseded = options_.watch && lock_ && !lock_->held();
  const bool in_place = seen.in_place || (superseded && seen.had_entry);
  if (!in_place) {
    unsteady_ = !seen.skipped.empty();
    std::string why = seen.obstacle.empty() ? "the list " + path(seen.target) + " is without weft-cni" : seen.obstacle;
    if (!seen.cilium_backups.empty()) why += std::string(" (") + kCiliumAdvice + ")";
    set_ready(false, why);
    return now_ms() + kRecheckMs;
  }
  placed_in_ = seen.target;
  if (!in_place_since_) in_place_since_ = now_ms();
  auto settled = backoff_.settled_ms(now_ms());
  const bool cilium = seen.cilium_primary && !seen.cilium_backups.empty();
  if (cilium) settled = std::max(settled, *in_place_since_ + kCiliumStayMs);
  if (settled > now_ms()) {
    settles_ = settled;
    set_ready(false, "the entry is in " + path(seen.target) + " but has yet to stay there" +
                         (cilium ? std::string(" (") + kCiliumAdvice + ")" : " (its owner keeps rewriting it)"));
    return settled;
  }
  set_ready(true, path(seen.target));
  return now_ms() + kRecheckMs;
}

std::int64_t Installer::failed(const Error& error) {
  failed_ = true;
  in_place_since_.reset();
  set_ready(false, error.message());
  return now_ms() + kRetryMs;
}

/// `why`: the list when ready.
void Installer::set_ready(bool ready, const std::string& why) {
  ready_ = ready;
  std::string state = (ready ? "+" : "-") + why;
  if (state == told_state_) return;
  told_state_ = std::move(state);
  if (ready) {
    log::info("ready: weft-cni is in place list={}", why);
  } else if (failed_) {
    log::error("not ready reason={}", log::quote(why));
  } else {
    log::warn("not ready reason={}", log::quote(why));
  }
  if (options_.ready_file.empty()) return;
  struct stat like = {};
  like.st_uid = ::geteuid();
  like.st_gid = ::getegid();
  like.st_mode = 0644;
  auto told = ready ? write_text(options_.ready_file, why + "\n", like) : remove_file(options_.ready_file);
  if (!told) log::error("cannot tell readiness reason={}", log::quote(told.error().message()));
}

}  // namespace

int install(const Options& options) { return Installer(options).run(); }

}  // namespace weft::cni::install
