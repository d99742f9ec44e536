// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/sys.h"

#include <sched.h>

#include <cerrno>
#include <cstring>

namespace weft::sys {
namespace {

/// Calls again while a signal interrupts.
template <class Call>
auto retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

Result<std::optional<std::size_t>> transferred(ssize_t n, const char* what) {
  if (n >= 0) return std::optional(static_cast<std::size_t>(n));
  if (would_block(errno)) return std::optional<std::size_t>();
  return fail_errno(errno, what);
}

}  // namespace

Result<Fd> socket(int family, int type, int protocol) {
  Fd fd(::socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  if (!fd) return fail_errno(errno, "socket");
  return fd;
}

Result<void> bind(int fd, const Endpoint::Sockaddr& address) {
  if (::bind(fd, address.get(), address.length) < 0) {
    return fail_errno(errno, "bind " + Endpoint::from_sockaddr(address.storage).to_string());
  }
  return {};
}

Result<bool> connect(int fd, const Endpoint::Sockaddr& address) {
  if (retry([&] { return ::connect(fd, address.get(), address.length); }) == 0) return true;
  if (errno == EINPROGRESS) return false;
  return fail_errno(errno, "connect " + Endpoint::from_sockaddr(address.storage).to_string());
}

Result<void> listen(int fd, int backlog) {
  if (::listen(fd, backlog) < 0) return fail_errno(errno, "listen");
  return {};
}

Result<std::optional<Accepted>> accept(int fd) {
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  Fd accepted(
      retry([&] { return ::accept4(fd, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_NONBLOCK | SOCK_CLOEXEC); }));
  if (accepted) return std::optional(Accepted{std::move(accepted), Endpoint::from_sockaddr(peer)});
  if (would_block(errno)) return std::optional<Accepted>();
  return fail_errno(errno, "accept");
}

Result<std::optional<std::size_t>> recv(int fd, std::span<std::byte> into) {
  return transferred(retry([&] { return ::recv(fd, into.data(), into.size(), 0); }), "recv");
}

Result<std::optional<std::size_t>> send(int fd, std::span<const std::byte> data) {
  return transferred(retry([&] { return ::send(fd, data.data(), data.size(), MSG_NOSIGNAL); }), "send");
}

Result<std::optional<std::size_t>> send_parts(int fd, std::span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  return transferred(retry([&] { return ::sendmsg(fd, &message, MSG_NOSIGNAL); }), "sendmsg");
}

Result<void> shutdown_write(int fd) {
  if (::shutdown(fd, SHUT_WR) < 0) return fail_errno(errno, "shutdown");
  return {};
}

void close_with_reset(Fd& fd) {
  if (!fd) return;
  const linger now{1, 0};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) < 0) {
    // A broken connection must not look like one that ended: this resets at once, and needs no memory.
    const sockaddr nowhere{AF_UNSPEC, {}};
    ::connect(fd.get(), &nowhere, sizeof nowhere);
  }
  fd.reset();
}

Result<Endpoint> local_endpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return fail_errno(errno, "getsockname");
  return Endpoint::from_sockaddr(address);
}

Result<Endpoint> peer_endpoint(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return fail_errno(errno, "getpeername");
  return Endpoint::from_sockaddr(address);
}

int take_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return errno;
  return error;
}

Result<void> set_option(int fd, int level, int name, int value) {
  if (::setsockopt(fd, level, name, &value, sizeof value) < 0) return fail_errno(errno, "setsockopt");
  return {};
}

Result<int> get_option(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  if (::getsockopt(fd, level, name, &value, &length) < 0) return fail_errno(errno, "getsockopt");
  return value;
}

std::vector<Fd> take_descriptors(msghdr& message) {
  std::vector<Fd> all;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      all.emplace_back(fd);
    }
  }
  return all;
}

Result<void> enter_netns(int netns_fd) {
  if (::setns(netns_fd, CLONE_NEWNET) < 0) return fail_errno(errno, "setns");
  return {};
}

}  // namespace weft::sys
