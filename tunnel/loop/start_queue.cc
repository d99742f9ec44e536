// SPDX-License-Identifier: Apache-2.0
#include "tunnel/loop/start_queue.h"

#include <utility>

#include "tunnel/loop/event_loop.h"

namespace weft::loop {
namespace {

/// What a turn spends on what begins, and how many tasks at most.
constexpr std::chrono::microseconds kStartTime{500};
constexpr int kStartTasks = 64;

}  // namespace

StartQueue::~StartQueue() {
  while (!tasks_.empty()) tasks_.front()->cancel();
}

std::function<void()> StartQueue::take() {
  StartTask& task = *tasks_.front();
  auto work = std::exchange(task.work_, nullptr);
  loop_.starting_.splice(loop_.starting_.end(), loop_.starting_, *place_);
  task.cancel();
  return work;
}

void StartQueue::leave_if_empty() {
  if (!tasks_.empty() || !place_) return;
  loop_.starting_.erase(*place_);
  place_.reset();
}

void StartTask::queue(StartQueue& queue, std::function<void()> work) {
  if (queued()) return;
  queue_ = &queue;
  work_ = std::move(work);
  place_ = queue.tasks_.insert(queue.tasks_.end(), this);
  if (!queue.place_) queue.place_ = queue.loop_.starting_.insert(queue.loop_.starting_.end(), &queue);
}

void StartTask::cancel() {
  if (!queued()) return;
  queue_->tasks_.erase(*place_);
  place_.reset();
  work_ = nullptr;
  queue_->leave_if_empty();
}

void EventLoop::run_starts() {
  if (starting_.empty()) return;
  const SteadyTime until = now() + kStartTime;
  for (int i = 0; i < kStartTasks && !starting_.empty(); ++i) {
    starting_.front()->take()();
    if (now() >= until) break;
  }
}

}  // namespace weft::loop
