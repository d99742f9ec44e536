// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace weft::loop {

/// A queue of bytes that costs nothing while it is empty: bytes are appended at the end and consumed at the front, and
/// the memory goes back when the last byte went. Not thread-safe.
class Buffer {
 public:
  [[nodiscard]] bool empty() const { return head_ == data_.size(); }
  [[nodiscard]] std::size_t size() const { return data_.size() - head_; }
  [[nodiscard]] std::span<const std::byte> view() const { return std::span(data_).subspan(head_); }

  void append(std::span<const std::byte> bytes) {
    if (head_ > 0 && data_.size() + bytes.size() > data_.capacity()) {
      data_.erase(data_.begin(), data_.begin() + static_cast<std::ptrdiff_t>(head_));
      head_ = 0;
    }
    data_.insert(data_.end(), bytes.begin(), bytes.end());
  }

  /// Puts bytes before all others.
  void prepend(std::span<const std::byte> bytes) {
    data_.insert(data_.begin() + static_cast<std::ptrdiff_t>(head_), bytes.begin(), bytes.end());
  }

  void consume(std::size_t bytes) {
    head_ += bytes;
    if (empty()) clear();
  }

  void clear() {
    data_ = {};
    head_ = 0;
  }

 private:
  std::vector<std::byte> data_;
  std::size_t head_ = 0;
};

}  // namespace weft::loop
