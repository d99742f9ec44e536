// SPDX-License-Identifier: Apache-2.0
#include "tunnel/loop/event_loop.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "tunnel/base/log.h"

namespace weft::loop {
namespace {

/// So many cancelled timers are no matter.
constexpr std::size_t kCancelledKept = 1024;
/// What a turn spends on bulk work, and how many tasks at most.
constexpr std::chrono::microseconds kBulkTime{250};
constexpr int kBulkTasks = 64;

}  // namespace

struct Watcher::Entry {
  int fd;
  Handler handler;  ///< emptied when the watcher is gone while events of this turn may still name the entry
};

struct Timer::Entry {
  SteadyTime due;
  std::uint64_t sequence;  ///< equal times fire in the order of arming
  std::function<void()> handler;
  Timer* owner;  ///< null when cancelled
};

bool EventLoop::TimerLater::operator()(const Timer::Entry* a, const Timer::Entry* b) const {
  return a->due != b->due ? a->due > b->due : a->sequence > b->sequence;
}

Watcher::Watcher(Watcher&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), entry_(std::exchange(other.entry_, nullptr)) {}

Watcher& Watcher::operator=(Watcher&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    entry_ = std::exchange(other.entry_, nullptr);
  }
  return *this;
}

Watcher::~Watcher() { reset(); }

void Watcher::reset() {
  if (entry_ != nullptr) loop_->remove(std::exchange(entry_, nullptr));
}

void Timer::arm(milliseconds after, std::function<void()> handler) {
  cancel();
  entry_ = new Entry{loop_->now() + after, loop_->timer_sequence_++, std::move(handler), this};
  loop_->timers_.push_back(entry_);
  std::ranges::push_heap(loop_->timers_, EventLoop::TimerLater());
}

void Timer::cancel() {
  // The heap cannot remove from its middle: the entry stays until its time, or until there are too many of its kind.
  if (entry_ != nullptr) {
    ++loop_->cancelled_timers_;
    entry_->owner = nullptr;
    entry_->handler = nullptr;
    entry_ = nullptr;
  }
}

void BulkTask::queue(EventLoop& loop, std::function<void()> work) {
  if (queued()) return;
  loop_ = &loop;
  work_ = std::move(work);
  place_ = loop.bulk_.insert(loop.bulk_.end(), this);
}

void BulkTask::cancel() {
  if (!queued()) return;
  loop_->bulk_.erase(*place_);
  place_.reset();
  work_ = nullptr;
}

EventLoop::EventLoop(const Clock& clock) : clock_(clock) {}

Result<std::unique_ptr<EventLoop>> EventLoop::create(const Clock& clock) {
  std::unique_ptr<EventLoop> loop(new EventLoop(clock));
  loop->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_) return fail_errno(errno, "epoll_create1");
  loop->wakeup_.reset(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!loop->wakeup_) return fail_errno(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;  // the wake-up is the only one without an entry
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->wakeup_.get(), &event) < 0) {
    return fail_errno(errno, "epoll_ctl of the wake-up descriptor");
  }
  return loop;
}

EventLoop::~EventLoop() {
  end_turn();
  for (Timer::Entry* entry : timers_) {
    if (entry->owner != nullptr) entry->owner->entry_ = nullptr;
    delete entry;
  }
  while (!bulk_.empty()) bulk_.front()->cancel();
}

Result<Watcher> EventLoop::watch(int fd, std::uint32_t events, Watcher::Handler handler, bool level) {
  auto entry = std::make_unique<Watcher::Entry>(Watcher::Entry{fd, std::move(handler)});
  epoll_event event{};
  event.events = events | (level ? 0U : static_cast<std::uint32_t>(EPOLLET));
  event.data.ptr = entry.get();
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) return fail_errno(errno, "epoll_ctl add");
  return Watcher(this, entry.release());
}

void EventLoop::remove(Watcher::Entry* entry) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry->fd, nullptr);
  entry->fd = -1;
  dead_watchers_.emplace_back(entry);
}

void EventLoop::post(std::function<void()> task) {
  bool first = false;
  {
    const std::scoped_lock lock(posted_mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(task));
  }
  if (first) {
    const std::uint64_t one = 1;
    // The counter cannot overflow: it is read each turn. A failed write would mean a closed descriptor.
    if (::write(wakeup_.get(), &one, sizeof one) < 0 && errno != EAGAIN) log::error("wake-up failed errno={}", errno);
  }
}

void EventLoop::stop() {
  stopping_ = true;
  post([] {});
}

void EventLoop::run() {
  while (!stopping_) run_once(milliseconds(-1));
}

int EventLoop::wait_ms(milliseconds max_wait) {
  while (!timers_.empty() && timers_.front()->owner == nullptr) take_timer();
  if (timers_.empty()) return static_cast<int>(max_wait.count());
  // Rounded up, so that a timer is due when the wait ends.
  const auto until = std::chrono::ceil<milliseconds>(timers_.front()->due - now());
  const auto wait = std::clamp<std::int64_t>(until.count(), 0, 60'000);
  return static_cast<int>(max_wait.count() < 0 ? wait : std::min<std::int64_t>(wait, max_wait.count()));
}

void EventLoop::run_once(milliseconds max_wait) {
  std::array<epoll_event, 64> events;
  const std::vector<std::function<void()>> continued = std::exchange(next_turn_, {});
  if (!continued.empty() || !starting_.empty() || !bulk_.empty()) max_wait = milliseconds(0);
  const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), wait_ms(max_wait));
  for (int i = 0; i < n; ++i) {
    auto* entry = static_cast<Watcher::Entry*>(events[static_cast<std::size_t>(i)].data.ptr);
    if (entry == nullptr) {
      run_posted();
    } else if (entry->fd >= 0) {
      entry->handler(events[static_cast<std::size_t>(i)].events);
    }
  }
  for (const auto& task : continued) task();
  run_timers();
  run_starts();
  run_bulk();
  end_turn();
}

void EventLoop::run_bulk() {
  if (bulk_.empty()) return;
  const SteadyTime until = now() + kBulkTime;
  for (int i = 0; i < kBulkTasks && !bulk_.empty(); ++i) {
    // Out of the task first: the work may queue it again or destroy it.
    const auto work = std::exchange(bulk_.front()->work_, nullptr);
    bulk_.front()->cancel();
    work();
    if (now() >= until) break;
  }
  // Before the small things of the next turn are asked for, not after a whole slice of the scheduler: the bulk is what
  // a busy core should be taken from.
  ::sched_yield();
}

void EventLoop::run_posted() {
  std::uint64_t count = 0;
  while (::read(wakeup_.get(), &count, sizeof count) < 0 && errno == EINTR) {
  }
  std::vector<std::function<void()>> tasks;
  {
    const std::scoped_lock lock(posted_mutex_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) task();
}

void EventLoop::run_timers() {
  const SteadyTime time = now();
  // What a handler arms for "at once" waits for the next turn, or a turn might never end.
  const std::uint64_t armed_before = timer_sequence_;
  while (!timers_.empty() && (timers_.front()->owner == nullptr ||
                              (timers_.front()->due <= time && timers_.front()->sequence < armed_before))) {
    const auto entry = take_timer();
    if (entry->owner == nullptr) continue;
    entry->owner->entry_ = nullptr;
    entry->handler();
  }
}

std::unique_ptr<Timer::Entry> EventLoop::take_timer() {
  std::ranges::pop_heap(timers_, TimerLater());
  std::unique_ptr<Timer::Entry> entry(timers_.back());
  timers_.pop_back();
  if (entry->owner == nullptr) --cancelled_timers_;
  return entry;
}

/// Long timers that are armed and cancelled for each connection would pile up until they are due. Once most entries are
/// of that kind they go, which costs each of them no more than its own share.
void EventLoop::drop_cancelled_timers() {
  if (cancelled_timers_ < kCancelledKept || cancelled_timers_ * 2 < timers_.size()) return;
  std::erase_if(timers_, [](Timer::Entry* entry) {
    if (entry->owner != nullptr) return false;
    delete entry;
    return true;
  });
  std::ranges::make_heap(timers_, TimerLater());
  cancelled_timers_ = 0;
}

void EventLoop::end_turn() {
  // Tasks may ask for more of either kind; the loops go on until both are empty.
  while (!turn_end_.empty() || !graveyard_.empty()) {
    for (auto& task : std::exchange(turn_end_, {})) task();
    std::exchange(graveyard_, {}).clear();
  }
  dead_watchers_.clear();
  drop_cancelled_timers();
}

}  // namespace weft::loop
