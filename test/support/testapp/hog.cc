// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "test/support/testapp/many.h"
#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

constexpr std::size_t kBlock = 64U << 10;
/// Connects that are under way at once.
constexpr int kOpening = 256;

Exit failed(const std::string& what) {
  print("error " + what + ": " + std::strerror(errno));
  return Exit::kError;
}

class Hog {
 public:
  explicit Hog(const HogOptions& options) : options_(options), block_(kBlock, 'h') {}

  Exit run() {
    while (true) {
      while (begun_ < options_.connections && begun_ - opened_ < kOpening) {
        if (!open_one()) return failed("connect");
      }
      std::array<epoll_event, kEventsAtOnce> events;
      const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsAtOnce, -1);
      for (int i = 0; i < count; ++i) {
        if (!write_to(events[static_cast<std::size_t>(i)].data.fd)) return failed("write");
      }
    }
  }

 private:
  bool open_one() {
    Fd fd(::socket(options_.to.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto to = options_.to.to_sockaddr();
    if (!fd || (::connect(fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)) return false;
    watch(epoll_.get(), fd.get(), EPOLLOUT);
    opening_.emplace(fd.get(), true);
    fds_.push_back(std::move(fd));
    ++begun_;
    return true;
  }
  /// One block for each that can take it, so that all get their turn.
  bool write_to(int fd) {
    if (opening_.erase(fd) > 0 && ++opened_ == options_.connections) {
      print("opened connections=" + std::to_string(opened_));
    }
    const ssize_t sent = ::send(fd, block_.data(), block_.size(), MSG_NOSIGNAL);
    return sent >= 0 || errno == EAGAIN;
  }

  const HogOptions options_;
  const std::string block_;
  const Fd epoll_{::epoll_create1(EPOLL_CLOEXEC)};
  std::vector<Fd> fds_;
  std::unordered_map<int, bool> opening_;
  int begun_ = 0, opened_ = 0;
};

}  // namespace

Exit hog(const HogOptions& options) {
  raise_fd_limit();
  return Hog(options).run();
}

Exit sink(std::uint16_t port) {
  std::vector<char> room(kBlock);
  return serve_many("sink", port, 4096, [&room](int fd) {
    const ssize_t got = ::recv(fd, room.data(), room.size(), 0);
    return got > 0 || (got < 0 && errno == EAGAIN);
  });
}

}  // namespace weft::testapp
