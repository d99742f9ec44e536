// SPDX-License-Identifier: Apache-2.0
#include "test/support/testapp/many.h"

#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace weft::testapp {

void raise_fd_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void watch(int epoll, int fd, std::uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

Exit serve_many(const std::string& name, std::uint16_t port, int backlog, const std::function<bool(int)>& on_readable) {
  raise_fd_limit();
  auto listener = listen_on(std::nullopt, port, backlog);
  if (!listener) {
    print("error " + listener.error().message());
    return Exit::kError;
  }
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  watch(epoll.get(), listener->get(), EPOLLIN);
  print("serving " + name + " port=" + std::to_string(port));
  while (true) {
    std::array<epoll_event, kEventsAtOnce> events;
    const int count = ::epoll_wait(epoll.get(), events.data(), kEventsAtOnce, -1);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<std::size_t>(i)].data.fd;
      if (fd == listener->get()) {
        const int accepted = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (accepted >= 0) watch(epoll.get(), accepted, EPOLLIN);
      } else if (!on_readable(fd)) {
        ::close(fd);
      }
    }
  }
}

}  // namespace weft::testapp
