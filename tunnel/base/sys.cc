// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/sys.h"

#include <sched.h>

#include <array>
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

namespace {

/// Enough for the original destination and whatever else a socket has been told to say.
using Control = std::array<char, 256>;

Endpoint original_destination(msghdr& message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    const bool v4 = header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_ORIGDSTADDR;
    const bool v6 = header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_ORIGDSTADDR;
    if (!v4 && !v6) continue;
    sockaddr_storage address{};
    std::memcpy(&address, CMSG_DATA(header), v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6));
    return Endpoint::from_sockaddr(address);
  }
  return {};
}

/// As the only control message.
template <class Info>
void put_control(msghdr& message, Control& control, int level, int type, const Info& info) {
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(sizeof info);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = level;
  header->cmsg_type = type;
  header->cmsg_len = CMSG_LEN(sizeof info);
  std::memcpy(CMSG_DATA(header), &info, sizeof info);
}

}  // namespace

Result<std::optional<Datagram>> recv_datagram(int fd, std::span<std::byte> into) {
  sockaddr_storage source{};
  alignas(cmsghdr) Control control{};
  iovec part{into.data(), into.size()};
  msghdr message{};
  message.msg_name = &source;
  message.msg_namelen = sizeof source;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t n = retry([&] { return ::recvmsg(fd, &message, 0); });
  if (n >= 0) {
    return std::optional(
        Datagram{static_cast<std::size_t>(n), Endpoint::from_sockaddr(source), original_destination(message)});
  }
  if (would_block(errno)) return std::optional<Datagram>();
  return fail_errno(errno, "recvmsg");
}

Result<bool> send_datagram(int fd, std::span<const std::byte> data, const IpAddress& source, const Endpoint& to) {
  Endpoint::Sockaddr address = to.to_sockaddr();
  alignas(cmsghdr) Control control{};
  iovec part{const_cast<std::byte*>(data.data()), data.size()};
  msghdr message{};
  message.msg_name = &address.storage;
  message.msg_namelen = address.length;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (source.is_v4()) {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, source.bytes().data(), sizeof info.ipi_spec_dst);
    put_control(message, control, IPPROTO_IP, IP_PKTINFO, info);
  } else if (source.is_v6()) {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, source.bytes().data(), sizeof info.ipi6_addr);
    put_control(message, control, IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
  if (retry([&] { return ::sendmsg(fd, &message, MSG_NOSIGNAL); }) >= 0) return true;
  if (would_block(errno)) return false;
  return fail_errno(errno, "sendmsg to " + to.to_string());
}

Result<Pair> stream_pair() {
  int fds[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
    return fail_errno(errno, "socketpair");
  }
  return Pair{Fd(fds[0]), Fd(fds[1])};
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
