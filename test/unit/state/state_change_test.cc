// SPDX-License-Identifier: Apache-2.0
/// Snapshots made of changes: each must be what one made from nothing is, and those before it must stay what they were.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

constexpr int kWorkloads = 12, kServices = 6, kAddresses = 8, kNetworks = 2;

std::string key_of(const WorkloadPtr& workload) { return workload ? workload->uid : "-"; }
std::string key_of(const ServicePtr& service) { return service ? service->key() : "-"; }
IpAddress address(int index) { return ip("10.0.0." + std::to_string(1 + index)); }
std::string network(int index) { return index == 0 ? "" : "remote"; }
std::string hostname(int index) {
  // Two share a hostname; half are of Kubernetes.
  const std::string name = "s" + std::to_string(index / 2 * 2);
  return index % 4 < 2 ? name + ".ns.svc.cluster.local" : name + ".example.com";
}
std::string namespace_of(int service) { return service % 2 == 0 ? "ns" : "other"; }
std::string uid(int index) {
  return index % 4 == 3 ? "entry-" + std::to_string(index) : "Kubernetes//Pod/ns/p" + std::to_string(index);
}

/// All that can be asked of a snapshot, in words.
std::string described(const State& state) {
  std::ostringstream out;
  for (const auto& workload : state.workloads()) out << workload->uid << ' ';
  for (const auto& service : state.services()) out << service->key() << ' ';
  out << state.workload_count() << ' ' << state.service_count() << '\n';
  std::multiset<std::string> each;
  state.each_workload([&](const Workload& workload) { each.insert(workload.uid); });
  for (const auto& one : each) out << one << ' ';
  for (int i = 0; i < kWorkloads; ++i) {
    out << key_of(state.workload_by_uid(uid(i))) << ' '
        << key_of(state.workload_by_pod("ns", "p" + std::to_string(i / 2))) << ' ';
  }
  for (int n = 0; n < kNetworks; ++n) {
    for (int i = 0; i < kAddresses; ++i) {
      out << key_of(state.workload_by_address(network(n), address(i))) << ' '
          << key_of(state.service_by_vip(network(n), address(i))) << ' ' << state.names(address(i)) << '\n';
    }
    out << key_of(state.service_by_vip(network(n), ip("10.2.1.1"))) << ' '
        << key_of(state.service_by_vip(network(n), ip("10.2.200.1"))) << '\n';
  }
  for (int i = 0; i < kServices; ++i) {
    const std::string key = namespace_of(i) + "/" + hostname(i);
    out << key_of(state.service_by_key(key)) << ':';
    for (const auto& endpoint : state.endpoints(key)) out << endpoint.workload->uid << endpoint.ports->size() << ' ';
    for (const auto& service : state.services_by_hostname(hostname(i))) out << service->key() << ' ';
    out << '\n';
  }
  const auto addresses = [&](const State::Addresses& all) {
    for (const auto& one : all.addresses) out << one.to_string() << ' ';
    for (const auto& one : all.cidrs) out << one.to_string() << ' ';
    out << '\n';
  };
  addresses(*state.mesh_addresses());
  addresses(state.named_addresses());
  for (const auto& policy : state.policies()) out << policy->key() << state.policy_by_key(policy->key())->name << ' ';
  for (const auto& policy : state.global_policies()) out << policy->key() << ' ';
  for (const auto& policy : state.namespace_policies("ns")) out << policy->key() << ' ';
  auto conflicts = state.conflicts();
  std::ranges::sort(conflicts);
  for (const auto& conflict : conflicts) out << conflict << '\n';
  return out.str();
}

/// Objects that get into each other's way as often as they can.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}
  int below(int end) { return static_cast<int>(random_() % static_cast<unsigned>(end)); }
  bool one_in(int count) { return below(count) == 0; }

  WorkloadPtr workload(int index) {
    Workload out;
    out.uid = uid(index);
    out.namespace_name = "ns";
    out.name = "p" + std::to_string(index / 2);
    out.network = network(one_in(4) ? 1 : 0);
    for (int i = below(3); i >= 0; --i) out.addresses.push_back(address(below(kAddresses)));
    out.protocol = one_in(2) ? TunnelProtocol::kHbone : TunnelProtocol::kTcp;
    if (one_in(6)) out.network_mode = NetworkMode::kHostNetwork;
    if (one_in(6)) out.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
    for (int i = below(3); i > 0; --i) {
      const int service = below(kServices);
      auto& ports = out.services[namespace_of(service) + "/" + hostname(service)];
      for (int port = below(3); port > 0; --port) ports[static_cast<std::uint16_t>(port)] = 80;
    }
    return std::make_shared<const Workload>(std::move(out));
  }
  ServicePtr service(int index) {
    Service out = test::service(hostname(index), {});
    out.namespace_name = namespace_of(index);
    for (int i = below(3); i > 0; --i) out.vips.push_back({network(one_in(4) ? 1 : 0), address(below(kAddresses))});
    for (int i = below(3); i > 0; --i) {
      out.cidr_vips.push_back({network(one_in(4) ? 1 : 0), range(one_in(2) ? "10.2.0.0/16" : "10.2.1.0/24")});
    }
    if (one_in(5)) out.waypoint = GatewayAddress{NamespacedHostname{"ns", "wp"}};
    if (one_in(5)) out.load_balancer = LoadBalancer{LoadBalancerMode::kPassthrough, {}, HealthPolicy::kAllowAll};
    return std::make_shared<const Service>(std::move(out));
  }
  PolicyPtr policy(int index) {
    Policy out;
    out.name = "policy-" + std::to_string(index);
    out.namespace_name = "ns";
    out.scope = one_in(2) ? PolicyScope::kGlobal : PolicyScope::kNamespace;
    return std::make_shared<const Policy>(std::move(out));
  }

 private:
  std::minstd_rand random_;
};

/// What is there, in the order in which it came.
struct Model {
  std::vector<WorkloadPtr> workloads;
  std::vector<ServicePtr> services;
  std::vector<PolicyPtr> policies;

  void remove_workload(const std::string& uid) {
    std::erase_if(workloads, [&](const auto& one) { return one->uid == uid; });
  }
  void remove_service(const std::string& key) {
    std::erase_if(services, [&](const auto& one) { return one->key() == key; });
  }
  [[nodiscard]] std::shared_ptr<const State> from_nothing() const {
    return State::empty()->with({.workloads = workloads,
                                 .services = services,
                                 .removed_workloads = {},
                                 .removed_services = {},
                                 .policies = policies});
  }
};

StateChange any_change(Generator& random, Model& model) {
  StateChange out;
  std::set<int> workloads, services;
  for (int i = random.below(4); i > 0; --i) workloads.insert(random.below(kWorkloads));
  for (int i = random.below(3); i > 0; --i) services.insert(random.below(kServices));
  for (const int index : workloads) {
    model.remove_workload(uid(index));
    if (random.one_in(3)) {
      out.removed_workloads.push_back(uid(index));
    } else {
      model.workloads.push_back(out.workloads.emplace_back(random.workload(index)));
    }
  }
  for (const int index : services) {
    const std::string key = namespace_of(index) + "/" + hostname(index);
    model.remove_service(key);
    // As the source does it: what comes anew is removed as well.
    if (random.one_in(2)) out.removed_services.push_back(key);
    if (random.one_in(3)) {
      out.removed_services.push_back(key);
    } else {
      model.services.push_back(out.services.emplace_back(random.service(index)));
    }
  }
  if (random.one_in(4)) {
    model.policies.clear();
    for (int i = random.below(4); i > 0; --i) model.policies.push_back(random.policy(i));
    out.policies = model.policies;
  }
  return out;
}

TEST(StateChange, EachSnapshotIsWhatOneFromNothingIs) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Generator random(seed);
    Model model;
    std::vector<std::pair<std::shared_ptr<const State>, std::string>> before;
    auto state = State::empty();
    for (int i = 0; i < 40; ++i) {
      SCOPED_TRACE("change " + std::to_string(i));
      state = state->with(any_change(random, model));
      before.emplace_back(state, described(*state));
      ASSERT_EQ(before.back().second, described(*model.from_nothing()));
    }
    for (const auto& [older, words] : before) ASSERT_EQ(described(*older), words);
  }
}

/// For ThreadSanitizer: what readers have is never written to.
TEST(StateChange, ReadersGoOnWhileTheNextIsMade) {
  Generator random(3);
  Model model;
  std::mutex mutex;
  auto state = State::empty();
  std::atomic<bool> done = false;
  std::atomic<int> reads = 0;
  const auto read = [&] {
    while (!done) {
      std::unique_lock lock(mutex);
      const auto mine = state;
      lock.unlock();
      const std::string words = described(*mine);
      ASSERT_EQ(described(*mine), words);
      ++reads;
    }
  };
  std::jthread first(read), second(read);
  for (int i = 0; i < 300 || reads < 50; ++i) {
    auto next = state->with(any_change(random, model));
    const std::scoped_lock lock(mutex);
    state = std::move(next);
  }
  done = true;
}

TEST(StateChange, NothingIsLeftWhenAllIsGone) {
  Generator random(1);
  StateChange all, none;
  for (int i = 0; i < kWorkloads; ++i) {
    all.workloads.push_back(random.workload(i));
    none.removed_workloads.push_back(uid(i));
  }
  for (int i = 0; i < kServices; ++i) {
    all.services.push_back(random.service(i));
    none.removed_services.push_back(all.services.back()->key());
  }
  const auto state = State::empty()->with(std::move(all))->with(std::move(none));
  EXPECT_EQ(described(*state), described(*State::empty()));
}

TEST(StateChange, AddressesThatStayAreTheSameList) {
  const auto state = build({pod("a", {"10.0.0.1"}), pod("b", {"10.0.0.2"})});
  Workload changed = pod("a", {"10.0.0.1"});
  changed.status = HealthStatus::kUnhealthy;
  StateChange change;
  change.workloads.push_back(std::make_shared<const Workload>(changed));
  const auto next = state->with(change);
  EXPECT_EQ(next->mesh_addresses(), state->mesh_addresses());
  EXPECT_EQ(&next->policies(), &state->policies());
  EXPECT_EQ(next->workload_by_uid(changed.uid)->status, HealthStatus::kUnhealthy);
  EXPECT_EQ(state->workload_by_uid(changed.uid)->status, HealthStatus::kHealthy);
}

TEST(StateChange, OfTwoWithOneKeyTheLaterCounts) {
  StateChange change;
  for (const char* address : {"10.0.0.1", "10.0.0.2"})
    change.workloads.push_back(std::make_shared<const Workload>(pod("a", {address})));
  const auto state = State::empty()->with(change);
  EXPECT_EQ(state->workload_count(), 1U);
  EXPECT_EQ(state->workload_by_address("", ip("10.0.0.1")), nullptr);
  EXPECT_NE(state->workload_by_address("", ip("10.0.0.2")), nullptr);
}

}  // namespace
}  // namespace weft::state::test
