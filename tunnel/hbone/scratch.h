// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace weft::hbone {

/// Work space of one worker, shared by all its connections: its content is meaningful only within one call, so that
/// connections hold no buffers of their own while nothing is stuck.
class Scratch {
 public:
  static constexpr std::size_t kSize = 256U << 10;

  /// Bytes as they came from a socket.
  [[nodiscard]] std::span<std::byte> network() { return {network_.get(), kSize}; }
  /// The same bytes decrypted.
  [[nodiscard]] std::span<std::byte> plain() { return {plain_.get(), kSize}; }
  /// HTTP/2 frames on their way to encryption.
  [[nodiscard]] std::span<std::byte> frames() { return {frames_.get(), kSize}; }

 private:
  std::unique_ptr<std::byte[]> network_ = std::make_unique<std::byte[]>(kSize);
  std::unique_ptr<std::byte[]> plain_ = std::make_unique<std::byte[]>(kSize);
  std::unique_ptr<std::byte[]> frames_ = std::make_unique<std::byte[]>(kSize);
};

/// What stream windows may grow beyond their start, over all streams of one worker, in bytes.
class WindowBudget {
 public:
  explicit WindowBudget(std::size_t bytes) : left_(bytes) {}
  [[nodiscard]] bool take(std::size_t bytes) {
    if (bytes > left_) return false;
    left_ -= bytes;
    return true;
  }
  void give_back(std::size_t bytes) { left_ += bytes; }

 private:
  std::size_t left_;
};

/// The bytes that slow readers make one worker keep, over all its connections. Above the limit those that have much
/// there are not read any further. One thread.
class KeptBudget {
 public:
  explicit KeptBudget(std::size_t limit) : limit_(limit) {}
  [[nodiscard]] bool is_over() const { return kept_ > limit_; }

 private:
  friend class KeptShare;
  std::size_t limit_, kept_ = 0;
};

/// What one connection has in the budget, and in the sum of whatever it belongs to. Gives it back at its end.
class KeptShare {
 public:
  KeptShare() = default;
  KeptShare(const KeptShare&) = delete;
  KeptShare& operator=(const KeptShare&) = delete;
  ~KeptShare() { set(0); }
  /// Call once. `sum` may be null.
  void join(KeptBudget& budget, std::shared_ptr<std::size_t> sum) {
    budget_ = &budget;
    sum_ = std::move(sum);
  }
  void set(std::size_t bytes) {
    if (budget_ == nullptr) return;
    budget_->kept_ += bytes - bytes_;
    if (sum_ != nullptr) *sum_ += bytes - bytes_;
    bytes_ = bytes;
  }

 private:
  KeptBudget* budget_ = nullptr;
  std::shared_ptr<std::size_t> sum_;
  std::size_t bytes_ = 0;
};

}  // namespace weft::hbone
