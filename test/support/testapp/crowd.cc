// SPDX-License-Identifier: Apache-2.0
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <vector>

#include "test/support/testapp/many.h"
#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kLine = "crowd\n";

std::string milliseconds_since(Clock::time_point start) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start).count());
}

/// The client: one line and its echo on each connection make a round.
class Crowd {
 public:
  explicit Crowd(const CrowdOptions& options)
      : options_(options), peers_(static_cast<std::size_t>(options.connections)) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    epoll_ = Fd(::epoll_create1(EPOLL_CLOEXEC));
    watch(epoll_.get(), signals_.get(), EPOLLIN);
  }

  Exit run() {
    while (true) {
      while (begun_ < options_.connections && pending_ < options_.opening) open_one();
      if (begun_ == options_.connections) tell_when_done();
      if (closing_ && pending_ == 0) return ended_ == clean_ ? Exit::kOk : Exit::kReset;
      std::array<epoll_event, kEventsAtOnce> events;
      const int count = ::epoll_wait(epoll_.get(), events.data(), kEventsAtOnce, -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<std::size_t>(i)].data.fd;
        if (fd == signals_.get()) {
          take_signal();
        } else if (const auto found = by_fd_.find(fd); found != by_fd_.end()) {
          on_event(peers_[found->second]);
        }
      }
    }
  }

 private:
  struct Peer {
    Fd fd;
    bool connected = false;
    bool waits = false;  ///< a round, or its end, is not over
    std::size_t heard = 0;
    Clock::time_point since;
  };

  void open_one() {
    Peer& peer = peers_[static_cast<std::size_t>(begun_)];
    peer.fd =
        Fd(::socket(options_.to.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    peer.since = Clock::now();
    peer.waits = true;
    ++pending_;
    by_fd_[peer.fd.get()] = static_cast<std::size_t>(begun_++);
    const auto to = options_.to.to_sockaddr();
    if (!peer.fd || (::connect(peer.fd.get(), to.get(), to.length) != 0 && errno != EINPROGRESS)) {
      return failed(peer, errno);
    }
    watch(epoll_.get(), peer.fd.get(), EPOLLIN | EPOLLOUT | EPOLLET);
  }

  void on_event(Peer& peer) {
    if (!peer.connected) {
      int error = 0;
      socklen_t length = sizeof error;
      ::getsockopt(peer.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
      if (error != 0) return failed(peer, error);
      peer.connected = true;
      if (!say(peer)) return;
    }
    std::array<char, 256> room;
    while (true) {
      const ssize_t got = ::recv(peer.fd.get(), room.data(), room.size(), 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got < 0) return failed(peer, errno);
      if (got == 0) return over(peer, closing_ && peer.waits ? "clean" : "closed");
      peer.heard += static_cast<std::size_t>(got);
      if (peer.waits && !closing_ && peer.heard >= kLine.size()) {
        peer.heard = 0;
        round_over(peer);
      }
    }
  }

  bool say(Peer& peer) {
    if (::send(peer.fd.get(), kLine.data(), kLine.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(kLine.size()))
      return true;
    failed(peer, errno);
    return false;
  }
  void round_over(Peer& peer) {
    longest_ = std::max(longest_, Clock::now() - peer.since);
    peer.waits = false;
    --pending_;
    ++answered_;
  }
  void failed(Peer& peer, int error) {
    const Trouble trouble = trouble_of(error, "");
    over(peer, error == ECONNREFUSED ? "refused" : trouble.exit == Exit::kReset ? "reset" : "other");
  }
  void over(Peer& peer, const char* how) {
    if (peer.waits) {
      longest_ = std::max(longest_, Clock::now() - peer.since);
      --pending_;
    }
    peer.waits = false;
    ++ended_;
    if (how == std::string_view("clean")) ++clean_;
    ++ends_[how];
    by_fd_.erase(peer.fd.get());
    peer.fd.reset();
  }

  void take_signal() {
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) != sizeof info || pending_ > 0) return;
    told_ = false;
    answered_ = 0;
    longest_ = {};
    started_ = Clock::now();
    closing_ = info.ssi_signo == SIGTERM;
    what_ = closing_ ? "closed" : "echoed";
    for (Peer& peer : peers_) {
      if (!peer.fd) continue;
      peer.waits = true;
      peer.since = Clock::now();
      ++pending_;
      if (closing_) {
        ::shutdown(peer.fd.get(), SHUT_WR);
      } else {
        say(peer);
      }
    }
  }

  /// Once for each round.
  void tell_when_done() {
    if (told_ || pending_ > 0) return;
    told_ = true;
    std::string line = what_ + " connections=" + std::to_string(answered_);
    for (const auto& [how, count] : ends_) line += " " + how + "=" + std::to_string(count);
    const auto longest = std::chrono::duration_cast<std::chrono::milliseconds>(longest_).count();
    print(line + " ms=" + milliseconds_since(started_) + " longest_ms=" + std::to_string(longest));
  }

  const CrowdOptions options_;
  Fd epoll_, signals_;
  std::vector<Peer> peers_;
  std::map<int, std::size_t> by_fd_;
  std::map<std::string, int> ends_;  ///< of connections, by how
  std::string what_ = "opened";
  Clock::time_point started_ = Clock::now();
  Clock::duration longest_{};
  int begun_ = 0, pending_ = 0, answered_ = 0, ended_ = 0, clean_ = 0;
  bool told_ = false, closing_ = false;
};

/// The server's part of one connection: what comes goes back, and its end too.
bool echo_once(int fd) {
  std::array<char, 4096> room;
  const ssize_t got = ::recv(fd, room.data(), room.size(), 0);
  if (got < 0) return errno == EAGAIN;
  return got > 0 && ::send(fd, room.data(), static_cast<std::size_t>(got), MSG_NOSIGNAL) == got;
}

}  // namespace

Exit crowd(const CrowdOptions& options) {
  raise_fd_limit();
  return Crowd(options).run();
}

Exit echo(std::uint16_t port) { return serve_many("echo", port, 65535, &echo_once); }

}  // namespace weft::testapp
