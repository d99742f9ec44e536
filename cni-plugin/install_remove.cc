// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install.h"
#include "cni-plugin/install_files.h"
#include "cni-plugin/install_list.h"
#include "cni-plugin/install_lock.h"
#include "cni-plugin/install_survey.h"
#include "tunnel/base/log.h"

namespace weft::cni::install {
namespace {

/// An owner who writes at the same moment costs another look each time.
constexpr int kMaxLooks = 20;

Result<void> remove_entries(const std::string& conf_dir) {
  for (int look = 0; look < kMaxLooks; ++look) {
    auto removal = survey_removal(conf_dir);
    if (!removal) return Failure(removal.error());
    if (removal->edits.empty()) {
      for (const auto& line : removal->unreadable) {
        log::warn("a file that no runtime can read mentions weft-cni and is left as it is file={}", log::quote(line));
      }
      return {};
    }
    for (const auto& edit : removal->edits) {
      auto done = apply(conf_dir, edit);
      if (!done && done.error().code != ErrorCode::kUnavailable) return done;
      if (done) log::info("{} file={}/{}", edit.text ? "took the entry out" : "removed the list", conf_dir, edit.file);
    }
  }
  return fail(ErrorCode::kUnavailable,
              "take the entry out of the lists in " + conf_dir + ": somebody keeps putting it back or rewriting them");
}

Result<void> remove_all(const Options& options) {
  auto lock = WatchLock::take_free(options.conf_dir);
  if (!lock) return Failure(lock.error());
  if (auto removed = remove_entries(options.conf_dir); !removed) return removed;
  remove_leftovers(options.conf_dir);
  lock->remove();
  if (options.keep_binary) return {};
  remove_leftovers(options.bin_dir);
  return remove_file(options.bin_dir + "/" + kPluginType);
}

}  // namespace

int uninstall(const Options& options) {
  auto removed = remove_all(options);
  if (!removed) {
    log::error("uninstall failed, the program stays as long as a list may name it reason={}",
               log::quote(removed.error().message()));
    return kFailed;
  }
  log::info("weft-cni is uninstalled bin_dir={} conf_dir={}", options.bin_dir, options.conf_dir);
  return kOk;
}

}  // namespace weft::cni::install
