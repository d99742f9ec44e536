// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::cni::install {

/// Says who watches a folder of network configurations: `.weft-cni.lock` in it, which no runtime reads. The newest
/// watcher has it, so that two versions do not write against each other while one takes over from the other; the lock
/// goes with the process, however it ends. For one thread.
class WatchLock {
 public:
  /// Takes it over from whoever has it. Errors: of the system calls (a folder that is not there, or not writable).
  static Result<WatchLock> take(const std::string& conf_dir);
  /// Waits for nobody: for `uninstall`. Errors: kDenied while a watcher runs.
  static Result<WatchLock> take_free(const std::string& conf_dir);

  /// Whether this process is still the one that watches; picks up the lock of a later one that is gone.
  [[nodiscard]] bool held();
  /// Removes the file.
  void remove();

 private:
  WatchLock(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Fd fd_;  ///< invalid where there was no file to lock
};

}  // namespace weft::cni::install
