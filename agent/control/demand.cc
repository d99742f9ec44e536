// SPDX-License-Identifier: Apache-2.0
#include "agent/control/demand.h"

#include <algorithm>
#include <utility>

namespace weft::control {
namespace {

/// What nobody has asked for during this time may be forgotten: whoever waited has given up.
constexpr milliseconds kForgettable{6'000};
/// Between attempts to make room, which look at all names.
constexpr milliseconds kRoomInterval{1'000};

}  // namespace

bool Demand::is_told(const std::vector<std::string>& names, std::uint64_t snapshot) {
  const std::lock_guard lock(mutex_);
  bool all = true;
  for (const auto& name : names) all &= holds(name, snapshot);
  tell_of_queue();
  return all;
}

void Demand::ask_ahead(const std::vector<std::string>& names) {
  const std::lock_guard lock(mutex_);
  for (const auto& name : names) {
    if (names_.contains(name)) continue;
    if (Asked* asked = find_or_make(name)) ask(name, *asked);
  }
  tell_of_queue();
}

bool Demand::holds(const std::string& name, std::uint64_t snapshot) {
  Asked* const asked = find_or_make(name);
  if (asked == nullptr) return false;
  const auto age = clock_.now() - asked->at;
  if (!asked->ever || age >= options_.fresh) ask(name, *asked);
  const bool usable = asked->ever && (age < 2 * options_.fresh || is_late(*asked));
  if (usable && asked->snapshot <= snapshot) return true;
  asked->held_up = true;
  return false;
}

Demand::Asked* Demand::find_or_make(const std::string& name) {
  auto found = names_.find(name);
  if (found == names_.end()) {
    make_room();
    if (names_.size() >= options_.names_max) return nullptr;
    found = names_.emplace(name, Asked()).first;
  }
  found->second.last = clock_.now();
  return &found->second;
}

void Demand::ask(const std::string& name, Asked& asked) {
  const auto now = clock_.now();
  // What was not answered for so long, though istiod answers, has been missed.
  if (asked.waiting && (asked.queued || now - asked.taken < 2 * options_.fresh)) return;
  if (!std::exchange(asked.waiting, true)) asked.since = now;
  asked.queued = true;
  queue_.push_back(name);
}

/// Not where others are answered: it waits for its turn then.
bool Demand::is_late(const Asked& asked) const {
  return asked.waiting && clock_.now() - std::max(asked.since, heard_) >= options_.patience;
}

void Demand::make_room() {
  const auto now = clock_.now();
  if (names_.size() < options_.names_max || (made_room_ && now - *made_room_ < kRoomInterval)) return;
  made_room_ = now;
  // Without istiod the last answers are all that there is.
  std::erase_if(names_, [&](const auto& entry) {
    return now - entry.second.last >= kForgettable && (connected_ || !entry.second.ever);
  });
  std::erase_if(queue_, [&](const auto& name) { return !names_.contains(name); });
}

void Demand::tell_of_queue() const {
  if (connected_ && !queue_.empty() && on_asked_) on_asked_();
}

void Demand::on_asked(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  on_asked_ = std::move(call);
}

std::vector<std::string> Demand::take() {
  const std::lock_guard lock(mutex_);
  const auto now = clock_.now();
  if (!connected_ || queue_.empty() || (under_way_ && now - *under_way_ < options_.patience)) return {};
  under_way_ = now;
  const auto count = std::min(queue_.size(), options_.batch_max);
  const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(count);
  std::vector<std::string> names(std::move_iterator(queue_.begin()), std::move_iterator(end));
  queue_.erase(queue_.begin(), end);
  for (const auto& name : names) {
    const auto found = names_.find(name);
    if (found == names_.end()) continue;
    found->second.queued = false;
    found->second.taken = now;
  }
  return names;
}

void Demand::connected() {
  const std::lock_guard lock(mutex_);
  connected_ = true;
  under_way_.reset();
  heard_ = clock_.now();
  queue_.clear();
  for (auto& [name, asked] : names_) {
    asked.queued = asked.waiting;
    if (asked.waiting) queue_.push_back(name);
  }
  tell_of_queue();
}

void Demand::disconnected() {
  const std::lock_guard lock(mutex_);
  connected_ = false;
}

bool Demand::answered(const std::vector<std::vector<std::string>>& groups, std::uint64_t snapshot) {
  const std::lock_guard lock(mutex_);
  const auto now = clock_.now();
  bool held_up = false;
  for (const auto& names : groups) {
    const bool asked = std::ranges::any_of(names, [&](const auto& name) {
      const auto found = names_.find(name);
      return found != names_.end() && found->second.waiting;
    });
    if (!asked) continue;
    under_way_.reset();
    heard_ = now;
    for (const auto& name : names) {
      Asked& one = names_[name];
      held_up |= one.held_up;
      one = {.ever = true, .snapshot = snapshot, .at = now, .since = {}, .taken = {}, .last = one.last};
    }
  }
  tell_of_queue();
  return held_up;
}

void Demand::unreadable(const std::vector<std::string>& names) {
  const std::lock_guard lock(mutex_);
  for (const auto& name : names) {
    const auto found = names_.find(name);
    if (found == names_.end()) continue;
    found->second.ever = false;
    under_way_.reset();
  }
  tell_of_queue();
}

void Demand::forget() {
  const std::lock_guard lock(mutex_);
  for (auto& [name, asked] : names_) asked.ever = false;
}

bool Demand::is_overdue() {
  const std::lock_guard lock(mutex_);
  bool any = false;
  for (auto& [name, asked] : names_) {
    if (asked.held_up && asked.ever && is_late(asked)) any |= std::exchange(asked.held_up, false);
  }
  return any;
}

}  // namespace weft::control
