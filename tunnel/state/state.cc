// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/state.h"

#include <algorithm>
#include <set>

#include "tunnel/state/names.h"
#include "tunnel/state/state_edit.h"

namespace weft::state {
namespace {

/// A key as an error shows it: whole, unless somebody plays with it.
std::string shown(const std::string& key) { return excerpt(key, 300); }

const std::string& key_of(const Workload& workload) { return workload.uid; }
std::string key_of(const Service& service) { return service.key(); }
std::string key_of(const Policy& policy) { return policy.key(); }

Failure duplicate(const char* kind, const std::string& key) {
  return fail(ErrorCode::kInvalid, std::string("two ") + kind + " have the key " + shown(key));
}

std::string in_network(const std::string& what, const std::string& network) {
  return what + " in network " + in_quotes(network);
}

/// The key that two of them have, "" where there is none.
template <class T>
std::string twice(const std::vector<T>& objects) {
  std::set<std::string> keys;
  for (const T& object : objects) {
    std::string key = key_of(object);
    if (!keys.insert(key).second) return key;
  }
  return "";
}

/// Who holds an address in a network, null where nobody does.
template <class T>
std::shared_ptr<const T> holder_of(const std::map<std::string, SharedMap<IpAddress, Claims<T>>, std::less<>>& networks,
                                   std::string_view network, const IpAddress& address) {
  const auto in = networks.find(network);
  if (in == networks.end()) return nullptr;
  const auto* claims = in->second.find(address);
  return claims == nullptr ? nullptr : claims->holder();
}

/// In the order in which they came.
template <class T, class Index>
std::vector<std::shared_ptr<const T>> by_arrival(const Index& index) {
  std::vector<std::pair<std::uint64_t, const std::shared_ptr<const T>*>> order;
  order.reserve(index.size());
  index.each([&](const auto& /*key*/, const auto& arrived) {
    order.emplace_back(arrived.order, &arrived.object);
    return true;
  });
  std::ranges::sort(order);
  std::vector<std::shared_ptr<const T>> out;
  out.reserve(order.size());
  for (const auto& [number, object] : order) out.push_back(*object);
  return out;
}

template <class T>
std::vector<std::shared_ptr<const T>> share(std::vector<T> objects) {
  std::vector<std::shared_ptr<const T>> out;
  out.reserve(objects.size());
  for (auto& object : objects) out.push_back(std::make_shared<const T>(std::move(object)));
  return out;
}

}  // namespace

Result<std::shared_ptr<const State>> State::build(StateInput input) {
  for (const auto& workload : input.workloads) {
    if (workload.uid.empty()) return fail(ErrorCode::kInvalid, "workload " + shown(workload.name) + " has no uid");
  }
  if (auto key = twice(input.workloads); !key.empty()) return duplicate("workloads", key);
  if (auto key = twice(input.services); !key.empty()) return duplicate("services", key);
  if (auto key = twice(input.policies); !key.empty()) return duplicate("policies", key);
  auto state = empty()->with({.workloads = share(std::move(input.workloads)),
                              .services = share(std::move(input.services)),
                              .removed_workloads = {},
                              .removed_services = {},
                              .policies = share(std::move(input.policies))});
  if (const auto contests = state->contests(); !contests.empty())
    return fail(ErrorCode::kInvalid, contests.front().text);
  return state;
}

std::shared_ptr<const State> State::with(StateChange change) const {
  const auto next = std::make_shared<State>(*this);
  StateEdit(*this, *next).apply(std::move(change));
  return next;
}

std::shared_ptr<const State> State::empty() {
  static const auto state = std::make_shared<const State>();
  return state;
}

WorkloadPtr State::workload_by_uid(std::string_view uid) const {
  const auto* found = by_uid_.find(uid);
  return found == nullptr ? nullptr : found->object;
}

WorkloadPtr State::workload_by_address(std::string_view network, const IpAddress& address) const {
  return holder_of(by_address_, network, address);
}

bool State::names(const IpAddress& address) const {
  const auto has = [&](const auto& of_network) { return of_network.second.contains(address); };
  if (host_addresses_.contains(address) || std::ranges::any_of(by_address_, has) || std::ranges::any_of(by_vip_, has)) {
    return true;
  }
  return std::ranges::any_of(*by_range_, [&](const auto& of_network) {
    return std::ranges::any_of(of_network.second, [&](const auto& range) { return range.first.contains(address); });
  });
}

WorkloadPtr State::workload_by_pod(std::string_view namespace_name, std::string_view name) const {
  const auto* found = by_pod_.find(std::string(namespace_name) + "/" + std::string(name));
  return found == nullptr ? nullptr : found->holder();
}

ServicePtr State::service_by_key(std::string_view namespace_and_hostname) const {
  const auto* found = by_key_.find(namespace_and_hostname);
  return found == nullptr ? nullptr : found->object;
}

const std::vector<ServicePtr>& State::services_by_hostname(std::string_view hostname) const {
  static const std::vector<ServicePtr> none;
  const auto* found = by_hostname_.find(small_letters(std::string(hostname)));
  return found == nullptr ? none : *found;
}

ServicePtr State::service_by_vip(std::string_view network, const IpAddress& address) const {
  if (auto exact = holder_of(by_vip_, network, address)) return exact;
  const auto ranges = by_range_->find(network);
  if (ranges == by_range_->end()) return nullptr;
  const auto found =
      std::ranges::find_if(ranges->second, [&](const auto& entry) { return entry.first.contains(address); });
  return found == ranges->second.end() ? nullptr : found->second.holder();
}

const std::vector<ServiceEndpoint>& State::endpoints(std::string_view service_key) const {
  static const std::vector<ServiceEndpoint> none;
  const auto* found = endpoints_.find(service_key);
  return found == nullptr ? none : **found;
}

PolicyPtr State::policy_by_key(std::string_view key) const {
  const auto found = policies_->by_key.find(key);
  return found == policies_->by_key.end() ? nullptr : found->second;
}

const std::vector<PolicyPtr>& State::namespace_policies(std::string_view namespace_name) const {
  static const std::vector<PolicyPtr> none;
  const auto found = policies_->by_namespace.find(namespace_name);
  return found == policies_->by_namespace.end() ? none : found->second;
}

std::vector<WorkloadPtr> State::workloads() const { return by_arrival<Workload>(by_uid_); }
std::vector<ServicePtr> State::services() const { return by_arrival<Service>(by_key_); }

std::vector<State::Contest> State::contests() const {
  std::vector<Contest> out;
  // A line for each who claims it in vain, beside who holds it.
  const auto add = [&](const char* kind, const auto& claims, const std::string& what) {
    const std::string holder = key_of(*claims.holder());
    bool after_holder = false;
    for (const auto& claim : claims.all()) {
      if (out.size() >= kContestsMax) return false;
      after_holder |= claim.object == claims.holder();
      if (claim.object == claims.holder()) continue;
      const std::string other = key_of(*claim.object);
      out.push_back({.text = std::string(kind) + "s " + shown(after_holder ? holder : other) + " and " +
                             shown(after_holder ? other : holder) + " both have " + what,
                     .holder = holder});
    }
    return true;
  };
  const auto add_all = [&](const char* kind, const char* what, const auto& contested, const auto& by_address) {
    contested.each([&](const NetworkAddress& at, std::monostate) {
      return add(kind, *by_address.find(at.network)->second.find(at.address),
                 in_network(what + at.address.to_string(), at.network));
    });
  };
  add_all("workload", "address ", contested_addresses_, by_address_);
  add_all("service", "VIP ", contested_vips_, by_vip_);
  for (const auto& [network, ranges] : *by_range_) {
    for (const auto& [cidr, claims] : ranges) {
      if (claims.contested()) add("service", claims, in_network("VIPs " + cidr.to_string(), network));
    }
  }
  return out;
}

std::vector<std::string> State::conflicts() const {
  std::vector<std::string> out;
  for (const Contest& contest : contests())
    out.push_back(contest.text + ": it is taken for that of " + shown(contest.holder));
  return out;
}

}  // namespace weft::state
