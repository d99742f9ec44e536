// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/state.h"

#include <algorithm>
#include <optional>

#include "tunnel/state/names.h"

namespace weft::state {
namespace {

/// The value under `key`, or `fallback` where there is none.
template <class Index, class Value>
const Value& find_or(const Index& index, std::string_view key, const Value& fallback) {
  const auto found = index.find(key);
  return found == index.end() ? fallback : found->second;
}

/// A key as an error shows it: whole, unless somebody plays with it.
std::string shown(const std::string& key) { return excerpt(key, 300); }

std::string in_network(const std::string& address, const std::string& network) {
  return address + " in network \"" + excerpt(network) + "\"";
}

Failure conflict(const char* kind, const std::string& first, const std::string& second, const std::string& what) {
  return fail(ErrorCode::kInvalid,
              std::string(kind) + "s " + shown(first) + " and " + shown(second) + " both have " + what);
}

Failure duplicate(const char* kind, const std::string& key) {
  return fail(ErrorCode::kInvalid, std::string("two ") + kind + " have the key " + shown(key));
}

template <class T>
std::vector<std::shared_ptr<const T>> share(std::vector<T> objects) {
  std::vector<std::shared_ptr<const T>> out;
  out.reserve(objects.size());
  for (auto& object : objects) out.push_back(std::make_shared<const T>(std::move(object)));
  return out;
}

}  // namespace

Result<void> State::index_workloads() {
  for (const auto& workload : workloads_) {
    if (workload->uid.empty()) return fail(ErrorCode::kInvalid, "workload " + shown(workload->name) + " has no uid");
    if (!by_uid_.emplace(workload->uid, workload).second) return duplicate("workloads", workload->uid);
    by_pod_.emplace(workload->namespace_name + "/" + workload->name, workload);
    for (const auto& [service, ports] : workload->services) endpoints_[service].push_back({workload, ports});
    if (workload->network_mode == NetworkMode::kHostNetwork) {
      host_addresses_.insert(workload->addresses.begin(), workload->addresses.end());
      continue;
    }
    auto& network = by_address_[workload->network];
    for (const auto& address : workload->addresses) {
      const auto [at, added] = network.emplace(address, workload);
      if (!added && at->second != workload) {
        return conflict("workload", at->second->uid, workload->uid,
                        "address " + in_network(address.to_string(), workload->network));
      }
    }
  }
  // By uid, so that the same random number means the same endpoint whatever the order of the input.
  for (auto& [service, endpoints] : endpoints_) {
    std::ranges::sort(endpoints, {}, [](const ServiceEndpoint& e) { return std::string_view(e.workload->uid); });
  }
  return {};
}

Result<void> State::index_services() {
  for (const auto& service : services_) {
    if (!by_key_.emplace(service->key(), service).second) return duplicate("services", service->key());
    by_hostname_[small_letters(service->hostname)].push_back(service);
    for (const auto& vip : service->vips) {
      const auto [at, added] = by_vip_[vip.network].emplace(vip.address, service);
      if (!added && at->second != service) {
        return conflict("service", at->second->key(), service->key(),
                        "VIP " + in_network(vip.address.to_string(), vip.network));
      }
    }
    for (const auto& [network, cidr] : service->cidr_vips) {
      auto& ranges = by_cidr_[network];
      const auto same = std::ranges::find(ranges, cidr, [](const auto& entry) { return entry.first; });
      if (same == ranges.end()) {
        ranges.emplace_back(cidr, service);
      } else if (same->second != service) {
        return conflict("service", same->second->key(), service->key(),
                        "VIPs " + in_network(cidr.to_string(), network));
      }
    }
  }
  for (auto& [network, ranges] : by_cidr_) {
    std::ranges::stable_sort(ranges, std::greater<>(), [](const auto& entry) { return entry.first.length; });
  }
  return {};
}

Result<void> State::index_policies() {
  for (const auto& policy : policies_) {
    if (!policy_by_key_.emplace(policy->key(), policy).second) return duplicate("policies", policy->key());
    if (policy->scope == PolicyScope::kGlobal) global_policies_.push_back(policy);
    if (policy->scope == PolicyScope::kNamespace) by_namespace_[policy->namespace_name].push_back(policy);
  }
  return {};
}

Result<std::shared_ptr<const State>> State::build(StateInput input) {
  const auto state = std::make_shared<State>();
  state->workloads_ = share(std::move(input.workloads));
  state->services_ = share(std::move(input.services));
  state->policies_ = share(std::move(input.policies));
  for (const auto index : {&State::index_workloads, &State::index_services, &State::index_policies}) {
    if (auto done = ((*state).*index)(); !done) return Failure(done.error());
  }
  return std::shared_ptr<const State>(state);
}

std::shared_ptr<const State> State::empty() {
  static const auto state = std::make_shared<const State>();
  return state;
}

WorkloadPtr State::workload_by_uid(std::string_view uid) const { return find_or(by_uid_, uid, WorkloadPtr()); }

WorkloadPtr State::workload_by_address(std::string_view network, const IpAddress& address) const {
  const auto in = by_address_.find(network);
  if (in == by_address_.end()) return nullptr;
  const auto found = in->second.find(address);
  return found == in->second.end() ? nullptr : found->second;
}

bool State::names(const IpAddress& address) const {
  const auto has = [&](const auto& of_network) { return of_network.second.contains(address); };
  if (host_addresses_.contains(address) || std::ranges::any_of(by_address_, has) || std::ranges::any_of(by_vip_, has)) {
    return true;
  }
  return std::ranges::any_of(by_cidr_, [&](const auto& of_network) {
    return std::ranges::any_of(of_network.second, [&](const auto& range) { return range.first.contains(address); });
  });
}

WorkloadPtr State::workload_by_pod(std::string_view namespace_name, std::string_view name) const {
  return find_or(by_pod_, std::string(namespace_name) + "/" + std::string(name), WorkloadPtr());
}

ServicePtr State::service_by_key(std::string_view namespace_and_hostname) const {
  return find_or(by_key_, namespace_and_hostname, ServicePtr());
}

const std::vector<ServicePtr>& State::services_by_hostname(std::string_view hostname) const {
  static const std::vector<ServicePtr> none;
  return find_or(by_hostname_, small_letters(std::string(hostname)), none);
}

ServicePtr State::service_by_vip(std::string_view network, const IpAddress& address) const {
  if (const auto exact = by_vip_.find(network); exact != by_vip_.end()) {
    if (const auto found = exact->second.find(address); found != exact->second.end()) return found->second;
  }
  const auto ranges = by_cidr_.find(network);
  if (ranges == by_cidr_.end()) return nullptr;
  const auto found =
      std::ranges::find_if(ranges->second, [&](const auto& entry) { return entry.first.contains(address); });
  return found == ranges->second.end() ? nullptr : found->second;
}

const std::vector<ServiceEndpoint>& State::endpoints(std::string_view service_key) const {
  static const std::vector<ServiceEndpoint> none;
  return find_or(endpoints_, service_key, none);
}

PolicyPtr State::policy_by_key(std::string_view key) const { return find_or(policy_by_key_, key, PolicyPtr()); }

const std::vector<PolicyPtr>& State::namespace_policies(std::string_view namespace_name) const {
  static const std::vector<PolicyPtr> none;
  return find_or(by_namespace_, namespace_name, none);
}

}  // namespace weft::state
