// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <list>
#include <optional>

namespace weft::loop {

class EventLoop;
class StartTask;

/// What one party wants to begin: connections that wait to be accepted, handshakes, requests. Each costs many times
/// what a packet of an established connection does. So they run after whatever else is ready in a turn, of which all
/// parties together get half a millisecond; those that have something take turns, each with its oldest task. However
/// much one begins, whoever is established waits no longer than that, and who else begins something no longer than one
/// round. Only on the loop's thread; the loop outlives it.
class StartQueue {
 public:
  explicit StartQueue(EventLoop& loop) : loop_(loop) {}
  StartQueue(const StartQueue&) = delete;
  StartQueue& operator=(const StartQueue&) = delete;
  /// Cancels what waits.
  ~StartQueue();

 private:
  friend class EventLoop;
  friend class StartTask;
  /// Takes the oldest task's work out, and gives the turn to the next party.
  std::function<void()> take();
  void leave_if_empty();

  EventLoop& loop_;
  std::list<StartTask*> tasks_;
  std::optional<std::list<StartQueue*>::iterator> place_;  ///< among those that have something
};

/// One thing to begin, or one step of it: a fraction of a millisecond of work. RAII: destroying it cancels. Only on the
/// loop's thread.
class StartTask {
 public:
  StartTask() = default;
  StartTask(const StartTask&) = delete;
  StartTask& operator=(const StartTask&) = delete;
  ~StartTask() { cancel(); }
  /// Does nothing while it waits already. `work` may queue it again, and may destroy it.
  void queue(StartQueue& queue, std::function<void()> work);
  void cancel();
  [[nodiscard]] bool queued() const { return place_.has_value(); }

 private:
  friend class StartQueue;
  StartQueue* queue_ = nullptr;
  std::function<void()> work_;
  std::optional<std::list<StartTask*>::iterator> place_;
};

}  // namespace weft::loop
