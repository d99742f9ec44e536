// SPDX-License-Identifier: Apache-2.0
/// A socket of an application, against the other end of a TCP connection on loopback.
#include "tunnel/proxy/app_socket.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>

#include "tunnel/base/sys.h"

namespace weft::proxy {
namespace {

constexpr std::chrono::seconds kSoon{10};

/// Reads whatever is there when it hears of it, as a pump does.
class Reader final : public AppSocketEvents {
 public:
  Reader(loop::EventLoop& loop, Fd fd) { EXPECT_TRUE(socket_.open(loop, std::move(fd), false, *this)); }
  void on_connected(const Error* /*error*/) override {}
  void on_readable() override {
    std::array<std::byte, 4096> room;
    while (socket_.readable()) {
      const auto got = socket_.read(room);
      ASSERT_TRUE(got) << got.error().message();
      text.append(reinterpret_cast<const char*>(room.data()), got->bytes);
      ended = ended || got->end;
    }
  }
  void on_flushed(std::size_t /*bytes*/) override {}
  void on_broken(const Error& error) override { ADD_FAILURE() << error.message(); }
  std::string text;
  bool ended = false;

 private:
  AppSocket socket_;
};

class AppSocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const Fd listener = sys::socket(AF_INET, SOCK_STREAM).value();
    ASSERT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
    ASSERT_TRUE(sys::listen(listener.get(), 1));
    const auto at = sys::local_endpoint(listener.get()).value().to_sockaddr();
    peer_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(peer_.get(), at.get(), at.length), 0);
    reader_.emplace(*loop_, std::move(sys::accept(listener.get()).value().value().fd));
  }
  void say(std::string_view text, int flags = 0) {
    ASSERT_EQ(::send(peer_.get(), text.data(), text.size(), flags), static_cast<ssize_t>(text.size()));
  }
  /// What was read by the time that so much was, or when it does not come.
  std::string read(std::size_t bytes) {
    const auto deadline = std::chrono::steady_clock::now() + kSoon;
    while (reader_->text.size() < bytes && std::chrono::steady_clock::now() < deadline) {
      loop_->run_once(milliseconds(100));
    }
    return reader_->text;
  }

  std::unique_ptr<loop::EventLoop> loop_ = loop::EventLoop::create().value();
  Fd peer_;
  std::optional<Reader> reader_;
};

/// A read ends where urgent data stands, although more is there.
TEST_F(AppSocketTest, WhatFollowsUrgentDataIsReadWithoutAnotherEvent) {
  say("before");
  say("!", MSG_OOB);
  say("after");
  EXPECT_EQ(read(11), "beforeafter");
  say("more");
  EXPECT_EQ(read(15), "beforeaftermore");
}

TEST_F(AppSocketTest, TheEndIsReadTogetherWithWhatIsBeforeIt) {
  say("all");
  ::shutdown(peer_.get(), SHUT_WR);
  EXPECT_EQ(read(3), "all");
  EXPECT_TRUE(reader_->ended);
}

/// Writes before its connect is done, and begins with something when it is.
class Writer final : public AppSocketEvents {
 public:
  explicit Writer(std::string begin) : begin_(std::move(begin)) {}
  void on_connected(const Error* error) override {
    ASSERT_EQ(error, nullptr) << error->message();
    socket.begin_with(std::as_bytes(std::span(begin_)));
  }
  void on_readable() override {}
  void on_flushed(std::size_t bytes) override { flushed += bytes; }
  void on_broken(const Error& error) override { ADD_FAILURE() << error.message(); }
  AppSocket socket;
  std::size_t flushed = 0;

 private:
  std::string begin_;
};

TEST(AppSocketBegin, GoesOutBeforeWhatWasWrittenEarlier) {
  const auto loop = loop::EventLoop::create().value();
  const Fd listener = sys::socket(AF_INET, SOCK_STREAM).value();
  ASSERT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
  ASSERT_TRUE(sys::listen(listener.get(), 1));
  Writer writer("header ");
  Fd fd = sys::socket(AF_INET, SOCK_STREAM).value();
  ASSERT_TRUE(sys::connect(fd.get(), sys::local_endpoint(listener.get()).value().to_sockaddr()));
  const std::string_view early = "early ", late = "late";
  // The stream brings bytes before there is a socket at all.
  EXPECT_EQ(writer.socket.write(std::as_bytes(std::span(early))).value(), 0U);
  ASSERT_TRUE(writer.socket.open(*loop, std::move(fd), true, writer));
  EXPECT_EQ(writer.socket.write(std::as_bytes(std::span(late))).value(), 0U);
  const auto deadline = std::chrono::steady_clock::now() + kSoon;
  while (writer.flushed < 17 && std::chrono::steady_clock::now() < deadline) loop->run_once(milliseconds(100));
  EXPECT_EQ(writer.flushed, 17U);
  const Fd peer = std::move(sys::accept(listener.get()).value().value().fd);
  std::array<char, 64> got{};
  const auto bytes = ::recv(peer.get(), got.data(), got.size(), 0);
  EXPECT_EQ(std::string(got.data(), static_cast<std::size_t>(std::max<ssize_t>(bytes, 0))), "header early late");
}

}  // namespace
}  // namespace weft::proxy
