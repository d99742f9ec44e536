// SPDX-License-Identifier: Apache-2.0
#include "agent/directory_watch.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tunnel/base/log.h"
#include "tunnel/base/sort_unique.h"

namespace weft::agent {
namespace {

constexpr milliseconds kSwarm{10};
/// While a directory is away nothing tells that it came back.
constexpr milliseconds kPollForDirectory{1'000};
/// Attributes too: a key that was open to others and is closed can be used.
constexpr std::uint32_t kEvents = IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                                  IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

}  // namespace

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

DirectoryWatch::DirectoryWatch(std::vector<std::string> directories, milliseconds poll_interval)
    : poll_interval_(poll_interval) {
  sort_unique(directories);
  for (auto& directory : directories) directories_.push_back({std::move(directory), -1});
}

Result<void> DirectoryWatch::open() {
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "eventfd");
  inotify_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify_) {
    log::warn("inotify is not to be had, changes are seen with a delay directory={} errno={}",
              directories_.front().directory, errno);
  }
  watch();
  return {};
}

void DirectoryWatch::stop() {
  const std::uint64_t one = 1;
  // An eventfd takes its first count always.
  if (::write(wake_.get(), &one, sizeof one) < 0) log::error("wake-up failed errno={}", errno);
}

bool DirectoryWatch::watch() {
  if (!inotify_) return true;
  bool all = true;
  for (auto& watched : directories_) {
    if (watched.watch < 0) watched.watch = ::inotify_add_watch(inotify_.get(), watched.directory.c_str(), kEvents);
    if (watched.watch >= 0) continue;
    all = false;
    log::debug("cannot watch directory={} errno={}", watched.directory, errno);
  }
  return all;
}

bool DirectoryWatch::wait() {
  std::array<pollfd, 2> waits = {pollfd{wake_.get(), POLLIN, 0}, pollfd{inotify_.get(), POLLIN, 0}};
  const milliseconds interval = watch() ? poll_interval_ : std::min(poll_interval_, kPollForDirectory);
  // A descriptor of -1 is passed over by poll.
  ::poll(waits.data(), waits.size(), static_cast<int>(interval.count()));
  if (waits[1].revents != 0) {
    drain_events();
    // Events come in swarms; and a directory that is busy with other things must not keep this thread busy.
    stopped_within(kSwarm);
    drain_events();
  }
  watch();
  return !stopped_within(milliseconds(0));
}

void DirectoryWatch::drain_events() {
  alignas(inotify_event) std::array<char, 16 * 1024> buffer;
  while (true) {
    const ssize_t n = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      at += sizeof(inotify_event) + event->len;
      const auto watched = std::ranges::find(directories_, event->wd, &Watched::watch);
      if (watched == directories_.end()) continue;
      // The watch is on an inode that no longer is at the path: look for the new one.
      if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) != 0) ::inotify_rm_watch(inotify_.get(), watched->watch);
      if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) != 0) watched->watch = -1;
    }
  }
}

bool DirectoryWatch::stopped_within(milliseconds wait) {
  pollfd stop{wake_.get(), POLLIN, 0};
  return ::poll(&stop, 1, static_cast<int>(wait.count())) > 0;
}

}  // namespace weft::agent
