// SPDX-License-Identifier: Apache-2.0
// Errors, clocks, descriptors and socket calls.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cerrno>
#include <csignal>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/sys.h"

namespace weft {
namespace {

TEST(Error, MessageHasContextAndCause) {
  EXPECT_EQ(Failure(fail(ErrorCode::kInvalid, "port 0: not a port")).value().message(), "port 0: not a port");
  EXPECT_EQ(Failure(fail_errno(ECONNREFUSED, "connect 10.0.0.7:15008")).value().message(),
            "connect 10.0.0.7:15008: Connection refused");
}

TEST(Error, CodeFollowsErrno) {
  const auto code = [](int value) { return Failure(fail_errno(value, "x")).value().code; };
  EXPECT_EQ(code(ENOENT), ErrorCode::kNotFound);
  EXPECT_EQ(code(ENODEV), ErrorCode::kNotFound);
  EXPECT_EQ(code(EPERM), ErrorCode::kDenied);
  EXPECT_EQ(code(EACCES), ErrorCode::kDenied);
  EXPECT_EQ(code(ETIMEDOUT), ErrorCode::kTimeout);
  EXPECT_EQ(code(ECONNREFUSED), ErrorCode::kUnavailable);
  EXPECT_EQ(code(EHOSTUNREACH), ErrorCode::kUnavailable);
  EXPECT_EQ(code(EOPNOTSUPP), ErrorCode::kUnsupported);
  EXPECT_EQ(code(EAFNOSUPPORT), ErrorCode::kUnsupported);
  EXPECT_EQ(code(EIO), ErrorCode::kInternal);
}

TEST(Error, AnExcerptIsShortAndPrintable) {
  EXPECT_EQ(excerpt("web.shop"), "web.shop");
  EXPECT_EQ(excerpt("a\nb\x7f\xc3\xa4"), "a?b???");
  EXPECT_EQ(excerpt(std::string(80, 'a')), std::string(80, 'a'));
  EXPECT_EQ(excerpt(std::string(81, 'a')), std::string(80, 'a') + "...");
  EXPECT_EQ(excerpt("abc", 2), "ab...");
}

TEST(Error, ResultHoldsEither) {
  Result<int> good = 7;
  ASSERT_TRUE(good);
  EXPECT_EQ(*good, 7);
  Result<int> bad = fail(ErrorCode::kTimeout, "late");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(bad.error().errno_value, 0);
}

TEST(Clock, FakeMovesOnlyWhenTold) {
  FakeClock clock;
  const auto steady = clock.now();
  const auto wall = clock.wall_now();
  EXPECT_EQ(clock.now(), steady);
  clock.advance(milliseconds(1500));
  EXPECT_EQ(clock.now() - steady, milliseconds(1500));
  EXPECT_EQ(clock.wall_now() - wall, milliseconds(1500));
}

TEST(Clock, RealMovesForward) {
  const auto before = Clock::real().now();
  while (Clock::real().now() == before) {
  }
  EXPECT_GT(Clock::real().now(), before);
  EXPECT_GT(Clock::real().wall_now().time_since_epoch(), seconds(1'700'000'000));
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(Fd, ClosesAtTheEndOfItsLife) {
  int number = -1;
  {
    const Fd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(fd);
    number = fd.get();
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, MovesAndReleases) {
  Fd a(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  Fd b(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int first = a.get(), second = b.get();
  b = std::move(a);
  EXPECT_FALSE(is_open(second));
  EXPECT_EQ(b.get(), first);
  EXPECT_FALSE(a.valid());  // NOLINT(bugprone-use-after-move): that is what is tested
  const int released = b.release();
  EXPECT_EQ(released, first);
  EXPECT_FALSE(b);
  EXPECT_TRUE(is_open(released));
  b.reset(released);
  b.reset();
  EXPECT_FALSE(is_open(released));
}

// ---- socket calls, over loopback

class SysTest : public ::testing::Test {
 protected:
  static void wait_for(int fd, short events) {
    pollfd p{fd, events, 0};
    ASSERT_EQ(::poll(&p, 1, 10'000), 1);
  }
  Fd listen() {
    Fd fd = std::move(*sys::socket(AF_INET, SOCK_STREAM));
    EXPECT_TRUE(sys::bind(fd.get(), Endpoint::parse("127.0.0.1:0")->to_sockaddr()));
    EXPECT_TRUE(sys::listen(fd.get(), 8));
    return fd;
  }
  /// Connects to `listener`, and gives both ends back.
  std::pair<Fd, Fd> connected(const Fd& listener) {
    Fd client = std::move(*sys::socket(AF_INET, SOCK_STREAM));
    EXPECT_TRUE(sys::connect(client.get(), sys::local_endpoint(listener.get())->to_sockaddr()));
    wait_for(client.get(), POLLOUT);
    EXPECT_EQ(sys::take_error(client.get()), 0);
    wait_for(listener.get(), POLLIN);
    auto accepted = sys::accept(listener.get());
    EXPECT_EQ((*accepted)->peer, *sys::local_endpoint(client.get()));
    return {std::move(client), std::move((*accepted)->fd)};
  }
};

TEST_F(SysTest, SocketsAreNonBlockingAndCloseOnExec) {
  const Fd listener = listen();
  const auto [client, server] = connected(listener);
  for (const int fd : {listener.get(), client.get(), server.get()}) {
    EXPECT_NE(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST_F(SysTest, NothingThereIsEmptyNotAnError) {
  const Fd listener = listen();
  const auto none = sys::accept(listener.get());
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
  const auto [client, server] = connected(listener);
  std::array<std::byte, 16> buffer{};
  const auto nothing = sys::recv(client.get(), buffer);
  ASSERT_TRUE(nothing);
  EXPECT_FALSE(nothing->has_value());
}

TEST_F(SysTest, DataHalfCloseAndEndOfStream) {
  const Fd listener = listen();
  const auto [client, server] = connected(listener);
  const std::array<std::byte, 3> data = {std::byte{'a'}, std::byte{'b'}, std::byte{'c'}};
  EXPECT_EQ(**sys::send(client.get(), data), 3U);
  const iovec parts[] = {{const_cast<std::byte*>(data.data()), 2}, {const_cast<std::byte*>(data.data()), 3}};
  EXPECT_EQ(**sys::send_parts(client.get(), parts), 5U);
  ASSERT_TRUE(sys::shutdown_write(client.get()));
  std::array<std::byte, 64> buffer{};
  std::size_t got = 0;
  while (true) {
    wait_for(server.get(), POLLIN);
    const auto n = sys::recv(server.get(), std::span(buffer).subspan(got));
    ASSERT_TRUE(n);
    ASSERT_TRUE(n->has_value());
    if (**n == 0) break;
    got += **n;
  }
  EXPECT_EQ(got, 8U);
  EXPECT_EQ(*sys::peer_endpoint(server.get()), *sys::local_endpoint(client.get()));
}

TEST_F(SysTest, AFullSocketTakesNothing) {
  const Fd listener = listen();
  const auto [client, server] = connected(listener);
  const std::vector<std::byte> block(1 << 16);
  std::optional<std::size_t> taken = 1;
  for (int i = 0; i < 10'000 && taken; ++i) {
    const auto sent = sys::send(client.get(), block);
    ASSERT_TRUE(sent);
    taken = *sent;
  }
  EXPECT_FALSE(taken.has_value());
}

TEST_F(SysTest, AClosedPeerIsAnErrorAndNoSignal) {
  const Fd listener = listen();
  auto [client, server] = connected(listener);
  // With data unread the close sends a reset.
  const std::array<std::byte, 1> data{};
  ASSERT_TRUE(sys::send(client.get(), data));
  wait_for(server.get(), POLLIN);
  server.reset();
  wait_for(client.get(), POLLHUP);
  const auto sent = sys::send(client.get(), data);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, ErrorCode::kUnavailable);
}

TEST_F(SysTest, ConnectRefusedNamesTheAddress) {
  Fd listener = listen();
  const Endpoint gone = *sys::local_endpoint(listener.get());
  listener.reset();
  const Fd client = std::move(*sys::socket(AF_INET, SOCK_STREAM));
  const auto result = sys::connect(client.get(), gone.to_sockaddr());
  if (result) {
    wait_for(client.get(), POLLOUT);
    EXPECT_EQ(sys::take_error(client.get()), ECONNREFUSED);
  } else {
    EXPECT_EQ(result.error().message(), "connect " + gone.to_string() + ": Connection refused");
  }
}

TEST_F(SysTest, BindInUseNamesTheAddress) {
  const Fd listener = listen();
  const Endpoint taken = *sys::local_endpoint(listener.get());
  const Fd other = std::move(*sys::socket(AF_INET, SOCK_STREAM));
  const auto bound = sys::bind(other.get(), taken.to_sockaddr());
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().message(), "bind " + taken.to_string() + ": Address already in use");
}

TEST_F(SysTest, Options) {
  const Fd fd = std::move(*sys::socket(AF_INET, SOCK_STREAM));
  ASSERT_TRUE(sys::set_option(fd.get(), SOL_SOCKET, SO_KEEPALIVE, 1));
  EXPECT_EQ(*sys::get_option(fd.get(), SOL_SOCKET, SO_KEEPALIVE), 1);
  EXPECT_FALSE(sys::set_option(-1, SOL_SOCKET, SO_KEEPALIVE, 1));
}

}  // namespace
}  // namespace weft
