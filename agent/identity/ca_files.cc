// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "agent/directory_watch.h"
#include "tunnel/base/fd.h"

namespace weft::agent {
namespace {

constexpr std::size_t kChunk = 64 * 1024;
constexpr std::size_t kKeyRoom = 32 * 1024;

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

/// As much as one read gives; 0 at the end.
Result<std::size_t> read_some(int fd, char* into, std::size_t room, const std::string& path) {
  for (;;) {
    const ssize_t n = ::read(fd, into, room);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINTR) return fail_errno(errno, "read " + path);
  }
}

Failure too_large(const std::string& path, std::size_t at_most) {
  return fail(ErrorCode::kInvalid,
              "read " + path + ": larger than " + std::to_string(at_most / 1024) + " KiB, no such file of a CA is");
}

/// The whole file into `room` bytes, of which one stays free. Gives the number of bytes.
Result<std::size_t> read_all(int fd, char* into, std::size_t room, const std::string& path) {
  std::size_t size = 0;
  while (size < room) {
    const auto n = read_some(fd, into + size, room - size, path);
    if (!n) return n;
    if (*n == 0) return size;
    size += *n;
  }
  return too_large(path, room);
}

/// Asked of the open file, so that it is the one that is read.
Result<void> check_private(int fd, const std::string& path) {
  struct stat status {};
  if (::fstat(fd, &status) < 0) return fail_errno(errno, "look at " + path);
  if (status.st_uid != 0 && status.st_uid != ::geteuid()) {
    return fail(ErrorCode::kDenied, "read the key " + path + ": it belongs to uid " + std::to_string(status.st_uid) +
                                        ", who could replace it (chown root it)");
  }
  if ((status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(ErrorCode::kDenied,
                "read the key " + path +
                    ": its group or others may use it, so it may be known to them (chmod 0600 it; in "
                    "a Secret's volume set defaultMode: 0400)");
  }
  return {};
}

/// Locked memory that is wiped at its end.
class Secret {
 public:
  explicit Secret(std::size_t size) : data_(static_cast<char*>(OPENSSL_secure_malloc(size))), size_(size) {}
  ~Secret() { OPENSSL_secure_clear_free(data_, size_); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  [[nodiscard]] char* data() const { return data_; }

 private:
  char* data_;
  std::size_t size_;
};

}  // namespace

Result<std::string> read_pem_file(const std::string& path, std::size_t at_most) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  std::string text;
  std::size_t size = 0;
  while (size <= at_most) {
    text.resize(size + kChunk);
    const auto n = read_some(fd.get(), text.data() + size, kChunk, path);
    if (!n) return Failure(n.error());
    size += *n;
    text.resize(size);
    if (*n == 0) return text;
  }
  return too_large(path, at_most);
}

Result<hbone::OpenSslPtr<EVP_PKEY>> read_key_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  if (auto ok = check_private(fd.get(), path); !ok) return Failure(ok.error());
  const Secret text(kKeyRoom);
  if (text.data() == nullptr) return fail(ErrorCode::kInternal, "read " + path + ": no locked memory is left");
  auto size = read_all(fd.get(), text.data(), kKeyRoom, path);
  if (!size) return Failure(size.error());
  return hbone::read_private_key({text.data(), *size}, path);
}

Result<void> write_file_atomically(const std::string& path, const std::string& text, mode_t mode) {
  std::string temporary = path + ".XXXXXX";
  const Fd fd(::mkostemp(temporary.data(), O_CLOEXEC));  // 0600 from the start
  if (!fd) return fail_errno(errno, "create a temporary file beside " + path);
  const auto give_up = [&](int error, const std::string& what) {
    ::unlink(temporary.c_str());
    return fail_errno(error, what + " " + temporary);
  };
  if (auto written = write_all(fd.get(), text); !written) return give_up(written.error().errno_value, "write");
  if (::fchmod(fd.get(), mode) < 0) return give_up(errno, "change the mode of");
  if (::fsync(fd.get()) < 0) return give_up(errno, "sync");
  if (::rename(temporary.c_str(), path.c_str()) < 0) return give_up(errno, "rename to " + path + ":");
  return sync_directory(directory_of(path));
}

Result<void> sync_directory(const std::string& dir) {
  const Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) < 0) return fail_errno(errno, "sync directory " + dir);
  return {};
}

Result<void> make_private_directory(const std::string& dir) {
  if (::mkdir(dir.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return fail_errno(errno, "make directory " + dir);
  struct stat status {};
  if (::stat(dir.c_str(), &status) < 0) return fail_errno(errno, "look at directory " + dir);
  if (!S_ISDIR(status.st_mode)) return fail_errno(ENOTDIR, "make directory " + dir);
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return fail(ErrorCode::kDenied, "directory " + dir +
                                        ": its group or others may write to it, so they could replace " +
                                        "keys in it (chmod 0700 it, or name another)");
  }
  return {};
}

Result<void> write_bundle(const hbone::CertificateBundle& bundle, const std::string& dir) {
  if (auto made = make_private_directory(dir); !made) return made;
  if (auto ok = write_file_atomically(dir + "/key.pem", bundle.private_key_pem, 0600); !ok) return ok;
  if (auto ok = write_file_atomically(dir + "/cert.pem", bundle.certificate_pem + bundle.chain_pem, 0644); !ok)
    return ok;
  return write_file_atomically(dir + "/roots.pem", bundle.roots_pem, 0644);
}

}  // namespace weft::agent
