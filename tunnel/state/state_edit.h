// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tunnel/state/state.h"

namespace weft::state {

/// Makes a snapshot of a copy of the one before it: State::with(). Used once.
class StateEdit {
 public:
  /// `next` is a copy of `before`, and nobody else's yet.
  StateEdit(const State& before, State& next) : before_(before), next_(next) {}
  void apply(StateChange change);

 private:
  /// How many more, or fewer, make each of them one of the mesh's.
  struct Delta {
    std::unordered_map<IpAddress, int> addresses;
    std::unordered_map<Cidr, int> ranges;
  };
  struct EndpointChange {
    std::unordered_set<const Workload*> removed;
    std::vector<ServiceEndpoint> added;
  };

  void touch(const Workload& workload);
  void count(const Workload& workload, int by);
  void count(const State& state, const std::string& service_key, int by);
  void add(const WorkloadPtr& workload);
  void remove(const Workload& workload);
  void add(const ServicePtr& service);
  void remove(const Service& service);
  template <class T>
  void claim(State::ByAddress<T>& networks, State::Contested& contested, const NetworkAddress& at,
             typename Claims<T>::Claim claim);
  template <class T>
  void unclaim(State::ByAddress<T>& networks, State::Contested& contested, const NetworkAddress& at, const T& object);
  State::Ranges& ranges();
  void set_endpoints();
  void set_policies(std::vector<PolicyPtr> policies);
  void set_mesh();

  const Edit edit_;
  const State& before_;
  State& next_;
  std::set<std::string> services_;  ///< those of which another address may be captured now
  std::unordered_map<std::string, EndpointChange> endpoints_;
  std::shared_ptr<State::Ranges> ranges_;  ///< next_'s own, where it has any
  Delta delta_;
};

}  // namespace weft::state
