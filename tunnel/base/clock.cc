// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/clock.h"

#include <ctime>

#include "tunnel/base/rfc3339.h"

namespace weft {
namespace {

class RealClock : public Clock {
 public:
  [[nodiscard]] SteadyTime now() const override { return std::chrono::steady_clock::now(); }
  [[nodiscard]] WallTime wall_now() const override { return std::chrono::system_clock::now(); }
};

}  // namespace

const Clock& Clock::real() {
  static const RealClock clock;
  return clock;
}

std::string rfc3339(WallTime time) {
  const std::time_t seconds_since = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  char text[32] = {};
  if (::gmtime_r(&seconds_since, &parts) == nullptr) return "an unknown time";
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace weft
