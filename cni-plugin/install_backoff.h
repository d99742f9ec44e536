// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace weft::cni::install {

/// How often the list may be written when somebody keeps writing it without us. The first repair comes at once, since
/// pods that start meanwhile are outside the mesh; the next ones 100 ms, 200 ms, 400 ms … and at most 10 s after the
/// one before. A minute without a repair ends the quarrel. Times are milliseconds of a clock that never goes back.
class Backoff {
 public:
  static constexpr std::int64_t kFirstMs = 100;
  static constexpr std::int64_t kMaxMs = 10'000;
  static constexpr std::int64_t kCalmMs = 60'000;
  /// As many in a row are a quarrel, and then the entry counts only once it has stayed for so long.
  static constexpr int kQuarrel = 3;
  static constexpr std::int64_t kStayMs = 10'000;

  /// The earliest time for the next repair.
  [[nodiscard]] std::int64_t due_ms(std::int64_t now_ms) const {
    if (in_a_row(now_ms) == 0) return now_ms;
    return last_ms_ + std::min(kFirstMs << std::min(count_ - 1, 10), kMaxMs);
  }
  void repaired(std::int64_t now_ms) {
    count_ = in_a_row(now_ms) + 1;
    last_ms_ = now_ms;
  }
  /// Repairs one after another without a minute's rest.
  [[nodiscard]] int in_a_row(std::int64_t now_ms) const {
    return count_ > 0 && now_ms - last_ms_ < kCalmMs ? count_ : 0;
  }
  /// When the entry that is in place may be counted on, as far as quarrels go.
  [[nodiscard]] std::int64_t settled_ms(std::int64_t now_ms) const {
    return in_a_row(now_ms) >= kQuarrel ? last_ms_ + kStayMs : now_ms;
  }

 private:
  int count_ = 0;
  std::int64_t last_ms_ = 0;
};

}  // namespace weft::cni::install
