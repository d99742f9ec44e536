// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "agent/control/source.h"
#include "agent/directory_watch.h"
#include "tunnel/base/clock.h"

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
  /// The content once it has settled. Nothing where there is no file, it does not settle, or stop() was called.
  std::optional<std::string> settled_text();
  void reload();
  Result<std::shared_ptr<const state::State>> load(const std::string& text);
  void refuse(const Error& error);
  /// Remembers, and says once, why the file cannot be read; "" where it can.
  void set_unreadable(std::string why);
  void set_in_force(const state::State& state);

  const std::string path_;
  agent::DirectoryWatch watch_;
  Deliver deliver_;
  std::string last_text_;  ///< the content last looked at, good or bad
  mutable std::mutex status_mutex_;
  std::string in_force_;    ///< under status_mutex_
  std::string last_error_;  ///< under status_mutex_: why the content is refused
  std::string unreadable_;  ///< under status_mutex_: why there is no content
  std::thread thread_;
};

}  // namespace weft::control
