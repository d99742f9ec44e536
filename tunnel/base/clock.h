// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace weft {

using std::chrono::milliseconds;
using std::chrono::seconds;
using SteadyTime = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::system_clock::time_point;

/// Where code that waits or expires things takes the time from; tests give a FakeClock. Calls are thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual SteadyTime now() const = 0;
  [[nodiscard]] virtual WallTime wall_now() const = 0;

  /// The machine's clock; lives as long as the process.
  static const Clock& real();
};

/// A clock that moves only when told to. Not thread-safe.
class FakeClock : public Clock {
 public:
  [[nodiscard]] SteadyTime now() const override { return SteadyTime(elapsed_); }
  [[nodiscard]] WallTime wall_now() const override {
    return start_ + std::chrono::duration_cast<WallTime::duration>(elapsed_);
  }
  void advance(std::chrono::nanoseconds by) { elapsed_ += by; }

 private:
  std::chrono::nanoseconds elapsed_{0};
  WallTime start_{std::chrono::seconds(1'700'000'000)};
};

}  // namespace weft
