// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/name_cache.h"

#include <algorithm>
#include <utility>

namespace weft::dns {

using state::NameAnswer;

namespace {

/// Whether `known` has addresses of a family that `fresh` has none of.
bool has_more_families(const std::vector<IpAddress>& known, const std::vector<IpAddress>& fresh) {
  return std::ranges::any_of(known, [&](const IpAddress& one) {
    return std::ranges::none_of(fresh, [&](const IpAddress& other) { return one.is_v4() == other.is_v4(); });
  });
}

}  // namespace

NameCache::Found NameCache::find(const std::string& name, SteadyTime now) {
  auto at = names_.find(name);
  if (at == names_.end()) {
    if (names_.size() >= limits_.names_max && !make_room()) {
      return {{NameAnswer::Kind::kFailed, nullptr,
               std::to_string(names_.size()) + " other names are being looked up (do the DNS servers answer?)"},
              false};
    }
    at = names_.emplace(name, Entry()).first;
  }
  Entry& entry = at->second;
  entry.last_asked = now;
  entry.asked = true;
  const bool usable = entry.addresses != nullptr && now < entry.stale_until;
  const bool fresh = usable && now < entry.fresh_until;
  const bool failed = now < entry.failed_until;
  Found found;
  found.look_up = !fresh && !failed && !entry.looking;
  if (found.look_up) entry.looking = true;
  if (usable) {
    found.answer = {NameAnswer::Kind::kAddresses, entry.addresses, {}};
  } else if (failed) {
    found.answer = {NameAnswer::Kind::kFailed, nullptr, entry.failure};
  } else {
    entry.awaited = true;
  }
  return found;
}

bool NameCache::make_room() {
  auto oldest = names_.end();
  for (auto at = names_.begin(); at != names_.end(); ++at) {
    if (at->second.looking) continue;
    if (oldest == names_.end() || at->second.last_asked < oldest->second.last_asked) oldest = at;
  }
  if (oldest == names_.end()) return false;
  names_.erase(oldest);
  return true;
}

bool NameCache::store(const std::string& name, const Outcome& outcome, SteadyTime now) {
  const auto at = names_.find(name);
  if (at == names_.end()) return false;
  Entry& entry = at->second;
  entry.looking = false;
  entry.asked = false;
  if (outcome.partial && now < entry.stale_until && has_more_families(*entry.addresses, outcome.addresses)) {
    entry.failed_until = now + limits_.failure;
  } else if (!outcome.addresses.empty()) {
    const seconds ttl = outcome.partial ? std::min(outcome.ttl, limits_.failure) : outcome.ttl;
    entry.addresses = std::make_shared<const std::vector<IpAddress>>(outcome.addresses);
    entry.fresh_until = now + std::clamp(ttl, limits_.ttl_min, limits_.ttl_max);
    entry.stale_until = entry.fresh_until + limits_.stale;
    entry.failed_until = SteadyTime();
  } else {
    entry.failure = outcome.reason;
    entry.failed_until = now + limits_.failure;
    if (outcome.definite) {
      entry.addresses = nullptr;
      entry.fresh_until = entry.stale_until = SteadyTime();
    }
  }
  return std::exchange(entry.awaited, false);
}

std::vector<std::string> NameCache::sweep(SteadyTime now) {
  std::vector<std::string> again;
  for (auto at = names_.begin(); at != names_.end();) {
    const auto here = at++;
    Entry& entry = here->second;
    if (entry.looking) continue;
    const bool over = entry.addresses != nullptr && now >= entry.fresh_until && now >= entry.failed_until;
    if (over && entry.asked) {
      entry.looking = true;
      again.push_back(here->first);
    } else if (now >= entry.end()) {
      names_.erase(here);
    }
  }
  return again;
}

std::optional<SteadyTime> NameCache::next_sweep(SteadyTime now) const {
  std::optional<SteadyTime> next;
  for (const auto& [name, entry] : names_) {
    if (entry.looking) continue;
    // Past its time and not asked for it is looked up when somebody asks: all that is left to do is to forget it.
    const SteadyTime renewal = std::max(entry.fresh_until, entry.failed_until);
    const SteadyTime due = entry.addresses != nullptr && now < renewal ? renewal : entry.end();
    if (!next || due < *next) next = due;
  }
  return next;
}

}  // namespace weft::dns
