// SPDX-License-Identifier: Apache-2.0
/// The failures themselves: that they come, come again the same, and are what a kernel may do.
#include "test/faults/injector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tunnel/base/sys.h"
#include "tunnel/loop/event_loop.h"

namespace weft::test {
namespace {

using testing::IsSupersetOf;

constexpr std::size_t kBytes = 400'000;

/// The calling thread's calls are disturbed while this lives.
class Entered {
 public:
  explicit Entered(FaultInjector& injector) : injector_(injector) { injector_.enter(); }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  ~Entered() { injector_.leave(); }

 private:
  FaultInjector& injector_;
};

std::vector<std::string> kinds(const FaultInjector& injector) {
  std::vector<std::string> out;
  for (const auto& [kind, count] : injector.counts()) out.push_back(kind);
  return out;
}

/// One end of a connection in an event loop, which goes by events alone.
struct Mover {
  Fd fd;
  loop::Watcher watcher;
  std::vector<std::byte> bytes;  ///< to send, or received
  std::size_t sent = 0;
  int error = 0;

  void send() {
    while (sent < bytes.size()) {
      const auto n = sys::send(fd.get(), std::span(bytes).subspan(sent));
      if (!n) return void(error = n.error().errno_value);
      if (!n->has_value()) return;
      sent += **n;
    }
  }
  void receive() {
    std::array<std::byte, 4096> room;
    for (;;) {
      const auto n = sys::recv(fd.get(), room);
      if (!n) return void(error = n.error().errno_value);
      if (!n->has_value() || **n == 0) return;
      bytes.insert(bytes.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(**n));
      if (**n < room.size()) return;  // what comes later is a new event
    }
  }
};

/// Carries kBytes over a connection between two such ends.
void carry(FaultInjector& injector, Mover& from, Mover& to) {
  auto loop = loop::EventLoop::create().value();
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  from.fd = Fd(pair[0]);
  to.fd = Fd(pair[1]);
  for (std::size_t i = 0; i < kBytes; ++i) from.bytes.push_back(static_cast<std::byte>(i * 7 + i / 251));
  const Entered entered(injector);
  const auto watch = [&](Mover& mover, std::uint32_t events, void (Mover::*move)()) {
    auto watcher = loop->watch(mover.fd.get(), events, [&mover, move](std::uint32_t) { (mover.*move)(); });
    if (watcher) mover.watcher = std::move(*watcher);
  };
  watch(from, EPOLLOUT, &Mover::send);
  watch(to, EPOLLIN, &Mover::receive);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (to.bytes.size() < kBytes && from.error == 0 && to.error == 0 && std::chrono::steady_clock::now() < deadline) {
    loop->run_once(milliseconds(1000));
  }
  from.watcher.reset();
  to.watcher.reset();
}

TEST(FaultInjector, TransientFailuresCostNothingThatGoesByEvents) {
  std::vector<std::string> seen;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    FaultInjector injector(seed, 0, Harm::kTransient);
    Mover from, to;
    carry(injector, from, to);
    ASSERT_EQ(from.error, 0) << seed;
    ASSERT_EQ(to.error, 0) << seed;
    ASSERT_TRUE(from.bytes == to.bytes) << "seed " << seed << ": " << to.bytes.size() << " bytes arrived\n"
                                        << injector.trace();
    const auto kinds_here = kinds(injector);
    seen.insert(seen.end(), kinds_here.begin(), kinds_here.end());
  }
  EXPECT_THAT(seen, IsSupersetOf({"recv EAGAIN", "recv EINTR", "recv short", "send EAGAIN", "send EINTR", "send short",
                                  "epoll_wait EINTR", "epoll_wait short"}));
}

TEST(FaultInjector, ASeedDecidesTheSameAgain) {
  const auto trace = [](std::uint64_t seed, std::uint32_t role) {
    FaultInjector injector(seed, role, Harm::kAny);
    const Entered entered(injector);
    for (int i = 0; i < 300; ++i) (void)sys::socket(AF_INET, SOCK_STREAM);
    return injector.trace();
  };
  std::size_t differ = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    EXPECT_EQ(trace(seed, 0), trace(seed, 0));
    if (trace(seed, 0) != trace(seed, 1) && trace(seed, 0) != trace(seed + 1, 0)) ++differ;
  }
  EXPECT_GT(differ, 5U);
}

TEST(FaultInjector, OnlyTheThreadThatEnteredIsDisturbed) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    FaultInjector injector(seed, 0, Harm::kAny);
    { const Entered entered(injector); }
    for (int i = 0; i < 200; ++i) ASSERT_TRUE(sys::socket(AF_INET, SOCK_STREAM)) << seed;
    EXPECT_EQ(injector.trace(), "");
  }
}

TEST(FaultInjector, AConnectionThatIsTakenBackOrBrokenIsResetForItsPeer) {
  std::vector<std::string> seen;
  std::size_t taken_back = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    FaultInjector injector(seed, 0, Harm::kAny);
    auto listener = sys::socket(AF_INET, SOCK_STREAM).value();
    ASSERT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
    ASSERT_TRUE(sys::listen(listener.get(), 16));
    const Endpoint at = sys::local_endpoint(listener.get()).value();
    for (int i = 0; i < 20; ++i) {
      const Fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      const auto address = at.to_sockaddr();
      ASSERT_EQ(::connect(client.get(), address.get(), address.length), 0);
      const Endpoint local = sys::local_endpoint(client.get()).value();
      bool broken = false;
      {
        const Entered entered(injector);
        auto accepted = sys::accept(listener.get());
        while (accepted ? !accepted->has_value() : accepted.error().errno_value != ECONNABORTED) {
          accepted = sys::accept(listener.get());
        }
        if (!accepted) {
          broken = true;
          ++taken_back;
          EXPECT_EQ(injector.aborted().back(), local);
        } else {
          const auto sent = sys::send((*accepted)->fd.get(), std::as_bytes(std::span("x", 1)));
          broken = !sent && (sent.error().errno_value == ECONNRESET || sent.error().errno_value == EPIPE);
          if (!sent && !broken) continue;
        }
      }
      char byte = 0;
      const ssize_t got = ::recv(client.get(), &byte, 1, MSG_DONTWAIT);
      const int error = got < 0 ? errno : 0;
      EXPECT_EQ(error, broken ? ECONNRESET : 0) << seed;
    }
    const auto kinds_here = kinds(injector);
    seen.insert(seen.end(), kinds_here.begin(), kinds_here.end());
  }
  EXPECT_GT(taken_back, 0U);
  EXPECT_THAT(seen, IsSupersetOf({"accept EMFILE", "accept ENFILE", "accept ECONNABORTED", "accept EAGAIN",
                                  "accept EINTR", "send ECONNRESET", "send EPIPE", "send ENOBUFS", "send ENOMEM"}));
}

}  // namespace
}  // namespace weft::test
