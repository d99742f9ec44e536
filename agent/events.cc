// SPDX-License-Identifier: Apache-2.0
#include "agent/events.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

#include "tunnel/base/log.h"

namespace weft::agent {

EventLog::EventLog(std::unique_ptr<EventSource> source, Names names, const Clock& clock)
    : source_(std::move(source)),
      names_(std::move(names)),
      clock_(clock),
      wake_up_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

EventLog::~EventLog() { stop(); }

void EventLog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (thread_.joinable() && wake_up_) ::eventfd_write(wake_up_.get(), 1);
  }
  changed_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  if (auto quiet = source_->listen_until(SteadyTime()); !quiet) {
    log::warn("events not turned off, they end by themselves error={}", log::quote(quiet.error().message()));
  }
}

/// Under the lock. What is in the buffer from before nobody has asked for.
Result<void> EventLog::listen() {
  if (stopping_) return fail(ErrorCode::kUnavailable, "follow the events: the agent stops");
  if (failed_) return Failure(*failed_);
  if (!wake_up_) return fail(ErrorCode::kUnavailable, "follow the events: no descriptor was left for it");
  const SteadyTime now = clock_.now();
  if (now >= until_) {
    auto lost = source_->lost();
    if (!lost) return Failure(lost.error());
    lost_before_ = *lost;
    since_ = now;
  }
  until_ = now + kListen;
  if (auto told = source_->listen_until(until_); !told) return told;
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  return {};
}

Result<EventAnswer> EventLog::query(const EventQuery& query) {
  std::unique_lock lock(mutex_);
  if (auto listening = listen(); !listening) return Failure(listening.error());
  // Behind the last one is only who followed an earlier agent.
  const bool from_start = query.after && *query.after > last_;
  const std::uint64_t first = kept_.empty() ? last_ : kept_.front().sequence - 1;
  const std::uint64_t after = from_start ? first : query.after.value_or(last_);
  const auto something = [&] { return last_ > after || stopping_ || failed_; };
  if (!something() && query.wait.count() > 0) {
    if (waiting_ >= kMaxWaiting) {
      return fail(ErrorCode::kDenied,
                  "follow the events: " + std::to_string(waiting_) + " others do so already, no more can");
    }
    ++waiting_;
    changed_.wait_for(lock, std::min(query.wait, kMaxWait), something);
    --waiting_;
  }
  if (failed_) return Failure(*failed_);
  return answer(after);
}

EventAnswer EventLog::answer(std::uint64_t after) const {
  EventAnswer answer;
  auto event = std::ranges::upper_bound(kept_, after, {}, &LoggedEvent::sequence);
  for (; event != kept_.end() && answer.events.size() < kMaxAnswer; ++event) answer.events.push_back(*event);
  answer.next = event == kept_.end() ? last_ : answer.events.back().sequence;
  answer.lost = answer.next - after - answer.events.size();
  return answer;
}

void EventLog::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (clock_.now() >= until_) {
      changed_.wait(lock, [this] { return stopping_ || clock_.now() < until_; });
      continue;
    }
    const SteadyTime until = until_;
    lock.unlock();
    wait_readable(until);
    auto taken = take();
    lock.lock();
    if (!taken) {
      log::error("events cannot be read error={}", log::quote(taken.error().message()));
      failed_ = taken.error();
      changed_.notify_all();
      return;
    }
  }
}

void EventLog::wait_readable(SteadyTime until) {
  pollfd watched[2] = {{source_->fd(), POLLIN, 0}, {wake_up_.get(), POLLIN, 0}};
  const auto left = std::chrono::ceil<milliseconds>(until - clock_.now()).count();
  // Interrupted or not: the caller looks at what there is and comes back.
  ::poll(watched, 2, static_cast<int>(std::max<std::int64_t>(left, 0)));
}

/// A slot keeps its last name until another pod takes it: its last events may come after it has gone.
void EventLog::refresh_names() {
  const SteadyTime now = clock_.now();
  if (now < named_ + kNamesAge) return;
  named_ = now;
  for (auto& [slot, name] : names_()) pods_[slot] = name;
}

Result<void> EventLog::take() {
  std::vector<bpf::Event> events;
  if (auto read = source_->read([&](const bpf::Event& e) { events.push_back(e); }); !read) return read;
  auto lost = source_->lost();
  if (!lost) return Failure(lost.error());
  if (!events.empty()) refresh_names();
  const SteadyTime now = clock_.now();
  const WallTime wall = clock_.wall_now();
  const std::lock_guard lock(mutex_);
  for (bpf::Event& event : events) {
    if (event.time < since_) continue;
    const auto pod = event.slot ? pods_.find(*event.slot) : pods_.end();
    kept_.push_back({.sequence = ++last_,
                     .time = wall - std::chrono::duration_cast<WallTime::duration>(now - event.time),
                     .pod = pod == pods_.end() ? "" : pod->second,
                     .event = event});
    if (kept_.size() > kKept) kept_.pop_front();
  }
  if (*lost > lost_before_) last_ += *lost - std::exchange(lost_before_, *lost);
  changed_.notify_all();
  return {};
}

}  // namespace weft::agent
