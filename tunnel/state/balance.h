// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tunnel/state/state.h"

namespace weft::state {

/// The outcome of choosing an endpoint: `workload` is null where none can be used, and `reason` says why.
struct Choice {
  WorkloadPtr workload;
  Endpoint target;  ///< the application's address and port there; no address where the workload is a name
  std::string reason;
};

/// Whether `families` include the family of `address`.
[[nodiscard]] bool accepts(IpFamilies families, const IpAddress& address);

/// The workload is known by its name alone: its addresses are to be resolved.
[[nodiscard]] bool is_name(const Workload& workload);

/// The address of `workload` to dial: of the family of `like` where it has one, otherwise its first. Unset where it has
/// none. `families` limits what is taken.
[[nodiscard]] IpAddress address_of(const Workload& workload, const IpAddress& like, IpFamilies families);

/// What to do where neither endpoint nor service says which port of the workload a service port leads to.
enum class TargetPort : std::uint8_t {
  kNamed,   ///< an endpoint that names its ports, but not this one, cannot be used
  kOrSame,  ///< the same port: a waypoint's HBONE port need not be one of its service's
};

/// Chooses among the endpoints of a service that has `original.port`: those in the source's network that have an
/// address or a name, the port and some capacity, and are healthy or need not be; of these the ones that the service's
/// locality rules prefer; of these one by weight. `avoid` (may be null) is left out: it has just failed. Pure: `random`
/// alone decides among equals.
[[nodiscard]] Choice choose_endpoint(const State& state, const Workload& source, const Service& service,
                                     const Endpoint& original, std::uint64_t random, const Workload* avoid = nullptr,
                                     TargetPort target = TargetPort::kNamed);

/// One of `items`, each as often as its weight says, and what `random` has left for another choice. Their weights are
/// not all 0.
template <class T, class WeightOf>
[[nodiscard]] std::pair<const T&, std::uint64_t> by_weight(const std::vector<T>& items, std::uint64_t random,
                                                           const WeightOf& weight_of) {
  std::uint64_t total = 0;
  for (const T& item : items) total += weight_of(item);
  std::uint64_t at = random % total;
  for (const T& item : items) {
    const std::uint64_t weight = weight_of(item);
    if (at < weight) return {item, random / total};
    at -= weight;
  }
  return {items.back(), random / total};
}

/// What choose_endpoint can give, for people: each endpoint with its weight. `random` values that are below the sum of
/// the weights choose in this order, as many for each endpoint as its weight. Where there is none `reason` says why.
struct Choices {
  struct Weighted {
    WorkloadPtr workload;
    Endpoint target;
    std::uint64_t weight = 0;
  };
  std::vector<Weighted> endpoints;
  std::string reason;
};
[[nodiscard]] Choices possible_endpoints(const State& state, const Workload& source, const Service& service,
                                         const Endpoint& original, TargetPort target = TargetPort::kNamed);

}  // namespace weft::state
