// SPDX-License-Identifier: Apache-2.0
#include "test/support/testapp/net.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace weft::testapp {
namespace {

timeval to_timeval(std::chrono::milliseconds time) {
  return {.tv_sec = time.count() / 1000, .tv_usec = (time.count() % 1000) * 1000};
}

Trouble from_errno(Exit exit, const std::string& doing) { return {exit, doing + ": " + std::strerror(errno)}; }

/// Sets one option; the text of the trouble names it.
template <class T>
std::optional<Trouble> set(int fd, int level, int name, const T& value, std::string_view called) {
  if (::setsockopt(fd, level, name, &value, sizeof value) == 0) return {};
  return from_errno(Exit::kError, "set " + std::string(called));
}

std::optional<Trouble> apply(int fd, const DialOptions& options) {
  const bool v4 = options.to.address.is_v4();
  if (options.mark != 0) {
    if (auto t = set(fd, SOL_SOCKET, SO_MARK, options.mark, "SO_MARK (needs CAP_NET_ADMIN or CAP_NET_RAW)")) return t;
  }
  if (options.transparent) {
    if (auto t = set(fd, v4 ? SOL_IP : SOL_IPV6, v4 ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1, "IP_TRANSPARENT")) return t;
  }
  if (!options.ip_options.empty() && ::setsockopt(fd, SOL_IP, IP_OPTIONS, options.ip_options.data(),
                                                  static_cast<socklen_t>(options.ip_options.size())) != 0) {
    return from_errno(Exit::kError, "set IP_OPTIONS");
  }
  if (options.from) {
    if (auto t = set(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR")) return t;
    const auto address = options.from->to_sockaddr();
    if (::bind(fd, address.get(), address.length) != 0) {
      return from_errno(Exit::kError, "bind " + options.from->to_string());
    }
  }
  return {};
}

/// Waits for a connect under way; unset when the connection stands.
std::optional<Trouble> await_connect(int fd, const DialOptions& options) {
  const std::string doing = "connect " + options.to.to_string();
  pollfd poll_fd{.fd = fd, .events = POLLOUT, .revents = 0};
  const int ready = ::poll(&poll_fd, 1, static_cast<int>(options.connect_timeout.count()));
  if (ready == 0) return Trouble{Exit::kConnectTimeout, doing + ": timed out"};
  if (ready < 0) return from_errno(Exit::kError, doing);
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) return {};
  errno = error;
  if (error == ECONNREFUSED) return from_errno(Exit::kRefused, doing);
  return from_errno(error == ETIMEDOUT ? Exit::kConnectTimeout : Exit::kError, doing);
}

}  // namespace

Dialled dial(const DialOptions& options) {
  const auto address = options.to.to_sockaddr();
  Dialled result;
  result.fd = Fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int fd = result.fd.get();
  if (fd < 0) {
    result.trouble = from_errno(Exit::kError, "socket");
    return result;
  }
  result.trouble = apply(fd, options);
  if (result.trouble) return result;
  if (::connect(fd, address.get(), address.length) != 0) {
    if (errno != EINPROGRESS) {
      result.trouble =
          from_errno(errno == ECONNREFUSED ? Exit::kRefused : Exit::kError, "connect " + options.to.to_string());
      return result;
    }
    result.trouble = await_connect(fd, options);
    if (result.trouble) return result;
  }
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  const timeval timeout = to_timeval(options.answer_timeout);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  const int one = 1;
  ::setsockopt(fd, SOL_TCP, TCP_NODELAY, &one, sizeof one);
  return result;
}

Result<Fd> listen_on(const std::optional<IpAddress>& address, std::uint16_t port, int backlog) {
  int family = address && address->is_v4() ? AF_INET : AF_INET6;
  Fd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd && errno == EAFNOSUPPORT && !address) {
    family = AF_INET;
    fd = Fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  }
  if (!fd) return fail_errno(errno, "open a listening socket");
  const int one = 1;
  const int zero = 0;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (family == AF_INET6 && !address) ::setsockopt(fd.get(), SOL_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  sockaddr_storage any{};
  any.ss_family = static_cast<sa_family_t>(family);
  // The port stands at the same place in sockaddr_in and sockaddr_in6.
  reinterpret_cast<sockaddr_in*>(&any)->sin_port = htons(port);
  Endpoint::Sockaddr where{any, static_cast<socklen_t>(family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6))};
  if (address) where = Endpoint{*address, port}.to_sockaddr();
  if (::bind(fd.get(), where.get(), where.length) != 0 || ::listen(fd.get(), backlog) != 0) {
    return fail_errno(errno, "listen on port " + std::to_string(port));
  }
  return fd;
}

Trouble trouble_of(int errno_value, std::string_view doing) {
  Trouble trouble{Exit::kError, std::string(doing) + ": " + std::strerror(errno_value)};
  if (errno_value == ECONNRESET || errno_value == EPIPE) trouble.exit = Exit::kReset;
  if (errno_value == EAGAIN || errno_value == ETIMEDOUT) {
    trouble = {Exit::kAnswerTimeout, std::string(doing) + ": timed out"};
  }
  return trouble;
}

std::size_t Stream::receive(char* into, std::size_t size) {
  while (true) {
    const ssize_t got = ::recv(fd_.get(), into, size, 0);
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EINTR) continue;
    trouble_ = trouble_of(errno, "read");
    return 0;
  }
}

std::optional<std::string> Stream::line() {
  constexpr std::size_t kMaxLine = 64 * 1024;
  while (true) {
    if (const auto end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      if (!line.empty() && line.back() == '\r') line.pop_back();
      return line;
    }
    char block[4096];
    const std::size_t got = receive(block, sizeof block);
    if (got == 0) return {};
    buffer_.append(block, got);
    if (buffer_.size() > kMaxLine) {
      trouble_ = Trouble{Exit::kError, "read: a line of more than 64 KiB"};
      return {};
    }
  }
}

std::size_t Stream::read(char* into, std::size_t size) {
  if (buffer_.empty()) return receive(into, size);
  const std::size_t taken = std::min(size, buffer_.size());
  std::memcpy(into, buffer_.data(), taken);
  buffer_.erase(0, taken);
  return taken;
}

bool Stream::write(std::string_view data) {
  while (!data.empty()) {
    const ssize_t sent = ::send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      trouble_ = trouble_of(errno, "write");
      return false;
    }
    data.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void Stream::shutdown_write() { ::shutdown(fd_.get(), SHUT_WR); }

Endpoint Stream::local() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return Endpoint::from_sockaddr(address);
}

Endpoint Stream::peer() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return Endpoint::from_sockaddr(address);
}

void print(const std::string& line) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  std::fprintf(stdout, "%s\n", line.c_str());
  std::fflush(stdout);
}

}  // namespace weft::testapp
