// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/directory.h"

#include <algorithm>

namespace weft::dns {
namespace {

using state::Service;
using state::ServicePtr;

/// `name` without the domain at its end; empty where it does not end so.
std::string_view without(std::string_view name, std::string_view domain) {
  if (name.size() <= domain.size() + 1 || !name.ends_with(domain)) return {};
  name.remove_suffix(domain.size());
  if (!name.ends_with('.')) return {};
  name.remove_suffix(1);
  return name;
}

bool is_kubernetes(const Service& service, std::string_view cluster_domain) {
  return !without(service.hostname, "svc." + std::string(cluster_domain)).empty();
}

class Spellings {
 public:
  Spellings(std::string_view namespace_name, std::string_view cluster_domain)
      : namespace_(namespace_name), domain_(cluster_domain) {}

  /// As it is, and in full where it may be a short name of Kubernetes.
  void add(std::string_view name) {
    insert(std::string(name));
    switch (std::ranges::count(name, '.')) {
      case 0:
        return insert(join({name, namespace_, "svc", domain_}));
      case 1:
        return insert(join({name, "svc", domain_}));
      case 2:
        if (name.ends_with(".svc")) insert(join({name, domain_}));
        return;
      default:
        return;
    }
  }
  [[nodiscard]] std::vector<std::string> take() { return std::move(all_); }
  static std::string join(std::initializer_list<std::string_view> labels) {
    std::string out;
    for (const auto& label : labels) {
      if (!out.empty()) out += '.';
      out += label;
    }
    return out;
  }

 private:
  void insert(std::string name) {
    if (std::ranges::find(all_, name) == all_.end()) all_.push_back(std::move(name));
  }
  std::string_view namespace_, domain_;
  std::vector<std::string> all_;
};

ServicePtr choose(const std::vector<ServicePtr>& services, const Client& client, std::string_view cluster_domain) {
  ServicePtr best;
  const auto rank = [&](const Service& service) { return state::hostname_rank(service, client.namespace_name); };
  for (const auto& service : services) {
    const bool own = service->namespace_name == client.namespace_name;
    if (service->visibility == state::Visibility::kNamespace && !own) continue;
    if (service->vips.empty() && !is_kubernetes(*service, cluster_domain)) continue;
    if (!best || rank(*service) > rank(*best)) best = service;
  }
  return best;
}

/// The service that has this name, or one of the wildcards that stand for it.
ServicePtr match(const state::State& state, const Client& client, const std::string& name,
                 std::string_view cluster_domain) {
  if (auto exact = choose(state.services_by_hostname(name), client, cluster_domain)) return exact;
  for (auto dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    auto wildcard = choose(state.services_by_hostname("*" + name.substr(dot)), client, cluster_domain);
    if (wildcard) return wildcard;
  }
  return nullptr;
}

std::vector<IpAddress> addresses_of(const state::State& state, const Client& client, const Service& service) {
  std::vector<IpAddress> out;
  for (const auto& vip : service.vips) {
    if (vip.network == client.network) out.push_back(vip.address);
  }
  if (!service.vips.empty()) return out;
  const bool all = service.load_balancer && service.load_balancer->health_policy == state::HealthPolicy::kAllowAll;
  for (const auto& endpoint : state.endpoints(service.key())) {
    const state::Workload& workload = *endpoint.workload;
    if (workload.network != client.network) continue;
    if (!all && workload.status != state::HealthStatus::kHealthy) continue;
    out.insert(out.end(), workload.addresses.begin(), workload.addresses.end());
  }
  return out;
}

}  // namespace

std::vector<std::string> spellings(std::string_view name, std::string_view namespace_name,
                                   std::string_view cluster_domain) {
  Spellings all(namespace_name, cluster_domain);
  all.add(name);
  const std::string services = Spellings::join({"svc", cluster_domain});
  const std::string own = Spellings::join({namespace_name, services});
  for (const std::string_view domain : {std::string_view(own), std::string_view(services), cluster_domain}) {
    if (const auto rest = without(name, domain); !rest.empty()) all.add(rest);
  }
  return all.take();
}

std::optional<KnownName> find_name(const state::State& state, const Client& client, std::string_view name,
                                   std::string_view cluster_domain) {
  if (name.empty()) return {};
  for (const auto& spelling : spellings(name, client.namespace_name, cluster_domain)) {
    if (auto service = match(state, client, spelling, cluster_domain)) {
      auto addresses = addresses_of(state, client, *service);
      return KnownName{std::move(service), std::move(addresses)};
    }
  }
  return {};
}

}  // namespace weft::dns
