// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/loop/start_queue.h"

namespace weft::loop {

class EventLoop;

/// What a connection may move in one go, in bytes: when an event is handled, and when it is its turn as a BulkTask.
inline constexpr std::size_t kLightQuantum = 16U << 10;
inline constexpr std::size_t kBulkQuantum = 128U << 10;

/// Something that one turn of the loop ended but that may still be on the call stack: deleted when the turn is over.
class Deferred {
 public:
  virtual ~Deferred() = default;
};

/// Watches one descriptor, edge-triggered: the handler is called once per change with the EPOLL* bits, so whoever gets
/// a "readable" reads until nothing is left or remembers that something is. One epoll_ctl for the descriptor's whole
/// life. RAII: destroying it stops the calls, also those of the turn that is running. Only on the loop's thread.
class Watcher {
 public:
  using Handler = std::function<void(std::uint32_t events)>;
  Watcher() = default;
  Watcher(Watcher&& other) noexcept;
  Watcher& operator=(Watcher&& other) noexcept;
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;
  ~Watcher();
  /// Stops watching; the descriptor must still be open.
  void reset();

 private:
  friend class EventLoop;
  struct Entry;
  Watcher(EventLoop* loop, Entry* entry) : loop_(loop), entry_(entry) {}
  EventLoop* loop_ = nullptr;
  Entry* entry_ = nullptr;
};

/// Calls back once at a time. RAII: destroying or re-arming cancels. Only on the loop's thread.
class Timer {
 public:
  explicit Timer(EventLoop& loop) : loop_(&loop) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { cancel(); }
  void arm(milliseconds after, std::function<void()> handler);
  void cancel();
  [[nodiscard]] bool armed() const { return entry_ != nullptr; }

 private:
  friend class EventLoop;
  struct Entry;
  EventLoop* loop_;
  Entry* entry_ = nullptr;
};

/// The rest of what was too much for one go (kLightQuantum): runs in a coming turn, after whatever else is ready then,
/// when it is its turn among all such tasks. One task moves at most kBulkQuantum; a turn takes as many as fit in a
/// quarter of a millisecond, so that whoever has little to say waits no longer than that, however many have much. RAII:
/// destroying it cancels. Only on the loop's thread.
class BulkTask {
 public:
  BulkTask() = default;
  BulkTask(const BulkTask&) = delete;
  BulkTask& operator=(const BulkTask&) = delete;
  ~BulkTask() { cancel(); }
  /// Does nothing while it waits already. `work` may queue it again, and may destroy it.
  void queue(EventLoop& loop, std::function<void()> work);
  void cancel();
  [[nodiscard]] bool queued() const { return place_.has_value(); }

 private:
  friend class EventLoop;
  EventLoop* loop_ = nullptr;
  std::function<void()> work_;
  std::optional<std::list<BulkTask*>::iterator> place_;
};

/// One thread's epoll loop. Everything but post() and stop() belongs to the thread that calls run().
class EventLoop {
 public:
  static Result<std::unique_ptr<EventLoop>> create(const Clock& clock = Clock::real());
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Watches for the EPOLL* bits in `events`; EPOLLET is added. Listeners pass level = true to be called while
  /// something waits. The caller keeps the descriptor open as long as the Watcher lives.
  Result<Watcher> watch(int fd, std::uint32_t events, Watcher::Handler handler, bool level = false);

  /// Runs `task` on the loop's thread in a coming turn, in the order of posting. From any thread. After stop() tasks
  /// are destroyed unrun.
  void post(std::function<void()> task);
  /// Runs `task` at the end of this turn, before the loop sleeps again: for work that many events of one turn ask for
  /// once.
  void at_turn_end(std::function<void()> task) { turn_end_.push_back(std::move(task)); }
  /// Runs `task` in the next turn, after whatever else is ready then.
  void next_turn(std::function<void()> task) { next_turn_.push_back(std::move(task)); }
  void defer_delete(std::unique_ptr<Deferred> object) { graveyard_.push_back(std::move(object)); }

  /// Until stop().
  void run();
  /// One turn: waits at most `max_wait` for something to do. For tests and for draining.
  void run_once(milliseconds max_wait);
  /// From any thread.
  void stop();

  [[nodiscard]] SteadyTime now() const { return clock_.now(); }
  /// Timers that are kept, cancelled ones included.
  [[nodiscard]] std::size_t timers_kept() const { return timers_.size(); }

 private:
  friend class Watcher;
  friend class Timer;
  friend class BulkTask;
  friend class StartQueue;
  friend class StartTask;
  explicit EventLoop(const Clock& clock);
  void remove(Watcher::Entry* entry);
  [[nodiscard]] int wait_ms(milliseconds max_wait);
  void run_timers();
  std::unique_ptr<Timer::Entry> take_timer();
  void drop_cancelled_timers();
  void run_posted();
  void run_starts();
  void run_bulk();
  void end_turn();

  struct TimerLater {
    bool operator()(const Timer::Entry* a, const Timer::Entry* b) const;
  };

  const Clock& clock_;
  Fd epoll_;
  Fd wakeup_;
  std::atomic<bool> stopping_{false};
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;
  std::vector<Timer::Entry*> timers_;  ///< a heap, the next one first
  std::size_t cancelled_timers_ = 0;   ///< entries that nobody waits for any more
  std::uint64_t timer_sequence_ = 0;
  std::vector<std::function<void()>> turn_end_;
  std::vector<std::function<void()>> next_turn_;
  std::list<StartQueue*> starting_;  ///< those that have tasks, the next one first
  std::list<BulkTask*> bulk_;        ///< the next one first
  std::vector<std::unique_ptr<Deferred>> graveyard_;
  std::vector<std::unique_ptr<Watcher::Entry>> dead_watchers_;
};

}  // namespace weft::loop
