// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace weft::state {

/// Who claims one thing, an address or a VIP, and which of them holds it: the one of the highest rank, of equals the
/// one of the highest order.
template <class T>
class Claims {
 public:
  using Pointer = std::shared_ptr<const T>;
  struct Claim {
    Pointer object;
    std::uint64_t order = 0;
    int rank = 0;
  };

  [[nodiscard]] const Pointer& holder() const { return holder_.object; }
  [[nodiscard]] bool empty() const { return holder_.object == nullptr; }
  [[nodiscard]] bool contested() const { return !others_.empty(); }
  /// All of them, by order.
  [[nodiscard]] std::vector<Claim> all() const {
    std::vector<Claim> out = others_;
    if (!empty()) out.push_back(holder_);
    std::ranges::sort(out, {}, &Claim::order);
    return out;
  }

  void add(Claim claim) {
    if (has(claim.object.get())) return;
    if (empty() || better(claim, holder_)) std::swap(claim, holder_);
    if (claim.object) others_.push_back(std::move(claim));
  }
  /// Nothing where it has no claim.
  void remove(const T* object) {
    if (holder_.object.get() != object) {
      std::erase_if(others_, [&](const Claim& claim) { return claim.object.get() == object; });
      return;
    }
    holder_ = {};
    if (others_.empty()) return;
    const auto best = std::ranges::min_element(others_, better);
    holder_ = std::move(*best);
    others_.erase(best);
  }

 private:
  static bool better(const Claim& a, const Claim& b) { return std::pair(a.rank, a.order) > std::pair(b.rank, b.order); }
  [[nodiscard]] bool has(const T* object) const {
    return holder_.object.get() == object ||
           std::ranges::any_of(others_, [&](const Claim& claim) { return claim.object.get() == object; });
  }

  Claim holder_;
  std::vector<Claim> others_;
};

}  // namespace weft::state
