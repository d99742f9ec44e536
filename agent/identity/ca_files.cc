// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "tunnel/base/fd.h"

namespace weft::agent {
namespace {

constexpr std::size_t kMaxPemBytes = 256 * 1024;

Result<void> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

Result<void> sync_directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string dir = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || ::fsync(fd.get()) < 0) return fail_errno(errno, "sync directory " + dir);
  return {};
}

}  // namespace

Result<std::string> read_pem_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open " + path);
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read " + path);
    if (n == 0) return text;
    text.append(buffer, static_cast<std::size_t>(n));
    if (text.size() > kMaxPemBytes) {
      return fail(ErrorCode::kInvalid, "read " + path + ": larger than 256 KiB, no PEM file of a CA is");
    }
  }
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
  return sync_directory_of(path);
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
