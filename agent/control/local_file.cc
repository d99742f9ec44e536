// SPDX-License-Identifier: Apache-2.0
#include "agent/control/local_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "agent/control/local_config.h"
#include "tunnel/base/log.h"

namespace weft::control {
namespace {

/// The whole file, at most one byte more than may be parsed.
Result<std::string> read_file(const std::string& path) {
  // Non-blocking, so that a FIFO in its place cannot hold the thread.
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "open " + path);
  struct stat info {};
  if (::fstat(fd.get(), &info) < 0) return fail_errno(errno, "stat " + path);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalid, "read " + path + ": not a regular file");
  std::string text;
  std::array<char, 64 * 1024> block;
  while (text.size() <= kMaxConfigBytes) {
    const ssize_t n = ::read(fd.get(), block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read " + path);
    if (n == 0) break;
    text.append(block.data(), static_cast<std::size_t>(n));
  }
  return text;
}

}  // namespace

LocalFile::LocalFile(std::string path, milliseconds poll_interval)
    : path_(std::move(path)), watch_({agent::directory_of(path_)}, poll_interval) {}

LocalFile::~LocalFile() { stop(); }

Result<void> LocalFile::start(Deliver deliver) {
  deliver_ = std::move(deliver);
  if (auto opened = watch_.open(); !opened) return opened;
  auto text = read_file(path_);
  if (!text) return Failure(text.error());
  last_text_ = std::move(*text);
  auto state = load(last_text_);
  if (!state) return Failure(state.error());
  set_in_force(**state);
  deliver_(std::move(*state));
  try {
    thread_ = std::thread([this] {
      while (watch_.wait()) reload();
    });
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start the thread that watches " + path_);
  }
  return {};
}

void LocalFile::stop() {
  if (!thread_.joinable()) return;
  watch_.stop();
  thread_.join();
}

std::string LocalFile::status() const {
  const std::scoped_lock lock(status_mutex_);
  std::string text = "file " + path_ + ": " + (in_force_.empty() ? "nothing in force" : in_force_ + " in force");
  if (!last_error_.empty()) text += "; " + last_error_;
  if (!unreadable_.empty()) text += "; " + unreadable_;
  return text;
}

std::optional<std::string> LocalFile::settled_text() {
  struct Look {
    std::string text, error;
    bool operator==(const Look&) const = default;
  };
  auto settled = watch_.settled(Look{last_text_, {}}, [this]() -> Look {
    auto text = read_file(path_);
    if (text) return {std::move(*text), {}};
    return {{}, text.error().message()};
  });
  if (!settled) return std::nullopt;
  set_unreadable(settled->error);
  if (!settled->error.empty()) return std::nullopt;
  return std::move(settled->text);
}

void LocalFile::set_unreadable(std::string why) {
  const std::scoped_lock lock(status_mutex_);
  if (unreadable_.empty() && !why.empty()) {
    log::warn("local configuration cannot be read, the last version stays in force error={}", log::quote(why));
  }
  unreadable_ = std::move(why);
}

void LocalFile::reload() {
  auto text = settled_text();
  if (!text) return;
  if (*text == last_text_) return;
  last_text_ = std::move(*text);
  auto state = load(last_text_);
  if (!state) {
    refuse(state.error());
  } else {
    set_in_force(**state);
    deliver_(std::move(*state));
  }
}

Result<std::shared_ptr<const state::State>> LocalFile::load(const std::string& text) {
  auto input = parse_local_config(path_, text);
  if (!input) return Failure(input.error());
  auto state = state::State::build(std::move(*input));
  if (!state) return fail(state.error().code, path_ + ": " + state.error().message());
  return state;
}

void LocalFile::refuse(const Error& error) {
  log::error("local configuration refused, the last version stays in force file={} error={}", path_,
             log::quote(error.message()));
  {
    const std::scoped_lock lock(status_mutex_);
    last_error_ = "the version in the file is refused: " + error.message();
  }
  deliver_(Failure(error));
}

void LocalFile::set_in_force(const state::State& state) {
  log::info("local configuration in force file={} workloads={} services={} policies={}", path_, state.workload_count(),
            state.service_count(), state.policies().size());
  const std::scoped_lock lock(status_mutex_);
  in_force_ = counts_of(state);
  last_error_.clear();
}

}  // namespace weft::control
