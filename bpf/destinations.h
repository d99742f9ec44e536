// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>
#include <vector>

#include "bpf/map_io.h"

namespace weft::bpf {

/// A map used as a set of mesh addresses or ranges. Not thread-safe.
template <class Key>
class AddressSet {
 public:
  AddressSet(Map<Key, std::uint32_t> map, std::uint32_t capacity) : map_(map), capacity_(capacity) {}

  [[nodiscard]] std::uint32_t capacity() const { return capacity_; }

  /// The way from what the map holds to another set.
  struct Plan {
    std::vector<Key> missing, obsolete;
    bool fits = true;           ///< false: the wanted set is too large, `missing` lacks a part of it
    bool fits_with_old = true;  ///< false: `obsolete` must go before `missing` can come
  };
  [[nodiscard]] Result<Plan> plan(std::vector<Key> wanted) const {
    std::ranges::sort(wanted, less);
    wanted.erase(std::unique(wanted.begin(), wanted.end(), equal), wanted.end());
    auto present = map_.keys();
    if (!present) return Failure(present.error());
    std::ranges::sort(*present, less);
    Plan plan;
    std::ranges::set_difference(wanted, *present, std::back_inserter(plan.missing), less);
    std::ranges::set_difference(*present, wanted, std::back_inserter(plan.obsolete), less);
    plan.fits = wanted.size() <= capacity_;
    plan.fits_with_old = present->size() + plan.missing.size() <= capacity_;
    if (!plan.fits) plan.missing.resize(plan.missing.size() - (wanted.size() - capacity_));
    return plan;
  }
  Result<void> add(const Plan& plan) const {
    for (const Key& key : plan.missing) {
      if (auto done = map_.put(key, 1); !done) return done;
    }
    return {};
  }
  Result<void> remove(const Plan& plan) const {
    for (const Key& key : plan.obsolete) {
      if (auto done = map_.remove(key); !done) return done;
    }
    return {};
  }

 private:
  static bool less(const Key& a, const Key& b) { return std::memcmp(&a, &b, sizeof a) < 0; }
  static bool equal(const Key& a, const Key& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

  Map<Key, std::uint32_t> map_;
  std::uint32_t capacity_;
};

}  // namespace weft::bpf
