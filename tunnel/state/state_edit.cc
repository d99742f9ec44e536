// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/state_edit.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "tunnel/state/captured.h"
#include "tunnel/state/names.h"

namespace weft::state {
namespace {

/// Who may hold an address that several claim. Who runs in a cluster may describe a workload with any address; a pod's
/// is the kubelet's word.
int rank(const Workload& workload) {
  const bool pod = workload.uid.find("//Pod/") != std::string::npos;
  return (pod ? 2 : 0) + (workload.protocol == TunnelProtocol::kHbone ? 1 : 0);
}

/// The same of VIPs: Kubernetes gives each of its own to one Service; a ServiceEntry may say any.
int rank(const Service& service) {
  return service.hostname.starts_with(service.name + "." + service.namespace_name + ".svc.") ? 1 : 0;
}

std::string pod_of(const Workload& workload) { return workload.namespace_name + "/" + workload.name; }

std::string_view uid_of(const ServiceEndpoint& endpoint) { return endpoint.workload->uid; }

/// Of a set: what is new in it, and what is not in it any more.
template <class T>
struct Members {
  std::vector<T> came, went;
};

/// Where a range is among those of its network, or would be.
template <class Sorted>
auto place_of(Sorted& ranges, const Cidr& range) {
  const auto key = [](const Cidr& of) { return std::pair(-int{of.length}, of.address); };
  return std::ranges::lower_bound(ranges, key(range), {}, [&](const auto& entry) { return key(entry.first); });
}

/// Adds what the counts change by to `counts`. The values that came and those that went, sorted.
template <class T>
Members<T> adjust(SharedMap<T, std::uint32_t>& counts, const std::unordered_map<T, int>& by, const Edit& edit) {
  Members<T> out;
  for (const auto& [value, difference] : by) {
    if (difference == 0) continue;
    std::uint32_t& number = counts.at(value, edit);
    if (number == 0) out.came.push_back(value);
    number += static_cast<std::uint32_t>(difference);
    if (number > 0) continue;
    out.went.push_back(value);
    counts.erase(value, edit);
  }
  std::ranges::sort(out.came);
  std::ranges::sort(out.went);
  return out;
}

/// `sorted` with those that came and without those that went.
template <class T>
std::vector<T> merged(const std::vector<T>& sorted, const Members<T>& members) {
  std::vector<T> kept, out;
  kept.reserve(sorted.size());
  std::ranges::set_difference(sorted, members.went, std::back_inserter(kept));
  if (members.came.empty()) return kept;
  out.reserve(kept.size() + members.came.size());
  std::ranges::merge(kept, members.came, std::back_inserter(out));
  return out;
}

}  // namespace

void StateEdit::apply(StateChange change) {
  // What each is now, before anything of it changes. Of two with one key the later counts.
  std::unordered_map<std::string_view, WorkloadPtr> workloads;
  std::unordered_map<std::string, ServicePtr> services;
  for (const auto& uid : change.removed_workloads) workloads[uid] = nullptr;
  for (const auto& key : change.removed_services) services[key] = nullptr;
  for (const auto& workload : change.workloads) workloads[workload->uid] = workload;
  for (const auto& service : change.services) services[service->key()] = service;
  std::vector<WorkloadPtr> old_workloads;
  std::vector<ServicePtr> old_services;
  for (const auto& [uid, workload] : workloads) {
    if (auto old = before_.workload_by_uid(uid)) old_workloads.push_back(std::move(old));
    if (workload) touch(*workload);
  }
  for (const auto& old : old_workloads) touch(*old);
  for (const auto& [key, service] : services) {
    if (auto old = before_.service_by_key(key)) old_services.push_back(std::move(old));
    services_.insert(key);
  }

  for (const auto& old : old_workloads) count(*old, -1);
  for (const auto& key : services_) count(before_, key, -1);
  for (const auto& old : old_workloads) remove(*old);
  for (const auto& old : old_services) remove(*old);
  // In the order in which they came.
  for (const auto& workload : change.workloads) {
    if (workloads[workload->uid] == workload) add(workload);
  }
  set_endpoints();
  for (const auto& service : change.services) {
    if (services[service->key()] == service) add(service);
  }
  if (ranges_) next_.by_range_ = std::move(ranges_);
  for (const auto& [uid, workload] : workloads) {
    if (workload) count(*workload, 1);
  }
  for (const auto& key : services_) count(next_, key, 1);
  set_mesh();
  if (change.policies) set_policies(std::move(*change.policies));
  next_.told_ = change.told;
}

/// What is captured of a service is a matter of its endpoints, and of whom its VIP belongs to otherwise.
void StateEdit::touch(const Workload& workload) {
  for (const auto& [key, ports] : workload.services) services_.insert(key);
  const auto network = before_.by_vip_.find(workload.network);
  if (network == before_.by_vip_.end()) return;
  for (const auto& address : workload.addresses) {
    const auto* claims = network->second.find(address);
    if (claims == nullptr) continue;
    for (const auto& claim : claims->all()) services_.insert(claim.object->key());
  }
}

void StateEdit::count(const Workload& workload, int by) {
  if (!is_captured(workload)) return;
  for (const auto& address : workload.addresses) delta_.addresses[address] += by;
}

void StateEdit::count(const State& state, const std::string& service_key, int by) {
  const auto service = state.service_by_key(service_key);
  if (!service || !is_captured(state, *service)) return;
  for (const auto& vip : service->vips) {
    if (is_captured(state, *service, vip)) delta_.addresses[vip.address] += by;
  }
  for (const auto& range : service->cidr_vips) delta_.ranges[range.cidr] += by;
}

template <class T>
void StateEdit::claim(State::ByAddress<T>& networks, State::Contested& contested, const NetworkAddress& at,
                      typename Claims<T>::Claim claim) {
  auto& claims = networks[at.network].at(at.address, edit_);
  claims.add(std::move(claim));
  if (claims.contested()) contested.at(at, edit_);
}

template <class T>
void StateEdit::unclaim(State::ByAddress<T>& networks, State::Contested& contested, const NetworkAddress& at,
                        const T& object) {
  const auto network = networks.find(at.network);
  // An address that an object has twice is gone with the first.
  if (network == networks.end() || !network->second.contains(at.address)) return;
  auto& claims = network->second.at(at.address, edit_);
  claims.remove(&object);
  if (!claims.contested()) contested.erase(at, edit_);
  if (claims.empty()) network->second.erase(at.address, edit_);
  if (network->second.empty()) networks.erase(network);
}

void StateEdit::add(const WorkloadPtr& workload) {
  const std::uint64_t order = ++next_.arrivals_;
  next_.by_uid_.at(workload->uid, edit_) = {workload, order};
  // The first one holds it.
  next_.by_pod_.at(pod_of(*workload), edit_).add({.object = workload, .order = ~order, .rank = 0});
  for (const auto& [service, ports] : workload->services) endpoints_[service].added.push_back({workload, &ports});
  for (const auto& address : workload->addresses) {
    if (workload->network_mode == NetworkMode::kHostNetwork) {
      ++next_.host_addresses_.at(address, edit_);
    } else {
      claim<Workload>(next_.by_address_, next_.contested_addresses_, {workload->network, address},
                      {.object = workload, .order = order, .rank = rank(*workload)});
    }
  }
}

void StateEdit::remove(const Workload& workload) {
  const std::string pod = pod_of(workload);
  auto& claims = next_.by_pod_.at(pod, edit_);
  claims.remove(&workload);
  if (claims.empty()) next_.by_pod_.erase(pod, edit_);
  for (const auto& [service, ports] : workload.services) endpoints_[service].removed.insert(&workload);
  for (const auto& address : workload.addresses) {
    if (workload.network_mode != NetworkMode::kHostNetwork) {
      unclaim(next_.by_address_, next_.contested_addresses_, {workload.network, address}, workload);
    } else if (--next_.host_addresses_.at(address, edit_) == 0) {
      next_.host_addresses_.erase(address, edit_);
    }
  }
  next_.by_uid_.erase(workload.uid, edit_);
}

State::Ranges& StateEdit::ranges() {
  if (!ranges_) ranges_ = std::make_shared<State::Ranges>(*next_.by_range_);
  return *ranges_;
}

void StateEdit::add(const ServicePtr& service) {
  const std::uint64_t order = ++next_.arrivals_;
  const Claims<Service>::Claim own{.object = service, .order = order, .rank = rank(*service)};
  next_.by_key_.at(service->key(), edit_) = {service, order};
  next_.by_hostname_.at(small_letters(service->hostname), edit_).push_back(service);
  for (const auto& vip : service->vips) claim(next_.by_vip_, next_.contested_vips_, vip, own);
  for (const auto& [network, cidr] : service->cidr_vips) {
    auto& of_network = ranges()[network];
    auto at = place_of(of_network, cidr);
    if (at == of_network.end() || at->first != cidr) at = of_network.insert(at, {cidr, {}});
    at->second.add(own);
  }
}

void StateEdit::remove(const Service& service) {
  const std::string hostname = small_letters(service.hostname);
  auto& of_hostname = next_.by_hostname_.at(hostname, edit_);
  std::erase_if(of_hostname, [&](const ServicePtr& one) { return one.get() == &service; });
  if (of_hostname.empty()) next_.by_hostname_.erase(hostname, edit_);
  for (const auto& vip : service.vips) unclaim(next_.by_vip_, next_.contested_vips_, vip, service);
  for (const auto& [network, cidr] : service.cidr_vips) {
    auto& of_network = ranges()[network];
    const auto at = place_of(of_network, cidr);
    if (at == of_network.end() || at->first != cidr) continue;
    at->second.remove(&service);
    if (at->second.empty()) of_network.erase(at);
    if (of_network.empty()) ranges().erase(network);
  }
  next_.by_key_.erase(service.key(), edit_);
}

/// By uid, so that the same random number means the same endpoint whatever the order of the input.
void StateEdit::set_endpoints() {
  for (auto& [key, change] : endpoints_) {
    const auto gone = [&removed = change.removed](const ServiceEndpoint& endpoint) {
      return removed.contains(endpoint.workload.get());
    };
    std::vector<ServiceEndpoint> kept, all;
    const auto& before = next_.endpoints(key);
    kept.reserve(before.size());
    std::ranges::remove_copy_if(before, std::back_inserter(kept), gone);
    std::ranges::sort(change.added, {}, uid_of);
    all.reserve(kept.size() + change.added.size());
    std::ranges::merge(kept, change.added, std::back_inserter(all), {}, uid_of, uid_of);
    if (all.empty()) {
      next_.endpoints_.erase(key, edit_);
    } else {
      next_.endpoints_.at(key, edit_) = std::make_shared<const std::vector<ServiceEndpoint>>(std::move(all));
    }
  }
}

void StateEdit::set_policies(std::vector<PolicyPtr> policies) {
  auto out = std::make_shared<State::Policies>();
  for (const auto& policy : policies) {
    out->by_key.insert_or_assign(policy->key(), policy);
    if (policy->scope == PolicyScope::kGlobal) out->global.push_back(policy);
    if (policy->scope == PolicyScope::kNamespace) out->by_namespace[policy->namespace_name].push_back(policy);
  }
  out->all = std::move(policies);
  next_.policies_ = std::move(out);
}

void StateEdit::set_mesh() {
  const auto addresses = adjust(next_.captured_, delta_.addresses, edit_);
  const auto ranges = adjust(next_.captured_ranges_, delta_.ranges, edit_);
  if (addresses.came.empty() && addresses.went.empty() && ranges.came.empty() && ranges.went.empty()) return;
  next_.mesh_ = std::make_shared<const State::Addresses>(State::Addresses{
      .addresses = merged(next_.mesh_->addresses, addresses), .cidrs = merged(next_.mesh_->cidrs, ranges)});
}

}  // namespace weft::state
