// SPDX-License-Identifier: Apache-2.0
#include "agent/unix_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace weft::agent {
namespace {

// Non-blocking: EAGAIN, a full backlog, means to who connects that somebody listens.
Result<Fd> unix_socket(const std::string& what) {
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "make the " + what);
  return fd;
}

/// Removes what a dead agent left at the path; refuses to touch anything else.
Result<void> clear_path(const std::string& what, const std::string& path, const sockaddr_un& address) {
  struct stat st {};
  if (::lstat(path.c_str(), &st) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "look at the " + what + " " + path);
  }
  if (!S_ISSOCK(st.st_mode)) return fail(ErrorCode::kInvalid, what + " " + path + ": the path exists and is no socket");
  auto probe = unix_socket(what);
  if (!probe) return Failure(probe.error());
  if (::connect(probe->get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 || errno == EAGAIN) {
    return fail(ErrorCode::kUnavailable,
                what + " " + path + ": another agent answers on it (is weft-agent already running?)");
  }
  // EPROTOTYPE: a socket of another type, alive: not ours to remove.
  if (errno != ECONNREFUSED && errno != ENOENT) return fail_errno(errno, "probe the " + what + " " + path);
  if (::unlink(path.c_str()) < 0 && errno != ENOENT) return fail_errno(errno, "remove the stale " + what + " " + path);
  return {};
}

}  // namespace

Result<sockaddr_un> unix_address(const std::string& what, const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid, what + " \"" + path + "\": expected a path of 1 to " +
                                         std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<Fd> listen_unix(const std::string& what, const std::string& path, int backlog) {
  auto address = unix_address(what, path);
  if (!address) return Failure(address.error());
  if (auto cleared = clear_path(what, path, *address); !cleared) return Failure(cleared.error());
  auto fd = unix_socket(what);
  if (!fd) return fd;
  // The node takes its mode from the socket at bind, so it is never open to others, not even for a moment.
  if (::fchmod(fd->get(), 0600) < 0) return fail_errno(errno, "chmod the " + what + " " + path);
  if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) < 0)
    return fail_errno(errno, "bind the " + what + " " + path);
  if (::listen(fd->get(), backlog) < 0) return fail_errno(errno, "listen on the " + what + " " + path);
  return fd;
}

}  // namespace weft::agent
