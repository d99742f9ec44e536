// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_events.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "cni-plugin/install_files.h"

namespace weft::cni::install {
namespace {

constexpr int kQuietMs = 30;
constexpr std::int64_t kMaxUnquietMs = 300;
constexpr std::uint32_t kMask = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE |
                                IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

}  // namespace

bool matters(std::string_view name) { return !name.ends_with(kTemporarySuffix); }

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

Result<Events> Events::make() {
  sigset_t ends;
  ::sigemptyset(&ends);
  for (const int number : {SIGTERM, SIGINT}) ::sigaddset(&ends, number);
  if (::sigprocmask(SIG_BLOCK, &ends, nullptr) < 0) return fail_errno(errno, "block signals");
  Fd signals(::signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail_errno(errno, "make a signalfd");
  Fd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify) return fail_errno(errno, "make an inotify instance (is fs.inotify.max_user_instances used up?)");
  return Events(std::move(inotify), std::move(signals));
}

bool Events::follow(const std::vector<std::string>& folders) {
  if (watches_.empty()) {
    for (const auto& folder : folders) watches_.push_back({folder, -1, 0, 0});
  }
  bool all = true;
  for (auto& watch : watches_) all = follow(watch) && all;
  return all;
}

bool Events::follow(Watch& watch) {
  struct stat now = {};
  if (::stat(watch.folder.c_str(), &now) < 0) now.st_ino = 0;
  if (watch.descriptor >= 0) {
    if (now.st_dev == watch.device && now.st_ino == watch.inode) return true;
    (void)::inotify_rm_watch(inotify_.get(), watch.descriptor);
    watch.descriptor = -1;
  }
  if (now.st_ino == 0) return false;
  watch.descriptor = ::inotify_add_watch(inotify_.get(), watch.folder.c_str(), kMask);
  watch.device = now.st_dev;
  watch.inode = now.st_ino;
  return watch.descriptor >= 0;
}

/// True when something that matters was among what was read.
bool Events::drain() {
  alignas(inotify_event) std::array<char, 16384> buffer;
  bool found = false;
  for (;;) {
    const ssize_t size = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (size <= 0) return found;
    for (ssize_t at = 0; at < size;) {
      inotify_event event = {};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      const char* name = buffer.data() + at + sizeof event;
      // Without a name it is the folder itself, or the queue ran over.
      found = found || event.len == 0 || matters(name);
      at += static_cast<ssize_t>(sizeof event + event.len);
    }
  }
}

Events::Woken Events::wait_until_quiet() {
  const auto end = now_ms() + kMaxUnquietMs;
  while (now_ms() < end) {
    std::array<pollfd, 2> fds{{{inotify_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
    const int ready = ::poll(fds.data(), fds.size(), kQuietMs);
    if (ready == 0) break;
    if (fds[1].revents != 0) return Woken::kStop;
    drain();
  }
  return Woken::kChange;
}

Events::Woken Events::wait(std::int64_t timeout_ms) {
  const auto end = now_ms() + timeout_ms;
  for (;;) {
    std::array<pollfd, 2> fds{{{inotify_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}}};
    const auto left = std::clamp<std::int64_t>(end - now_ms(), 0, INT_MAX);
    const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(left));
    if (ready > 0 && fds[1].revents != 0) return Woken::kStop;
    if (ready > 0 && drain()) return wait_until_quiet();
    if (ready <= 0 && now_ms() >= end) return Woken::kTime;
  }
}

}  // namespace weft::cni::install
