// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string_view>

#include "tunnel/base/fd.h"

namespace weft::cni::install {
namespace {

constexpr std::size_t kMaxText = 1024 * 1024;
constexpr const char* kLabel = "security.selinux";

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// A new name lasts only once its folder is on the disk.
Result<void> sync_folder(const std::string& folder) {
  const Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + folder);
  if (::fsync(fd.get()) < 0) return fail_errno(errno, "fsync " + folder);
  return {};
}

/// A file of our own under a name that no runtime reads; gone at the end of its life unless it got its final name.
class Temporary {
 public:
  static Result<Temporary> make(const std::string& folder) {
    std::string path = folder + "/.weft-XXXXXX" + kTemporarySuffix;
    Fd fd(::mkostemps(path.data(), static_cast<int>(std::string_view(kTemporarySuffix).size()), O_CLOEXEC));
    if (!fd) return fail_errno(errno, "make a file in " + folder + " (is it mounted read-only, or not ours?)");
    return Temporary(std::move(path), std::move(fd));
  }
  Temporary(Temporary&& other) noexcept : path_(std::exchange(other.path_, {})), fd_(std::move(other.fd_)) {}
  Temporary& operator=(Temporary&&) = delete;
  ~Temporary() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }

  [[nodiscard]] const std::string& path() const { return path_; }

  Result<void> write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::write(fd_.get(), text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "write " + path_ + " (is the disk full?)");
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
  }
  Result<void> set_owner(const struct stat& like, std::optional<std::string> label) {
    struct stat own = {};
    if (::fstat(fd_.get(), &own) < 0) return fail_errno(errno, "stat " + path_);
    if ((own.st_uid != like.st_uid || own.st_gid != like.st_gid) && ::fchown(fd_.get(), like.st_uid, like.st_gid) < 0) {
      return fail_errno(errno, "give " + path_ + " the owner of the file that it replaces");
    }
    if (::fchmod(fd_.get(), like.st_mode & 07777) < 0) return fail_errno(errno, "set the mode of " + path_);
    // Best effort: where labels matter, the folder's default for new files is the right one as a rule.
    if (label) (void)::fsetxattr(fd_.get(), kLabel, label->data(), label->size(), 0);
    return {};
  }
  Result<void> sync() {
    if (::fsync(fd_.get()) < 0) return fail_errno(errno, "fsync " + path_);
    return {};
  }
  Result<void> rename_to(const std::string& path) {
    if (::rename(path_.c_str(), path.c_str()) < 0) return fail_errno(errno, "rename " + path_ + " to " + path);
    path_.clear();
    return sync_folder(folder_of(path));
  }

 private:
  Temporary(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  Fd fd_;
};

std::optional<std::string> label_of(const std::string& path) {
  std::array<char, 256> label;
  const ssize_t size = ::getxattr(path.c_str(), kLabel, label.data(), label.size());
  if (size <= 0) return {};
  return std::string(label.data(), static_cast<std::size_t>(size));
}

/// The moment of the last rename changes a file's ctime, so that one does not count.
bool same_content(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

Failure changed(const std::string& path) {
  return fail(ErrorCode::kUnavailable, "replace " + path + ": its owner changed it at the same moment");
}

bool is_unchanged(const std::string& path, const FileText& old) {
  struct stat now = {};
  return ::stat(path.c_str(), &now) == 0 && same_content(now, old.state);
}

/// Swaps the two, and back again when the owner wrote into his file at that very moment: a plain rename would throw
/// away what he wrote.
Result<void> swap_in(Temporary& file, const std::string& path, const FileText& old) {
  if (!is_unchanged(path, old)) return changed(path);
  if (::renameat2(AT_FDCWD, file.path().c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE) < 0) {
    if (errno == ENOENT) return changed(path);
    return file.rename_to(path);  // a file system that cannot swap
  }
  if (!is_unchanged(file.path(), old)) {
    (void)::renameat2(AT_FDCWD, file.path().c_str(), AT_FDCWD, path.c_str(), RENAME_EXCHANGE);
    return changed(path);
  }
  return sync_folder(folder_of(path));
}

/// What was written must be what a runtime is going to read.
Result<void> verify(const std::string& path, const std::string& text) {
  auto back = read_text(path);
  if (!back) return Failure(back.error());
  if (back->text != text) return fail(ErrorCode::kInternal, "write " + path + ": reading gives something else");
  return {};
}

Result<Temporary> prepare(const std::string& path, const std::string& text, const struct stat& like) {
  auto file = Temporary::make(folder_of(path));
  if (!file) return file;
  auto done = file->write(text);
  if (done) done = file->set_owner(like, label_of(path));
  if (done) done = file->sync();
  if (done) done = verify(file->path(), text);
  if (!done) return Failure(done.error());
  return file;
}

bool same_program(int a, int b) {
  struct stat state_a = {}, state_b = {};
  if (::fstat(a, &state_a) < 0 || ::fstat(b, &state_b) < 0) return false;
  if (state_a.st_size != state_b.st_size || (state_b.st_mode & 0777) != 0755) return false;
  std::array<char, 65536> part_a, part_b;
  for (off_t at = 0; at < state_a.st_size;) {
    const ssize_t got = ::pread(a, part_a.data(), part_a.size(), at);
    if (got <= 0 || ::pread(b, part_b.data(), static_cast<std::size_t>(got), at) != got ||
        !std::equal(part_a.begin(), part_a.begin() + got, part_b.begin())) {
      return false;
    }
    at += got;
  }
  return true;
}

}  // namespace

Result<std::vector<std::string>> list_files(const std::string& folder) {
  const std::unique_ptr<DIR, DirCloser> dir(::opendir(folder.c_str()));
  if (dir == nullptr) return fail_errno(errno, "list " + folder);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_type != DT_DIR) names.emplace_back(entry->d_name);
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, "list " + folder);
  std::ranges::sort(names);
  return names;
}

Result<FileText> read_text(const std::string& path) {
  // Not blocking: somebody's FIFO must not stop us.
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return fail_errno(errno, "open " + path);
  FileText file;
  if (::fstat(fd.get(), &file.state) < 0) return fail_errno(errno, "stat " + path);
  if (!S_ISREG(file.state.st_mode)) return fail(ErrorCode::kInvalid, "read " + path + ": it is no regular file");
  std::array<char, 16384> part;
  while (file.text.size() <= kMaxText) {
    const ssize_t n = ::read(fd.get(), part.data(), part.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read " + path);
    if (n == 0) return file;
    file.text.append(part.data(), static_cast<std::size_t>(n));
  }
  return fail(ErrorCode::kInvalid, "read " + path + ": it has more than 1 MiB");
}

Result<void> replace_text(const std::string& path, const std::string& text, const FileText& old) {
  const std::unique_ptr<char, decltype(&::free)> resolved(::realpath(path.c_str(), nullptr), &::free);
  if (!resolved) return errno == ENOENT ? Result<void>(changed(path)) : fail_errno(errno, "resolve " + path);
  const std::string target = resolved.get();
  auto file = prepare(target, text, old.state);
  if (!file) return Failure(file.error());
  return swap_in(*file, target, old);
}

Result<void> write_text(const std::string& path, const std::string& text, const struct stat& like) {
  auto file = prepare(path, text, like);
  if (!file) return Failure(file.error());
  return file->rename_to(path);
}

Result<void> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "remove " + path);
  }
  return sync_folder(folder_of(path));
}

Result<bool> copy_program(const std::string& from, const std::string& to) {
  const Fd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source) return fail_errno(errno, "open the program " + from);
  {
    const Fd present(::open(to.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (present && same_program(source.get(), present.get())) return false;
  }
  auto file = Temporary::make(folder_of(to));
  if (!file) return Failure(file.error());
  std::array<char, 65536> part;
  for (;;) {
    const ssize_t n = ::read(source.get(), part.data(), part.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read the program " + from);
    if (n == 0) break;
    auto written = file->write({part.data(), static_cast<std::size_t>(n)});
    if (!written) return Failure(written.error());
  }
  struct stat like = {};
  like.st_uid = ::geteuid();
  like.st_gid = ::getegid();
  like.st_mode = 0755;
  auto done = file->set_owner(like, {});
  if (done) done = file->sync();
  if (done) done = file->rename_to(to);
  if (!done) return Failure(done.error());
  return true;
}

void remove_leftovers(const std::string& folder) {
  const auto names = list_files(folder);
  if (!names) return;
  for (const auto& name : *names) {
    if (name.starts_with(".weft-") && name.ends_with(kTemporarySuffix)) ::unlink((folder + "/" + name).c_str());
  }
}

}  // namespace weft::cni::install
