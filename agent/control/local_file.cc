// SPDX-License-Identifier: Apache-2.0
#include "agent/control/local_file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
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

constexpr milliseconds kSettle{50};
constexpr milliseconds kSwarm{10};
constexpr int kSettleRounds = 40;
constexpr std::uint32_t kEvents =
    IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

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
    : path_(std::move(path)), poll_interval_(poll_interval) {}

LocalFile::~LocalFile() { stop(); }

Result<void> LocalFile::start(Deliver deliver) {
  deliver_ = std::move(deliver);
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "eventfd");
  inotify_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify_) log::warn("inotify is not to be had, changes are seen with a delay file={} errno={}", path_, errno);
  watch_directory();  // before the first read, so that no change falls between the two
  auto text = read_file(path_);
  if (!text) return Failure(text.error());
  last_text_ = std::move(*text);
  auto state = load(last_text_);
  if (!state) return Failure(state.error());
  set_in_force(**state);
  deliver_(std::move(*state));
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start the thread that watches " + path_);
  }
  return {};
}

void LocalFile::stop() {
  if (!thread_.joinable()) return;
  const std::uint64_t one = 1;
  // An eventfd takes its first count always.
  if (::write(wake_.get(), &one, sizeof one) < 0) log::error("wake-up failed errno={}", errno);
  thread_.join();
}

std::string LocalFile::status() const {
  const std::scoped_lock lock(status_mutex_);
  std::string text = "file " + path_ + ": " + (in_force_.empty() ? "nothing in force" : in_force_ + " in force");
  if (!last_error_.empty()) text += "; " + last_error_;
  if (!unreadable_.empty()) text += "; " + unreadable_;
  return text;
}

void LocalFile::watch_directory() {
  if (!inotify_ || watch_ >= 0) return;
  watch_ = ::inotify_add_watch(inotify_.get(), directory_of(path_).c_str(), kEvents);
  if (watch_ < 0) log::debug("cannot watch directory={} errno={}", directory_of(path_), errno);
}

void LocalFile::run() {
  while (!stopped_within(milliseconds(0))) {
    wait_for_change();
    watch_directory();
    reload();
  }
}

void LocalFile::wait_for_change() {
  std::array<pollfd, 2> waits = {pollfd{wake_.get(), POLLIN, 0}, pollfd{inotify_.get(), POLLIN, 0}};
  // A descriptor of -1 is passed over by poll.
  ::poll(waits.data(), waits.size(), static_cast<int>(poll_interval_.count()));
  if (waits[1].revents == 0) return;
  drain_events();
  // Events come in swarms; and a directory that is busy with other things must not keep this thread busy.
  stopped_within(kSwarm);
  drain_events();
}

void LocalFile::drain_events() {
  alignas(inotify_event) std::array<char, 16 * 1024> buffer;
  while (true) {
    const ssize_t n = ::read(inotify_.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    for (std::size_t at = 0; at < static_cast<std::size_t>(n);) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      at += sizeof(inotify_event) + event->len;
      if (event->wd != watch_) continue;
      // The watch is on an inode that no longer is at the path: look for the new one.
      if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) != 0) ::inotify_rm_watch(inotify_.get(), watch_);
      if ((event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)) != 0) watch_ = -1;
    }
  }
}

bool LocalFile::stopped_within(milliseconds wait) {
  pollfd stop{wake_.get(), POLLIN, 0};
  return ::poll(&stop, 1, static_cast<int>(wait.count())) > 0;
}

std::optional<std::string> LocalFile::settled_text() {
  std::optional<std::string> last;
  for (int round = 0; round < kSettleRounds; ++round) {
    auto text = read_file(path_);
    if (!text) {
      set_unreadable(text.error().message());
      return std::nullopt;
    }
    if (*text == last_text_ || (last && *text == *last)) return std::move(*text);
    last = std::move(*text);
    if (stopped_within(kSettle)) return std::nullopt;
  }
  return std::nullopt;
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
  set_unreadable("");
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
  log::info("local configuration in force file={} workloads={} services={} policies={}", path_,
            state.workloads().size(), state.services().size(), state.policies().size());
  const std::scoped_lock lock(status_mutex_);
  in_force_ = std::to_string(state.workloads().size()) + " workloads, " + std::to_string(state.services().size()) +
              " services, " + std::to_string(state.policies().size()) + " policies";
  last_error_.clear();
}

}  // namespace weft::control
