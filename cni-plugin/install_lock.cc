// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_lock.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "cni-plugin/install_files.h"

namespace weft::cni::install {
namespace {

std::string lock_path(const std::string& conf_dir) { return conf_dir + "/.weft-cni.lock"; }

bool is_at(int fd, const std::string& path) {
  struct stat mine = {}, there = {};
  return ::fstat(fd, &mine) == 0 && ::stat(path.c_str(), &there) == 0 && mine.st_dev == there.st_dev &&
         mine.st_ino == there.st_ino;
}

}  // namespace

Result<WatchLock> WatchLock::take(const std::string& conf_dir) {
  // A file of its own, locked before anybody can see it.
  std::string temporary = conf_dir + "/.weft-XXXXXX" + kTemporarySuffix;
  Fd fd(::mkostemps(temporary.data(), static_cast<int>(std::string_view(kTemporarySuffix).size()), O_CLOEXEC));
  if (!fd) return fail_errno(errno, "make a lock file in " + conf_dir + " (is it mounted read-only, or not ours?)");
  const std::string path = lock_path(conf_dir);
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0 || ::rename(temporary.c_str(), path.c_str()) < 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return fail_errno(error, "take " + path);
  }
  return WatchLock(path, std::move(fd));
}

Result<WatchLock> WatchLock::take_free(const std::string& conf_dir) {
  const std::string path = lock_path(conf_dir);
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT || errno == ENOTDIR) return WatchLock(path, {});
    return fail_errno(errno, "open " + path);
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) return fail_errno(errno, "lock " + path);
    return fail(ErrorCode::kDenied, "weft-cni install --watch runs on " + conf_dir +
                                        " and would put its entry back: stop it first (delete its DaemonSet)");
  }
  return WatchLock(path, std::move(fd));
}

bool WatchLock::held() {
  if (is_at(fd_.get(), path_)) return true;
  Fd later(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!later) {
    // The folder was replaced, or somebody tidied up.
    auto again = take(path_.substr(0, path_.rfind('/')));
    if (!again) return false;
    *this = std::move(*again);
    return true;
  }
  if (::flock(later.get(), LOCK_EX | LOCK_NB) < 0 || !is_at(later.get(), path_)) return false;
  fd_ = std::move(later);
  return true;
}

void WatchLock::remove() {
  if (fd_) ::unlink(path_.c_str());
}

}  // namespace weft::cni::install
