// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>

#include "tunnel/base/clock.h"

namespace weft {

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
  /// Allows so many more, though never more than `burst` at once.
  void give(double events) { left_ = std::min(burst_, left_ + events); }

 private:
  double burst_, per_second_, left_;
  SteadyTime last_;
};

}  // namespace weft
