// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "test/support/mesh.h"

namespace weft::test {

/// Random numbers that are the same wherever the seed is: the distributions of the standard library are not.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  [[nodiscard]] std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  [[nodiscard]] bool percent(std::size_t p) { return below(100) < p; }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[below(from.size())];
  }

 private:
  std::mt19937_64 engine_;
};

/// Up to four random policies for a mesh of these pods: all scopes and actions, every kind of match and its `not` twin,
/// empty rules, clauses and matches, dry runs; and now and then STRICT, as Istio converts it, with and without a port
/// that is excepted.
std::vector<nlohmann::json> random_policies(Dice& dice, const std::vector<Pod*>& pods);

}  // namespace weft::test
