// SPDX-License-Identifier: Apache-2.0
/// What a listener does when descriptors run out.
#include "tunnel/proxy/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <vector>

namespace weft::proxy {
namespace {

class ListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    Fd fd = std::move(*sys::socket(AF_INET6, SOCK_STREAM));
    ASSERT_TRUE(sys::bind(fd.get(), Endpoint{*IpAddress::parse("::1"), 0}.to_sockaddr()));
    ASSERT_TRUE(sys::listen(fd.get(), 64));
    at_ = *sys::local_endpoint(fd.get());
    listener_ = std::make_unique<Listener>(gate_, starts_, std::move(fd), [this](Captured captured) {
      spared_ += captured.spare ? 1 : 0;
      EXPECT_EQ(captured.broken, "");
      if (!captured.spare || keep_spare_) taken_.push_back(std::move(captured));
    });
  }
  void TearDown() override { ::setrlimit(RLIMIT_NOFILE, &before_); }

  void connect(int count) {
    for (int i = 0; i < count; ++i) {
      clients_.push_back(std::move(*sys::socket(AF_INET6, SOCK_STREAM)));
      ASSERT_TRUE(sys::connect(clients_.back().get(), at_.to_sockaddr()));
    }
  }
  /// No descriptor can be opened from now on.
  void use_up_descriptors() {
    const Fd next(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    rlimit limit = before_;
    limit.rlim_cur = static_cast<rlim_t>(next.get());
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  void give_descriptors_back() { ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before_), 0); }
  /// Turns of the loop within this time.
  int turns_in(milliseconds time) {
    const auto until = std::chrono::steady_clock::now() + time;
    int turns = 0;
    for (; std::chrono::steady_clock::now() < until; ++turns) loop_->run_once(milliseconds(20));
    return turns;
  }

  rlimit before_{};
  std::unique_ptr<loop::EventLoop> loop_ = std::move(*loop::EventLoop::create());
  Limits limits_;
  AcceptGate gate_{*loop_, limits_};
  loop::StartQueue starts_{*loop_};
  std::vector<Captured> taken_;
  int spared_ = 0;
  bool keep_spare_ = false;  ///< as if another thread had been faster
  std::unique_ptr<Listener> listener_;
  Endpoint at_;
  std::vector<Fd> clients_;
};

TEST_F(ListenerTest, TakesWhatComesInOrder) {
  connect(10);
  while (taken_.size() < 10) loop_->run_once(milliseconds(1000));
  for (std::size_t i = 0; i < taken_.size(); ++i) {
    EXPECT_EQ(taken_[i].peer, *sys::local_endpoint(clients_[i].get()));
    EXPECT_EQ(taken_[i].local, at_);
    EXPECT_EQ(taken_[i].listener, at_);
  }
  EXPECT_EQ(limits_.accept_pauses(), 0U);
  EXPECT_LT(turns_in(milliseconds(200)), 15) << "where nothing comes it sleeps";
}

TEST_F(ListenerTest, WithoutDescriptorsEachIsTakenByTheReserveAndSentAway) {
  connect(20);
  use_up_descriptors();
  while (spared_ < 20) loop_->run_once(milliseconds(1000));
  EXPECT_TRUE(taken_.empty());
  EXPECT_EQ(limits_.accept_pauses(), 0U);
  EXPECT_LT(turns_in(milliseconds(200)), 15);
  give_descriptors_back();
  connect(1);
  while (taken_.empty()) loop_->run_once(milliseconds(1000));
  EXPECT_EQ(spared_, 20);
}

TEST_F(ListenerTest, WithoutAReserveItWaitsAndSpinsNot) {
  keep_spare_ = true;
  connect(5);
  use_up_descriptors();
  while (limits_.accept_pauses() == 0) loop_->run_once(milliseconds(1000));
  EXPECT_EQ(spared_, 1);
  // Connections wait all the time, and somebody looks forty times a second.
  EXPECT_LT(turns_in(milliseconds(500)), 60);
  EXPECT_EQ(limits_.accept_pauses(), 1U);
  EXPECT_EQ(taken_.size(), 1U);
  give_descriptors_back();
  while (taken_.size() < 5) loop_->run_once(milliseconds(1000));
  EXPECT_EQ(spared_, 1);
}

TEST_F(ListenerTest, WhileItIsHeldItTakesNothingAndLosesNothing) {
  listener_->hold();
  connect(3);
  turns_in(AcceptGate::kLookAgain * 2);
  EXPECT_TRUE(taken_.empty());
  listener_->go_on();
  while (taken_.size() < 3) loop_->run_once(milliseconds(1000));
}

TEST_F(ListenerTest, HeldWhileItRestsItStaysSo) {
  keep_spare_ = true;
  connect(3);
  use_up_descriptors();
  while (limits_.accept_pauses() == 0) loop_->run_once(milliseconds(1000));
  listener_->hold();
  give_descriptors_back();
  turns_in(AcceptGate::kLookAgain * 4);
  EXPECT_EQ(taken_.size(), 1U);
  listener_->accept_waiting();
  EXPECT_EQ(taken_.size(), 3U);
}

TEST_F(ListenerTest, AListenerThatGoesWhileItRestsIsForgotten) {
  keep_spare_ = true;
  connect(3);
  use_up_descriptors();
  while (limits_.accept_pauses() == 0) loop_->run_once(milliseconds(1000));
  listener_.reset();
  give_descriptors_back();
  turns_in(AcceptGate::kLookAgain * 2);
  EXPECT_EQ(taken_.size(), 1U);
}

}  // namespace
}  // namespace weft::proxy
