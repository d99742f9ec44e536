// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "agent/control/source.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/fd.h"

namespace weft::control {

/// The mesh's configuration from one local file in ztunnel's local format (local_config.h). start() reads the file on
/// the caller's thread, delivers the first snapshot before it returns, and fails if the file cannot be used. From then
/// on a thread of its own watches the file's directory (writes, renames, and the symlink swap of a mounted ConfigMap),
/// and looks at the content itself now and then for changes that no event tells of. A version is delivered only when
/// its content is new; a bad one is refused whole, logged, and delivered as an error; a file that vanished, or is
/// empty, leaves the old version in force.
class LocalFile : public Source {
 public:
  explicit LocalFile(std::string path, milliseconds poll_interval = milliseconds(5'000));
  ~LocalFile() override;
  LocalFile(const LocalFile&) = delete;
  LocalFile& operator=(const LocalFile&) = delete;

  Result<void> start(Deliver deliver) override;
  void stop() override;
  [[nodiscard]] std::string status() const override;

 private:
  /// Watches the directory where it does not yet; without a watch the content is still looked at now and then.
  void watch_directory();
  void run();
  /// Waits for a change in the directory, the poll interval, or stop().
  void wait_for_change();
  void drain_events();
  /// Waits at most that long; true where stop() was called.
  bool stopped_within(milliseconds wait);
  /// The content once two looks in a row agree, so that a write under way is not taken for a version. Nothing where
  /// there is no file, it does not settle, or stop() was called.
  std::optional<std::string> settled_text();
  void reload();
  Result<std::shared_ptr<const state::State>> load(const std::string& text);
  void refuse(const Error& error);
  /// Remembers, and says once, why the file cannot be read; "" where it can.
  void set_unreadable(std::string why);
  void set_in_force(const state::State& state);

  const std::string path_;
  const milliseconds poll_interval_;
  Deliver deliver_;
  Fd inotify_;
  Fd wake_;                ///< readable once stop() was called
  int watch_ = -1;         ///< of the directory, -1 where there is none now
  std::string last_text_;  ///< the content last looked at, good or bad
  mutable std::mutex status_mutex_;
  std::string in_force_;    ///< under status_mutex_
  std::string last_error_;  ///< under status_mutex_: why the content is refused
  std::string unreadable_;  ///< under status_mutex_: why there is no content
  std::thread thread_;
};

}  // namespace weft::control
