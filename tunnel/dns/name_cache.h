// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/dns/query.h"
#include "tunnel/state/names.h"

namespace weft::dns {

/// How long answers count.
struct CacheLimits {
  seconds ttl_min{1};
  seconds ttl_max{300};
  seconds stale{60};   ///< how long addresses are used beyond their time while nobody gives newer ones
  seconds failure{5};  ///< until a failure is tried again
  std::size_t names_max = 4096;
};

/// What is known of names, and until when. Time is an argument; looking up is the caller's part. Not thread-safe.
class NameCache {
 public:
  explicit NameCache(const CacheLimits& limits) : limits_(limits) {}

  struct Found {
    state::NameAnswer answer;
    bool look_up = false;  ///< the caller looks it up now, and says store() when that is done
  };
  /// The answer for `name`. Whoever is told kPending waits: store() says so. Where the table is full, the name that was
  /// not asked for the longest is forgotten.
  Found find(const std::string& name, SteadyTime now);

  /// Takes what looking up came to. A definite "there is none" replaces addresses; a mere failure leaves them to be
  /// used while they are stale, and so does an answer for one family alone where addresses of both are known; where
  /// they are not it counts no longer than a failure. True where somebody waits for the name.
  bool store(const std::string& name, const Outcome& outcome, SteadyTime now);

  /// Forgets what is past its time, and gives the names to look up again: those whose time is over and that somebody
  /// has asked for since they were last looked up.
  std::vector<std::string> sweep(SteadyTime now);
  /// When sweep() will have something to do, after it was called at `now` or later; nothing where it will not.
  [[nodiscard]] std::optional<SteadyTime> next_sweep(SteadyTime now) const;

  [[nodiscard]] std::size_t size() const { return names_.size(); }

 private:
  struct Entry {
    std::shared_ptr<const std::vector<IpAddress>> addresses;
    SteadyTime fresh_until, stale_until;  ///< of `addresses`
    std::string failure;
    SteadyTime failed_until;
    SteadyTime last_asked;
    bool looking = false;  ///< being looked up
    bool awaited = false;  ///< somebody was told kPending
    bool asked = false;    ///< since it was last looked up
    [[nodiscard]] SteadyTime end() const { return std::max(stale_until, failed_until); }
  };
  bool make_room();

  CacheLimits limits_;
  std::unordered_map<std::string, Entry> names_;
};

}  // namespace weft::dns
