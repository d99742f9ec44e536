// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "tunnel/base/clock.h"

namespace weft::hbone {

/// Allows `burst` events at once and `per_second` in the long run. One thread.
class RateLimit {
 public:
  RateLimit(double burst, double per_second) : burst_(burst), per_second_(per_second), left_(burst) {}
  /// Counts one event; false when it is one too many.
  [[nodiscard]] bool take(SteadyTime now) {
    const double passed = std::chrono::duration<double>(now - last_).count();
    left_ = std::min(burst_, left_ + std::max(passed, 0.0) * per_second_);
    last_ = now;
    if (left_ < 1) return false;
    left_ -= 1;
    return true;
  }

 private:
  double burst_, per_second_, left_;
  SteadyTime last_;
};

/// What an HTTP/2 peer may do without carrying anything: frames that cost this side work and bring no payload, and
/// requests that it takes back before they are answered. Far above what honest peers do: one PING in 10 s, one
/// SETTINGS.
struct FloodGuard {
  RateLimit idle_frames{1000, 100};
  RateLimit early_resets{1000, 100};
};

}  // namespace weft::hbone
