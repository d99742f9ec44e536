// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
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
  Result<void> watch_directory();
  void run();
  void wait_for_change();
  void drain_events();
  void reload();
  void refuse(const Error& error);
  Result<std::shared_ptr<const state::State>> load(const std::string& text);
  void set_status(std::string text, std::string error);

  const std::string path_;
  const std::string directory_;
  const milliseconds poll_interval_;
  Deliver deliver_;
  Fd inotify_;
  int watch_ = -1;  ///< the directory's, -1 where there is none now
  Fd wake_;         ///< readable when stop() was called
  std::atomic<bool> stopping_{false};
  std::string last_text_;  ///< the content last looked at, good or bad
  bool missing_ = false;   ///< already said that the file is gone
  mutable std::mutex status_mutex_;
  std::string in_force_;    ///< under status_mutex_
  std::string last_error_;  ///< under status_mutex_
  std::thread thread_;
};

}  // namespace weft::control
