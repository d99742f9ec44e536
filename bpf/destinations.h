// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>
#include <iterator>
#include <span>
#include <vector>

#include "bpf/address_list.h"
#include "bpf/map_io.h"
#include "bpf/shared.h"

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
    auto present = map_.keys_at_once();
    if (!present) return Failure(present.error());
    std::ranges::sort(*present, less);
    Plan plan;
    std::ranges::set_difference(wanted, *present, std::back_inserter(plan.missing), less);
    std::ranges::set_difference(*present, wanted, std::back_inserter(plan.obsolete), less);
    return fitted(std::move(plan), present->size(), wanted.size());
  }
  /// The same where what the map holds is known; both are sorted, and each value is in them once.
  template <class Value>
  [[nodiscard]] Plan plan(std::span<const Value> present, std::span<const Value> wanted) const {
    std::vector<Value> missing, obsolete;
    std::ranges::set_difference(wanted, present, std::back_inserter(missing));
    std::ranges::set_difference(present, wanted, std::back_inserter(obsolete));
    return fitted({.missing = keys_of(missing), .obsolete = keys_of(obsolete)}, present.size(), wanted.size());
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
  template <class Value>
  static std::vector<Key> keys_of(const std::vector<Value>& values) {
    std::vector<Key> keys;
    keys.reserve(values.size());
    for (const Value& value : values) keys.push_back(to_key(value));
    return keys;
  }
  [[nodiscard]] Plan fitted(Plan plan, std::size_t present, std::size_t wanted) const {
    plan.fits = wanted <= capacity_;
    plan.fits_with_old = present + plan.missing.size() <= capacity_;
    if (!plan.fits) plan.missing.resize(plan.missing.size() - (wanted - capacity_));
    return plan;
  }

  Map<Key, std::uint32_t> map_;
  std::uint32_t capacity_;
};

/// Two maps that are one set: single addresses, and ranges. Not thread-safe.
struct AddressMaps {
  AddressSet<weft_addr> addresses;
  AddressSet<weft_cidr> cidrs;

  struct Plan {
    AddressSet<weft_addr>::Plan addresses;
    AddressSet<weft_cidr>::Plan cidrs;
    [[nodiscard]] bool fits() const { return addresses.fits && cidrs.fits; }
    [[nodiscard]] bool fits_with_old() const { return addresses.fits_with_old && cidrs.fits_with_old; }
  };
  [[nodiscard]] Result<Plan> plan(const AddressList& wanted) const {
    std::vector<weft_addr> address_keys;
    std::vector<weft_cidr> cidr_keys;
    for (const IpAddress& a : wanted.addresses) {
      if (a.valid()) address_keys.push_back(to_key(a));
    }
    for (const Cidr& c : wanted.cidrs) {
      if (c.address.valid()) cidr_keys.push_back(to_key(c));
    }
    auto a = addresses.plan(std::move(address_keys));
    if (!a) return Failure(a.error());
    auto c = cidrs.plan(std::move(cidr_keys));
    if (!c) return Failure(c.error());
    return Plan{std::move(*a), std::move(*c)};
  }
  /// The same where what the maps hold is known; both are sorted, valid, and without doubles.
  [[nodiscard]] Plan plan(const AddressList& present, const AddressList& wanted) const {
    return {addresses.plan(present.addresses, wanted.addresses), cidrs.plan(present.cidrs, wanted.cidrs)};
  }
  Result<void> add(const Plan& plan) const {
    if (auto done = addresses.add(plan.addresses); !done) return done;
    return cidrs.add(plan.cidrs);
  }
  Result<void> remove(const Plan& plan) const {
    if (auto done = addresses.remove(plan.addresses); !done) return done;
    return cidrs.remove(plan.cidrs);
  }
  /// Additions before removals, since an address may move from one map to the other; the other way round where only
  /// that fits.
  Result<void> replace(const Plan& plan) const {
    if (!plan.fits_with_old()) {
      if (auto done = remove(plan); !done) return done;
      return add(plan);
    }
    if (auto done = add(plan); !done) return done;
    return remove(plan);
  }
};

}  // namespace weft::bpf
