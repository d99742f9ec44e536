// SPDX-License-Identifier: Apache-2.0
#include "agent/events.h"

#include <gmock/gmock.h>
#include <sys/eventfd.h>

#include <atomic>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

/// Written by the test, read by the log's thread.
class FakeSource final : public EventSource {
 public:
  FakeSource() : ready_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  [[nodiscard]] int fd() const override { return ready_.get(); }
  Result<void> read(const bpf::EventRing::Sink& sink) override {
    const std::lock_guard lock(mutex_);
    ++reads_;
    eventfd_t ignored = 0;
    ::eventfd_read(ready_.get(), &ignored);
    if (broken_) return fail(ErrorCode::kInternal, "broken");
    for (const auto& event : events_) sink(event);
    events_.clear();
    return {};
  }
  Result<void> listen_until(SteadyTime time) override {
    const std::lock_guard lock(mutex_);
    until_ = time;
    return {};
  }
  [[nodiscard]] Result<std::uint64_t> lost() const override {
    const std::lock_guard lock(mutex_);
    return lost_;
  }

  void write(std::vector<bpf::Event> events, std::uint64_t lost = 0) {
    const std::lock_guard lock(mutex_);
    for (auto& event : events) events_.push_back(event);
    lost_ += lost;
    ::eventfd_write(ready_.get(), 1);
  }
  void break_it() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    ::eventfd_write(ready_.get(), 1);
  }
  [[nodiscard]] SteadyTime until() const {
    const std::lock_guard lock(mutex_);
    return until_;
  }
  [[nodiscard]] int reads() const {
    const std::lock_guard lock(mutex_);
    return reads_;
  }

 private:
  Fd ready_;
  mutable std::mutex mutex_;
  std::vector<bpf::Event> events_;
  std::uint64_t lost_ = 0;
  SteadyTime until_;
  int reads_ = 0;
  bool broken_ = false;
};

/// Of the machine, but for what the test adds. Thread-safe.
class ShiftedClock final : public Clock {
 public:
  [[nodiscard]] SteadyTime now() const override { return Clock::real().now() + milliseconds(added_.load()); }
  [[nodiscard]] WallTime wall_now() const override { return Clock::real().wall_now(); }
  void advance(milliseconds by) { added_ += by.count(); }

 private:
  std::atomic<std::int64_t> added_{0};
};

class EventLogTest : public ::testing::Test {
 protected:
  EventLogTest() {
    auto source = std::make_unique<FakeSource>();
    source_ = source.get();
    log_ = std::make_unique<EventLog>(
        std::move(source),
        [this] {
          const std::lock_guard lock(mutex_);
          return names_;
        },
        clock_);
  }
  [[nodiscard]] bpf::Event event(std::uint8_t flags, std::optional<std::uint32_t> slot = 0) const {
    bpf::Event event;
    event.time = clock_.now();
    event.tcp_flags = flags;
    event.slot = slot;
    return event;
  }
  EventAnswer ask(std::optional<std::uint64_t> after, milliseconds wait = EventLog::kMaxWait) {
    auto answer = log_->query({.after = after, .wait = wait});
    EXPECT_TRUE(answer) << answer.error().message();
    return answer ? *answer : EventAnswer();
  }
  /// Asks until so many events have come.
  std::vector<LoggedEvent> gather(std::uint64_t after, std::size_t count) {
    std::vector<LoggedEvent> all;
    const SteadyTime deadline = Clock::real().now() + seconds(30);
    while (all.size() < count && Clock::real().now() < deadline) {
      EventAnswer answer = ask(after);
      EXPECT_EQ(answer.lost, 0U);
      after = answer.next;
      all.insert(all.end(), answer.events.begin(), answer.events.end());
    }
    return all;
  }

  ShiftedClock clock_;
  std::mutex mutex_;
  std::map<std::uint32_t, std::string> names_{{0, "shop/web"}};
  FakeSource* source_ = nullptr;
  std::unique_ptr<EventLog> log_;
};

TEST_F(EventLogTest, FollowsFromTheFirstQueryOn) {
  source_->write({event(1)});  // nobody has asked
  clock_.advance(milliseconds(1));
  const EventAnswer first = ask({}, milliseconds(0));
  EXPECT_THAT(first.events, IsEmpty());
  source_->write({event(2), event(3, 7), event(4, {})});
  const auto events = gather(first.next, 3);
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[0].event.tcp_flags, 2);
  EXPECT_EQ(events[0].pod, "shop/web");
  EXPECT_EQ(events[1].pod, "");
  EXPECT_EQ(events[2].pod, "");
  EXPECT_LT(std::chrono::abs(events[0].time - clock_.wall_now()), seconds(20));
  // Another one who begins now gets the next only.
  EXPECT_THAT(ask({}, milliseconds(0)).events, IsEmpty());
}

TEST_F(EventLogTest, AWaitingQueryIsAnsweredByTheNextEvent) {
  const std::uint64_t next = ask({}, milliseconds(0)).next;
  EventAnswer answer;
  std::thread waits([&] { answer = ask(next, EventLog::kMaxWait); });
  source_->write({event(1)});
  waits.join();
  EXPECT_THAT(answer.events, SizeIs(1));
  EXPECT_THAT(ask(answer.next, milliseconds(1)).events, IsEmpty());
}

TEST_F(EventLogTest, ProgramsWriteAndTheThreadReadsOnlyWhileSomebodyAsks) {
  ask({}, milliseconds(0));
  EXPECT_GT(source_->until(), clock_.now() + EventLog::kListen - seconds(4));
  source_->write({event(1)});
  gather(0, 1);
  clock_.advance(EventLog::kListen + milliseconds(1));
  EXPECT_LT(source_->until(), clock_.now());
  // Where it waits for the descriptor still it reads once more, and sleeps.
  const int before = source_->reads();
  for (int i = 0; i < 5; ++i) {
    source_->write({event(2)});
    const SteadyTime deadline = Clock::real().now() + milliseconds(50);
    while (source_->reads() <= before + 1 && Clock::real().now() < deadline) std::this_thread::yield();
  }
  EXPECT_LE(source_->reads(), before + 1);
  clock_.advance(milliseconds(1));
  // What it did not read was before anyone asked again.
  const std::uint64_t next = ask({}, milliseconds(0)).next;
  source_->write({event(9)});
  const auto events = gather(next, 1);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events.front().event.tcp_flags, 9);
}

TEST_F(EventLogTest, WhatIsPushedOutIsLost) {
  const std::uint64_t start = ask({}, milliseconds(0)).next;
  const std::size_t sent = EventLog::kKept + 10;
  std::uint64_t sequence = start;
  for (std::size_t i = 0; i < sent; ++i) source_->write({event(1)});
  while (sequence < start + sent) sequence = ask(sequence).next;
  EventAnswer late = ask(start);
  EXPECT_EQ(late.lost, 10U);
  EXPECT_THAT(late.events, SizeIs(EventLog::kMaxAnswer));
  EXPECT_EQ(late.next, start + 10 + EventLog::kMaxAnswer);
  late = ask(late.next);
  EXPECT_EQ(late.lost, 0U);
}

TEST_F(EventLogTest, WhatTheProgramsCouldNotWriteIsLostToo) {
  source_->write({}, 100);  // of an earlier agent
  const std::uint64_t start = ask({}, milliseconds(0)).next;
  source_->write({event(1)}, 5);
  std::uint64_t after = start, lost = 0;
  while (after < start + 6) {
    const EventAnswer answer = ask(after);
    after = answer.next;
    lost += answer.lost;
  }
  EXPECT_EQ(lost, 5U);
  source_->write({event(2)});
  const EventAnswer next = ask(after);
  EXPECT_EQ(next.lost, 0U);
  ASSERT_THAT(next.events, SizeIs(1));
  EXPECT_EQ(next.events.front().sequence, start + 7);
}

TEST_F(EventLogTest, AFollowerOfAnEarlierAgentGetsWhatThereIs) {
  const std::uint64_t start = ask({}, milliseconds(0)).next;
  source_->write({event(1)});
  gather(start, 1);
  const EventAnswer answer = ask(1'000'000);
  EXPECT_THAT(answer.events, SizeIs(1));
  EXPECT_EQ(answer.lost, 0U);
  EXPECT_EQ(answer.next, start + 1);
}

TEST_F(EventLogTest, TheLastEventsOfAPodThatHasGoneHaveItsName) {
  const std::uint64_t start = ask({}, milliseconds(0)).next;
  source_->write({event(1)});
  EXPECT_EQ(gather(start, 1).at(0).pod, "shop/web");
  {
    const std::lock_guard lock(mutex_);
    names_.clear();
  }
  clock_.advance(seconds(1));
  source_->write({event(2)});
  EXPECT_EQ(gather(start + 1, 1).at(0).pod, "shop/web");
  {
    const std::lock_guard lock(mutex_);
    names_[0] = "shop/new";
  }
  clock_.advance(seconds(1));
  source_->write({event(3)});
  EXPECT_EQ(gather(start + 2, 1).at(0).pod, "shop/new");
}

TEST_F(EventLogTest, FewMayWaitAtOnce) {
  const std::uint64_t next = ask({}, milliseconds(0)).next;
  std::atomic<std::size_t> refused = 0, answered = 0;
  std::vector<std::thread> waiting;
  for (std::size_t i = 0; i < EventLog::kMaxWaiting + 3; ++i) {
    waiting.emplace_back([&] {
      auto answer = log_->query({.after = next, .wait = EventLog::kMaxWait});
      ++(answer ? answered : refused);
      if (!answer) {
        EXPECT_EQ(answer.error().code, ErrorCode::kDenied);
      }
    });
  }
  const SteadyTime deadline = Clock::real().now() + seconds(30);
  while (refused < 3 && Clock::real().now() < deadline) std::this_thread::yield();
  source_->write({event(1)});
  for (auto& thread : waiting) thread.join();
  EXPECT_EQ(refused, 3U);
  EXPECT_EQ(answered, EventLog::kMaxWaiting);
}

TEST_F(EventLogTest, ItsEndAnswersWhoWaitsAndTurnsTheProgramsOff) {
  const std::uint64_t next = ask({}, milliseconds(0)).next;
  std::atomic<bool> ended = false;
  std::thread waits([&] {
    while (log_->query({.after = next, .wait = EventLog::kMaxWait})) {
    }
    ended = true;
  });
  log_->stop();
  EXPECT_EQ(log_->query({}).error().code, ErrorCode::kUnavailable);
  waits.join();
  EXPECT_TRUE(ended);
  EXPECT_EQ(source_->until(), SteadyTime());
}

TEST_F(EventLogTest, ASourceThatFailsIsTold) {
  const std::uint64_t next = ask({}, milliseconds(0)).next;
  source_->break_it();
  const SteadyTime deadline = Clock::real().now() + seconds(30);
  auto answer = log_->query({.after = next, .wait = EventLog::kMaxWait});
  while (answer && Clock::real().now() < deadline) {
    answer = log_->query({.after = next, .wait = EventLog::kMaxWait});
  }
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().message(), "broken");
}

}  // namespace
}  // namespace weft::agent
