// SPDX-License-Identifier: Apache-2.0
#include "tunnel/loop/start_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "tunnel/loop/event_loop.h"

namespace weft::loop {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StartQueueTest : public ::testing::Test {
 protected:
  void turn() { loop_->run_once(milliseconds(0)); }
  /// Work that takes a turn's whole time.
  std::function<void()> long_work(const char* name) {
    return [this, name] {
      seen_.emplace_back(name);
      clock_.advance(milliseconds(1));
    };
  }

  FakeClock clock_;
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create(clock_));
  std::vector<std::string> seen_;
};

TEST_F(StartQueueTest, WorkRunsInTheTurnThatAskedForItAndInItsOrder) {
  StartQueue pod(*loop_);
  StartTask first, second;
  loop_->post([&] {
    first.queue(pod, [this] { seen_.emplace_back("first"); });
    first.queue(pod, [this] { seen_.emplace_back("queued while it waits"); });
    second.queue(pod, [this] { seen_.emplace_back("second"); });
    seen_.emplace_back("asked");
  });
  turn();
  EXPECT_THAT(seen_, ElementsAre("asked", "first", "second"));
  EXPECT_FALSE(first.queued());
}

TEST_F(StartQueueTest, PartiesTakeTurnsHoweverMuchOneBegins) {
  StartQueue greedy(*loop_), modest(*loop_);
  std::vector<StartTask> many(3);
  StartTask one;
  for (auto& task : many) task.queue(greedy, long_work("greedy"));
  one.queue(modest, long_work("modest"));
  turn();
  EXPECT_THAT(seen_, ElementsAre("greedy")) << "a turn takes no more than its time";
  for (int i = 0; i < 3; ++i) turn();
  EXPECT_THAT(seen_, ElementsAre("greedy", "modest", "greedy", "greedy"));
}

TEST_F(StartQueueTest, ATaskThatQueuesItselfAgainGoesBehindTheOthersOfItsParty) {
  StartQueue pod(*loop_);
  StartTask steps, other;
  int left = 2;
  const std::function<void()> step = [&] {
    long_work("step")();
    if (--left > 0) steps.queue(pod, step);
  };
  steps.queue(pod, step);
  other.queue(pod, long_work("other"));
  for (int i = 0; i < 4; ++i) turn();
  EXPECT_THAT(seen_, ElementsAre("step", "other", "step"));
}

TEST_F(StartQueueTest, WhileSomethingWaitsTheLoopDoesNotSleep) {
  StartQueue pod(*loop_);
  StartTask first, second;
  first.queue(pod, long_work("first"));
  second.queue(pod, long_work("second"));
  loop_->run_once(milliseconds(60'000));
  loop_->run_once(milliseconds(60'000));
  EXPECT_THAT(seen_, ElementsAre("first", "second"));
}

TEST_F(StartQueueTest, WhatIsCancelledOrDestroyedDoesNotRun) {
  StartQueue pod(*loop_);
  StartTask cancelled, kept;
  {
    StartQueue gone(*loop_);
    StartTask destroyed;
    destroyed.queue(pod, long_work("destroyed"));
    cancelled.queue(pod, long_work("cancelled"));
    kept.queue(gone, long_work("of a queue that is gone"));
    cancelled.cancel();
  }
  EXPECT_FALSE(kept.queued());
  turn();
  EXPECT_THAT(seen_, IsEmpty());
  kept.queue(pod, long_work("kept"));
  turn();
  EXPECT_THAT(seen_, ElementsAre("kept"));
}

TEST_F(StartQueueTest, WorkMayDestroyItsOwnTaskAndItsQueue) {
  auto pod = std::make_unique<StartQueue>(*loop_);
  auto own = std::make_unique<StartTask>();
  StartTask next;
  own->queue(*pod, [&] {
    own.reset();
    pod.reset();
    seen_.emplace_back("own");
  });
  next.queue(*pod, long_work("next"));
  turn();
  turn();
  EXPECT_THAT(seen_, ElementsAre("own"));
  EXPECT_FALSE(next.queued());
}

}  // namespace
}  // namespace weft::loop
