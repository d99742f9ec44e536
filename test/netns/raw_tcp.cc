// SPDX-License-Identifier: Apache-2.0
#include "test/netns/raw_tcp.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace weft::test {
namespace {

constexpr timeval kTimeout{.tv_sec = 5, .tv_usec = 0};

void limit_time(const Fd& fd) {
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kTimeout, sizeof kTimeout);
}

[[noreturn]] void give_up(const char* what) { throw TestError(std::string(what) + ": " + std::strerror(errno)); }

}  // namespace

Fd listen_in(const Netns& netns, std::uint16_t port) {
  return run_in(netns, [port] {
    Fd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1, off = 0;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(port);
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0) give_up("bind");
    if (::listen(fd.get(), 1024) != 0) give_up("listen");
    limit_time(fd);
    return fd;
  });
}

Fd accept_from(const Fd& listener) {
  Fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) give_up("accept");
  limit_time(fd);
  return fd;
}

Dialled dial_in(const Netns& netns, const Endpoint& to) {
  return run_in(netns, [&to] {
    Dialled out{Fd(::socket(to.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0))};
    limit_time(out.fd);
    const auto address = to.to_sockaddr();
    if (::connect(out.fd.get(), address.get(), address.length) != 0) {
      out.error = errno;
      out.fd.reset();
    }
    return out;
  });
}

void send_all(const Fd& fd, const std::string& text) {
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t n = ::send(fd.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n < 0) give_up("send");
    sent += static_cast<std::size_t>(n);
  }
}

std::string read_some(const Fd& fd, std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t got = 0; got < bytes;) {
    const ssize_t n = ::recv(fd.get(), text.data() + got, bytes - got, 0);
    if (n <= 0) give_up(n == 0 ? "the stream ended early" : "recv");
    got += static_cast<std::size_t>(n);
  }
  return text;
}

std::string read_to_end(const Fd& fd) {
  std::string text;
  std::array<char, 65536> room{};
  for (;;) {
    const ssize_t n = ::recv(fd.get(), room.data(), room.size(), 0);
    if (n == 0) return text + "|end";
    if (n < 0 && errno == ECONNRESET) return text + "|reset";
    if (n < 0 && errno == EAGAIN) return text + "|silence";
    if (n < 0) return text + "|" + std::strerror(errno);
    text.append(room.data(), static_cast<std::size_t>(n));
  }
}

void shut_write(const Fd& fd) {
  if (::shutdown(fd.get(), SHUT_WR) != 0) give_up("shutdown");
}

void reset(Fd& fd) {
  const linger now{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  fd.reset();
}

}  // namespace weft::test
