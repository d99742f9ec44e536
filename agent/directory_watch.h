// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::agent {

/// Waits for changes in directories: writes, renames, and the symlink swap of a mounted ConfigMap. Where inotify tells
/// nothing (another file system, a directory that is away) the wait ends now and then all the same, so the owner looks
/// at the content itself each time. One thread waits; stop() comes from any.
class DirectoryWatch {
 public:
  DirectoryWatch(std::vector<std::string> directories, milliseconds poll_interval);
  DirectoryWatch(const DirectoryWatch&) = delete;
  DirectoryWatch& operator=(const DirectoryWatch&) = delete;

  /// Watches from now on; call it before the content is read first, so that no change falls between the two. Errors:
  /// errno of eventfd. Without inotify it polls.
  Result<void> open();
  /// Until something changed, the interval has passed, or stop() was called: false then.
  bool wait();
  /// Waits at most that long; true where stop() was called.
  bool stopped_within(milliseconds wait);
  void stop();

  /// What `look` gives once two looks in a row agree, so that a write under way is not taken for a version; at once
  /// where it is what is `known`. Nothing where it does not settle, or stop() was called.
  template <class Content, class Look>
  std::optional<Content> settled(const Content& known, Look look) {
    std::optional<Content> last;
    for (int round = 0; round < kSettleRounds; ++round) {
      Content now = look();
      if (now == known || (last && now == *last)) return now;
      last = std::move(now);
      if (stopped_within(kSettle)) return std::nullopt;
    }
    return std::nullopt;
  }

 private:
  static constexpr milliseconds kSettle{50};
  static constexpr int kSettleRounds = 40;

  struct Watched {
    std::string directory;
    int watch = -1;  ///< -1 where it is not watched now
  };
  /// Watches the directories that it does not yet; false where one cannot be.
  bool watch();
  void drain_events();

  std::vector<Watched> directories_;
  const milliseconds poll_interval_;
  Fd inotify_;
  Fd wake_;  ///< readable once stop() was called
};

/// The directory that a path is in.
[[nodiscard]] std::string directory_of(const std::string& path);

}  // namespace weft::agent
