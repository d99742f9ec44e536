// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::cni::install {

/// Waits for changes in folders (inotify) and for the end (SIGTERM, SIGINT, which it blocks). Folders may be away, or
/// be replaced by others of the same name: follow() finds that out. For one thread.
class Events {
 public:
  enum class Woken : std::uint8_t { kChange, kTime, kStop };

  static Result<Events> make();

  /// Looks whether the folders are still those that are watched. False when one of them is not there: nothing tells
  /// when it comes, so ask again soon.
  bool follow(const std::vector<std::string>& folders);
  /// Waits at most `timeout_ms` (0: only looks). A change is told once the folders have been quiet for a moment, so
  /// that files which are written in several steps are whole as a rule.
  Woken wait(std::int64_t timeout_ms);

 private:
  struct Watch {
    std::string folder;
    int descriptor = -1;
    dev_t device = 0;
    ino_t inode = 0;
  };

  Events(Fd inotify, Fd signals) : inotify_(std::move(inotify)), signals_(std::move(signals)) {}
  bool follow(Watch& watch);
  bool drain();
  Woken wait_until_quiet();

  Fd inotify_, signals_;
  std::vector<Watch> watches_;
};

/// Whether a change of a file of this name can matter; our own unfinished files must not wake us.
[[nodiscard]] bool matters(std::string_view name);

/// Milliseconds of a clock that never goes back.
[[nodiscard]] std::int64_t now_ms();

}  // namespace weft::cni::install
