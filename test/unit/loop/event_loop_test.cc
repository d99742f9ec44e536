// SPDX-License-Identifier: Apache-2.0
#include "tunnel/loop/event_loop.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace weft::loop {
namespace {

using ::testing::ElementsAre;

constexpr milliseconds kLong{10'000};

class EventLoopTest : public ::testing::Test {
 protected:
  EventLoopTest() : loop_(std::move(*EventLoop::create(clock_))) {}

  struct Pipe {
    Fd read, write;
    void send(const char* text) const { EXPECT_EQ(::write(write.get(), text, 1), 1); }
    void drain() const {
      std::array<char, 64> buffer;
      while (::read(read.get(), buffer.data(), buffer.size()) > 0) {
      }
    }
  };
  static Pipe make_pipe() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK), 0);
    return {Fd(fds[0]), Fd(fds[1])};
  }
  void turn() { loop_->run_once(milliseconds(0)); }

  FakeClock clock_;
  std::unique_ptr<EventLoop> loop_;
  std::vector<std::string> seen_;
};

// ---- timers

TEST_F(EventLoopTest, ATimerFiresWhenItsTimeHasCome) {
  Timer timer(*loop_);
  timer.arm(milliseconds(100), [this] { seen_.emplace_back("fired"); });
  clock_.advance(milliseconds(99));
  turn();
  EXPECT_THAT(seen_, ElementsAre());
  EXPECT_TRUE(timer.armed());
  clock_.advance(milliseconds(1));
  turn();
  EXPECT_THAT(seen_, ElementsAre("fired"));
  EXPECT_FALSE(timer.armed());
  clock_.advance(milliseconds(1000));
  turn();
  EXPECT_EQ(seen_.size(), 1U);
}

TEST_F(EventLoopTest, TimersFireInTheOrderOfTheirTimeThenOfTheirArming) {
  Timer a(*loop_), b(*loop_), c(*loop_);
  a.arm(milliseconds(20), [this] { seen_.emplace_back("a"); });
  b.arm(milliseconds(10), [this] { seen_.emplace_back("b"); });
  c.arm(milliseconds(20), [this] { seen_.emplace_back("c"); });
  clock_.advance(milliseconds(50));
  turn();
  EXPECT_THAT(seen_, ElementsAre("b", "a", "c"));
}

TEST_F(EventLoopTest, ACancelledOrDestroyedTimerDoesNotFire) {
  Timer cancelled(*loop_);
  cancelled.arm(milliseconds(10), [this] { seen_.emplace_back("cancelled"); });
  cancelled.cancel();
  EXPECT_FALSE(cancelled.armed());
  {
    Timer gone(*loop_);
    gone.arm(milliseconds(10), [this] { seen_.emplace_back("gone"); });
  }
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre());
}

TEST_F(EventLoopTest, ArmingAgainReplaces) {
  Timer timer(*loop_);
  timer.arm(milliseconds(10), [this] { seen_.emplace_back("first"); });
  timer.arm(milliseconds(20), [this] { seen_.emplace_back("second"); });
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre());
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre("second"));
}

TEST_F(EventLoopTest, CancelledTimersDoNotPileUp) {
  int fired = 0;
  Timer early(*loop_), late(*loop_), again(*loop_);
  late.arm(seconds(20), [&] { fired += 10; });
  early.arm(seconds(1), [&] { ++fired; });
  for (int i = 0; i < 10'000; ++i) {
    again.arm(seconds(900), [&] { fired += 100; });
    again.cancel();
    loop_->run_once(milliseconds(0));
  }
  EXPECT_LT(loop_->timers_kept(), 1100U);
  clock_.advance(seconds(2));
  loop_->run_once(milliseconds(0));
  EXPECT_EQ(fired, 1);
  clock_.advance(seconds(20));
  loop_->run_once(milliseconds(0));
  EXPECT_EQ(fired, 11);
}

TEST_F(EventLoopTest, AHandlerMayArmItsOwnTimer) {
  Timer timer(*loop_);
  timer.arm(milliseconds(10), [this, &timer] {
    seen_.emplace_back("first");
    timer.arm(milliseconds(10), [this] { seen_.emplace_back("second"); });
  });
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre("first"));
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre("first", "second"));
}

/// A timer armed for "at once" by a handler waits for the next turn, or a turn would never end.
TEST_F(EventLoopTest, AHandlerThatArmsForAtOnceDoesNotHoldTheTurn) {
  Timer timer(*loop_);
  int count = 0;
  std::function<void()> again = [&] {
    if (++count < 1000) timer.arm(milliseconds(0), again);
  };
  timer.arm(milliseconds(0), again);
  turn();
  EXPECT_EQ(count, 1);
  turn();
  EXPECT_EQ(count, 2);
}

TEST_F(EventLoopTest, AHandlerMayDestroyTimersThatAreDueInTheSameTurn) {
  Timer first(*loop_);
  auto second = std::make_unique<Timer>(*loop_);
  first.arm(milliseconds(10), [&] { second.reset(); });
  second->arm(milliseconds(10), [this] { seen_.emplace_back("second"); });
  clock_.advance(milliseconds(10));
  turn();
  EXPECT_THAT(seen_, ElementsAre());
}

TEST_F(EventLoopTest, TheLoopSleepsNoLongerThanTheNextTimer) {
  auto loop = std::move(*EventLoop::create());
  Timer timer(*loop);
  bool fired = false;
  timer.arm(milliseconds(20), [&] { fired = true; });
  const auto before = Clock::real().now();
  while (!fired) loop->run_once(kLong);
  EXPECT_GE(Clock::real().now() - before, milliseconds(20));
  EXPECT_LT(Clock::real().now() - before, kLong);
}

TEST_F(EventLoopTest, ATimerOutlivesItsLoopUnharmed) {
  auto loop = std::move(*EventLoop::create(clock_));
  Timer timer(*loop);
  timer.arm(milliseconds(10), [] {});
  loop.reset();
  EXPECT_FALSE(timer.armed());
}

// ---- watchers

TEST_F(EventLoopTest, AnEdgeIsToldOnce) {
  const Pipe pipe = make_pipe();
  const Watcher watcher = std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [this](std::uint32_t events) {
    EXPECT_NE(events & EPOLLIN, 0U);
    seen_.emplace_back("readable");
  }));
  turn();
  EXPECT_THAT(seen_, ElementsAre());
  pipe.send("x");
  turn();
  turn();
  EXPECT_THAT(seen_, ElementsAre("readable"));
  pipe.send("y");
  turn();
  EXPECT_EQ(seen_.size(), 2U);
}

TEST_F(EventLoopTest, ALevelIsToldWhileItLasts) {
  const Pipe pipe = make_pipe();
  const Watcher watcher = std::move(*loop_->watch(
      pipe.read.get(), EPOLLIN, [this](std::uint32_t) { seen_.emplace_back("r"); }, true));
  pipe.send("x");
  turn();
  turn();
  EXPECT_EQ(seen_.size(), 2U);
  pipe.drain();
  turn();
  EXPECT_EQ(seen_.size(), 2U);
}

TEST_F(EventLoopTest, ADestroyedWatcherIsNotCalled) {
  const Pipe pipe = make_pipe();
  {
    const Watcher watcher =
        std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [this](std::uint32_t) { seen_.emplace_back("r"); }));
    pipe.send("x");
  }
  turn();
  EXPECT_THAT(seen_, ElementsAre());
}

/// Both are ready in one turn, and the first to be called removes the other: its event is already fetched.
TEST_F(EventLoopTest, AWatcherRemovedInMidTurnIsNotCalled) {
  const Pipe a = make_pipe(), b = make_pipe();
  std::optional<Watcher> watch_a, watch_b;
  watch_a = std::move(*loop_->watch(a.read.get(), EPOLLIN, [&](std::uint32_t) {
    seen_.emplace_back("one");
    watch_b.reset();
  }));
  watch_b = std::move(*loop_->watch(b.read.get(), EPOLLIN, [&](std::uint32_t) {
    seen_.emplace_back("one");
    watch_a.reset();
  }));
  a.send("x");
  b.send("x");
  turn();
  EXPECT_THAT(seen_, ElementsAre("one"));
}

TEST_F(EventLoopTest, AWatcherMayRemoveItselfAndItsStateLivesUntilItReturns) {
  const Pipe pipe = make_pipe();
  std::optional<Watcher> watcher;
  auto value = std::make_shared<std::string>("alive");
  watcher = std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [&watcher, this, value](std::uint32_t) {
    watcher.reset();
    seen_.push_back(*value);
  }));
  pipe.send("x");
  turn();
  EXPECT_THAT(seen_, ElementsAre("alive"));
  EXPECT_EQ(value.use_count(), 1) << "the handler must be freed when the turn is over";
}

/// The number of a closed descriptor is given out again at once; the event of the old one must not reach the new one.
TEST_F(EventLoopTest, AReusedDescriptorNumberGetsNoOldEvents) {
  Pipe a = make_pipe();
  const Pipe b = make_pipe();
  std::optional<Watcher> watch_a, watch_b, watch_new;
  std::optional<Pipe> reused;
  const auto swap = [&](std::uint32_t) {
    seen_.emplace_back("one");
    if (watch_new) return;
    watch_a.reset();
    watch_b.reset();
    a.read.reset();
    reused = make_pipe();
    watch_new =
        std::move(*loop_->watch(reused->read.get(), EPOLLIN, [&](std::uint32_t) { seen_.emplace_back("new"); }));
  };
  watch_a = std::move(*loop_->watch(a.read.get(), EPOLLIN, swap));
  watch_b = std::move(*loop_->watch(b.read.get(), EPOLLIN, swap));
  a.send("x");
  b.send("x");
  turn();
  turn();
  EXPECT_THAT(seen_, ElementsAre("one"));
  reused->send("x");
  turn();
  EXPECT_THAT(seen_, ElementsAre("one", "new"));
}

TEST_F(EventLoopTest, AMovedWatcherKeepsWatching) {
  const Pipe pipe = make_pipe();
  Watcher first =
      std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [this](std::uint32_t) { seen_.emplace_back("r"); }));
  const Watcher second = std::move(first);
  pipe.send("x");
  turn();
  EXPECT_THAT(seen_, ElementsAre("r"));
}

TEST_F(EventLoopTest, WatchingABadDescriptorIsAnError) {
  const auto result = loop_->watch(-1, EPOLLIN, [](std::uint32_t) {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().errno_value, EBADF);
}

// ---- tasks

TEST_F(EventLoopTest, PostedTasksRunInOrder) {
  for (const char* name : {"a", "b", "c"}) loop_->post([this, name] { seen_.emplace_back(name); });
  turn();
  EXPECT_THAT(seen_, ElementsAre("a", "b", "c"));
}

TEST_F(EventLoopTest, ATaskPostedByATaskRunsInALaterTurn) {
  loop_->post([this] {
    seen_.emplace_back("outer");
    loop_->post([this] { seen_.emplace_back("inner"); });
  });
  turn();
  EXPECT_THAT(seen_, ElementsAre("outer"));
  turn();
  EXPECT_THAT(seen_, ElementsAre("outer", "inner"));
}

TEST_F(EventLoopTest, PostWakesTheSleepingLoopFromOtherThreads) {
  constexpr int kThreads = 4, kTasks = 2000;
  std::thread::id loop_thread;
  int ran = 0;
  bool elsewhere = false;
  std::thread runner([&] {
    loop_thread = std::this_thread::get_id();
    loop_->run();
  });
  std::vector<std::thread> posters;
  for (int t = 0; t < kThreads; ++t) {
    posters.emplace_back([&] {
      for (int i = 0; i < kTasks; ++i) {
        loop_->post([&] {
          elsewhere |= std::this_thread::get_id() != loop_thread;
          if (++ran == kThreads * kTasks) loop_->stop();
        });
      }
    });
  }
  for (auto& poster : posters) poster.join();
  runner.join();
  EXPECT_EQ(ran, kThreads * kTasks);
  EXPECT_FALSE(elsewhere);
}

TEST_F(EventLoopTest, StopWakesTheSleepingLoop) {
  std::thread runner([this] { loop_->run(); });
  loop_->stop();
  runner.join();
}

TEST_F(EventLoopTest, TasksThatNeverRanAreDestroyedWithTheLoop) {
  auto value = std::make_shared<int>(1);
  loop_->stop();
  loop_->post([value] { ADD_FAILURE() << "ran after stop"; });
  loop_.reset();
  EXPECT_EQ(value.use_count(), 1);
}

TEST_F(EventLoopTest, AtTurnEndRunsAfterAllEventsOfTheTurn) {
  const Pipe a = make_pipe(), b = make_pipe();
  const auto handler = [this](std::uint32_t) {
    seen_.emplace_back("event");
    if (seen_.size() == 1) loop_->at_turn_end([this] { seen_.emplace_back("end"); });
  };
  const Watcher watch_a = std::move(*loop_->watch(a.read.get(), EPOLLIN, handler));
  const Watcher watch_b = std::move(*loop_->watch(b.read.get(), EPOLLIN, handler));
  a.send("x");
  b.send("x");
  turn();
  EXPECT_THAT(seen_, ElementsAre("event", "event", "end"));
}

TEST_F(EventLoopTest, AtTurnEndRunsAfterTimersAndMayAskForMore) {
  Timer timer(*loop_);
  timer.arm(milliseconds(0), [this] { seen_.emplace_back("timer"); });
  loop_->post([this] {
    loop_->at_turn_end([this] {
      seen_.emplace_back("end");
      loop_->at_turn_end([this] { seen_.emplace_back("more"); });
    });
  });
  turn();
  EXPECT_THAT(seen_, ElementsAre("timer", "end", "more"));
}

TEST_F(EventLoopTest, NextTurnRunsAfterWhatIsReadyThenAndDoesNotSleep) {
  const Pipe pipe = make_pipe();
  const Watcher watcher =
      std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [this](std::uint32_t) { seen_.emplace_back("event"); }));
  loop_->post([this, &pipe] {
    loop_->next_turn([this] { seen_.emplace_back("next"); });
    pipe.send("x");
  });
  turn();
  loop_->run_once(kLong);
  EXPECT_EQ(seen_.back(), "next");
  EXPECT_THAT(seen_, ElementsAre("event", "next"));
}

// ---- bulk work

TEST_F(EventLoopTest, BulkWorkRunsOnceAfterWhatIsReadyAndDoesNotSleep) {
  const Pipe pipe = make_pipe();
  const Watcher watcher =
      std::move(*loop_->watch(pipe.read.get(), EPOLLIN, [this](std::uint32_t) { seen_.emplace_back("event"); }));
  BulkTask task;
  task.queue(*loop_, [this] { seen_.emplace_back("bulk"); });
  task.queue(*loop_, [this] { seen_.emplace_back("queued while it waits"); });
  EXPECT_TRUE(task.queued());
  pipe.send("x");
  loop_->run_once(kLong);
  EXPECT_THAT(seen_, ElementsAre("event", "bulk"));
  EXPECT_FALSE(task.queued());
}

TEST_F(EventLoopTest, BulkTasksTakeTurnsAndATurnTakesNoMoreThanItsTime) {
  BulkTask first, second;
  const auto work = [this](const char* name) {
    seen_.emplace_back(name);
    clock_.advance(milliseconds(1));
  };
  const std::function<void()> again = [&] {
    work("first");
    first.queue(*loop_, again);
  };
  first.queue(*loop_, again);
  second.queue(*loop_, [&] { work("second"); });
  turn();
  EXPECT_THAT(seen_, ElementsAre("first"));
  turn();
  turn();
  EXPECT_THAT(seen_, ElementsAre("first", "second", "first"));
}

TEST_F(EventLoopTest, ACancelledOrDestroyedBulkTaskDoesNotRun) {
  BulkTask cancelled;
  {
    BulkTask destroyed;
    destroyed.queue(*loop_, [this] { seen_.emplace_back("destroyed"); });
    cancelled.queue(*loop_, [this] { seen_.emplace_back("cancelled"); });
    cancelled.cancel();
  }
  turn();
  EXPECT_THAT(seen_, ElementsAre());
  cancelled.queue(*loop_, [this] { seen_.emplace_back("queued anew"); });
  turn();
  EXPECT_THAT(seen_, ElementsAre("queued anew"));
}

TEST_F(EventLoopTest, BulkWorkMayDestroyItsOwnTaskAndTheNext) {
  auto own = std::make_unique<BulkTask>();
  auto next = std::make_unique<BulkTask>();
  own->queue(*loop_, [this, &own, &next] {
    own.reset();
    next.reset();
    seen_.emplace_back("own");
  });
  next->queue(*loop_, [this] { seen_.emplace_back("next"); });
  turn();
  EXPECT_THAT(seen_, ElementsAre("own"));
}

TEST_F(EventLoopTest, ABulkTaskOutlivesItsLoopUnharmed) {
  BulkTask task;
  task.queue(*loop_, [this] { seen_.emplace_back("ran"); });
  loop_.reset();
  EXPECT_FALSE(task.queued());
  EXPECT_THAT(seen_, ElementsAre());
}

TEST_F(EventLoopTest, DeferredObjectsGoAtTheEndOfTheTurn) {
  struct Noted : Deferred {
    explicit Noted(std::vector<std::string>& to) : log(to) {}
    ~Noted() override { log.emplace_back("deleted"); }
    std::vector<std::string>& log;
  };
  loop_->post([this] {
    loop_->defer_delete(std::make_unique<Noted>(seen_));
    seen_.emplace_back("task");
  });
  loop_->post([this] { seen_.emplace_back("later task"); });
  turn();
  EXPECT_THAT(seen_, ElementsAre("task", "later task", "deleted"));
}

}  // namespace
}  // namespace weft::loop
