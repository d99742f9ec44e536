// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tunnel/base/shared_map.h"
#include "tunnel/state/claims.h"
#include "tunnel/state/policy.h"
#include "tunnel/state/service.h"
#include "tunnel/state/workload.h"

namespace weft::state {

using WorkloadPtr = std::shared_ptr<const Workload>;
using ServicePtr = std::shared_ptr<const Service>;
using PolicyPtr = std::shared_ptr<const Policy>;

/// What a control source delivered: the raw objects, before indexing.
struct StateInput {
  std::vector<Workload> workloads;
  std::vector<Service> services;
  std::vector<Policy> policies;
};

/// What is different from one snapshot to the next.
struct StateChange {
  std::vector<WorkloadPtr> workloads;                            ///< new ones, or in place of that with the same uid
  std::vector<ServicePtr> services;                              ///< new ones, or in place of that with the same key
  std::vector<std::string> removed_workloads, removed_services;  ///< uids and keys; unknown ones say nothing
  /// All that there are now; unset where they are the same.
  std::optional<std::vector<PolicyPtr>> policies;
  std::uint64_t told = 0;  ///< State::told() of the next one
};

/// One endpoint of a service.
struct ServiceEndpoint {
  WorkloadPtr workload;
  /// Service port to target port on this workload, which has it.
  const std::map<std::uint16_t, std::uint16_t>* ports = nullptr;
};

/// Where a new outbound connection goes.
struct Destination {
  enum class Kind : std::uint8_t {
    kUnknown,  ///< not in the mesh, or a PASSTHROUGH service (`service` is set): dial the original destination as it is
    kDirect,   ///< a known workload without HBONE: dial `target` in the clear
    kHbone,    ///< tunnel to `gateway` (TLS), CONNECT `authority`
    kRefused,  ///< must not be dialled; `reason` says why
  } kind = Kind::kUnknown;
  Endpoint target;       ///< application address and port (the CONNECT authority for kHbone)
  Endpoint hbone;        ///< kHbone: where the TLS connection goes, the workload's address and 15008
  WorkloadPtr workload;  ///< the endpoint chosen, null for kUnknown; where there is a waypoint, one of its own
  ServicePtr service;    ///< the service dialled, null where a workload was dialled by its own address
  /// The waypoint that it goes through, or was to: `target` is then what was dialled, and the rest is the waypoint's.
  std::optional<GatewayAddress> waypoint;
  /// kHbone: URIs of which the server's certificate must carry one.
  std::vector<Identity> expected_identities;
  /// subjectAltNames of the service that the endpoint was chosen from, beside expected_identities.
  std::vector<std::string> expected_sans;
  /// kDirect, kHbone: the name whose address is missing in `target` (and `hbone`); resolved() puts it in. "" otherwise.
  std::string hostname;
  std::string reason;
};

/// An immutable snapshot of everything that the control plane said. Shared between threads without locks; a change
/// makes a new one, which shares what is the same. Owner: whoever holds the shared_ptr.
class State {
 public:
  /// Indexes the input. Errors: kInvalid naming both objects where two claim one uid, one service key, one policy key,
  /// or one address in one network (hostNetwork workloads share addresses freely and are not found by address).
  static Result<std::shared_ptr<const State>> build(StateInput input);
  /// The next snapshot; what it costs is in proportion to the change and to the services that it is about, not to the
  /// mesh. For input that nobody can send back, where one odd object must not hold up a mesh: an address that two claim
  /// goes to the better one, a pod before another workload, HBONE before none, the Service that Kubernetes made before
  /// another, and of equals to the one that came later. conflicts() says which. A workload has a uid.
  [[nodiscard]] std::shared_ptr<const State> with(StateChange change) const;
  static std::shared_ptr<const State> empty();

  [[nodiscard]] WorkloadPtr workload_by_uid(std::string_view uid) const;
  /// By address in `network`; hostNetwork workloads are not found here.
  [[nodiscard]] WorkloadPtr workload_by_address(std::string_view network, const IpAddress& address) const;
  /// The workload of a pod by its namespace and name, the first given where several clusters have one; null where
  /// unknown.
  [[nodiscard]] WorkloadPtr workload_by_pod(std::string_view namespace_name, std::string_view name) const;
  [[nodiscard]] ServicePtr service_by_key(std::string_view namespace_and_hostname) const;
  /// Those of a hostname, in small letters or capitals, in all namespaces; "*.example.com" is a name as any other here.
  [[nodiscard]] const std::vector<ServicePtr>& services_by_hostname(std::string_view hostname) const;
  /// By VIP, exact addresses before the longest CIDR.
  [[nodiscard]] ServicePtr service_by_vip(std::string_view network, const IpAddress& address) const;
  [[nodiscard]] const std::vector<ServiceEndpoint>& endpoints(std::string_view service_key) const;
  [[nodiscard]] PolicyPtr policy_by_key(std::string_view key) const;
  /// Policies of scope global, then those of scope namespace in `namespace_name`.
  [[nodiscard]] const std::vector<PolicyPtr>& global_policies() const { return policies_->global; }
  [[nodiscard]] const std::vector<PolicyPtr>& namespace_policies(std::string_view namespace_name) const;

  /// In no order that means anything.
  template <class See>
  void each_workload(const See& see) const {
    by_uid_.each([&](const std::string& /*uid*/, const Arrived<Workload>& arrived) {
      see(*arrived.object);
      return true;
    });
  }
  /// All of them in the order in which they came; it takes a moment in a large mesh.
  [[nodiscard]] std::vector<WorkloadPtr> workloads() const;
  [[nodiscard]] std::vector<ServicePtr> services() const;
  [[nodiscard]] const std::vector<PolicyPtr>& policies() const { return policies_->all; }
  [[nodiscard]] std::size_t workload_count() const { return by_uid_.size(); }
  [[nodiscard]] std::size_t service_count() const { return by_key_.size(); }

  /// How much of what its source was told is in it: a number of the source's own, which only grows.
  [[nodiscard]] std::uint64_t told() const { return told_; }

  /// Who claims what another one holds, in words; a hundred at most.
  [[nodiscard]] std::vector<std::string> conflicts() const;

  struct Addresses {
    std::vector<IpAddress> addresses;  ///< sorted, unique
    std::vector<Cidr> cidrs;           ///< sorted, unique
    bool operator==(const Addresses&) const = default;
    [[nodiscard]] bool contains(const IpAddress& address) const;
  };
  using AddressesPtr = std::shared_ptr<const Addresses>;
  /// The addresses whose connections must be captured: workloads with HBONE, and VIPs with an HBONE endpoint or a
  /// waypoint, or whose balancing needs us ("What is captured" in ARCHITECTURE.md). Never null; the same pointer as in
  /// the snapshot before where nothing of it changed.
  [[nodiscard]] const AddressesPtr& mesh_addresses() const { return mesh_; }
  /// The addresses of all workloads, hostNetwork ones too, and of all services, in whatever network.
  [[nodiscard]] Addresses named_addresses() const;
  /// Whether it is one of named_addresses().
  [[nodiscard]] bool names(const IpAddress& address) const;

  /// Chooses where a connection from `source` to `original` goes; `random` is any uniformly drawn number and picks
  /// among waypoints (by weight) and equal endpoints (by capacity), so that the caller owns the randomness and tests
  /// are repeatable. `avoid` is not chosen among the endpoints of a service or waypoint. A waypoint goes before all
  /// else, but for what it sends itself; one that cannot be found, or has no usable endpoint, is kRefused. Pure.
  [[nodiscard]] Destination route(const Workload& source, const Endpoint& original, std::uint64_t random,
                                  const Workload* avoid = nullptr) const;

  /// A destination that route() left to be resolved, now that `address` is one of its name's. Where that address is the
  /// mesh's own, it leads where a connection to it leads, because plaintext to it would be dropped; `service` stays the
  /// one that was dialled. One level only: an address that leads to a name again is refused. Pure.
  [[nodiscard]] Destination resolved(const Workload& source, Destination named, const IpAddress& address,
                                     std::uint64_t random) const;

 private:
  friend class StateEdit;
  template <class T>
  using Index = SharedMap<std::string, T, StringHash>;
  template <class T>
  using ByAddress = std::map<std::string, SharedMap<IpAddress, Claims<T>>, std::less<>>;  ///< network, then address
  using Contested = SharedMap<NetworkAddress, std::monostate>;                            ///< a set
  /// By network; longest prefix first.
  using Ranges = std::map<std::string, std::vector<std::pair<Cidr, Claims<Service>>>, std::less<>>;
  template <class T>
  struct Arrived {
    std::shared_ptr<const T> object;
    std::uint64_t order = 0;
  };
  struct Policies {
    std::vector<PolicyPtr> all, global;
    std::map<std::string, PolicyPtr, std::less<>> by_key;
    std::map<std::string, std::vector<PolicyPtr>, std::less<>> by_namespace;
  };
  /// What is contested, and the two that this line is about.
  struct Contest {
    std::string text, holder;
  };
  static constexpr std::size_t kContestsMax = 100;
  [[nodiscard]] std::vector<Contest> contests() const;
  /// Refuses what is a mesh address of another network; anything else stays kUnknown.
  [[nodiscard]] Destination elsewhere(Destination destination, const Workload& source, const Endpoint& original) const;

  Index<Arrived<Workload>> by_uid_;
  Index<Claims<Workload>> by_pod_;
  ByAddress<Workload> by_address_;
  SharedMap<IpAddress, std::uint32_t> host_addresses_;  ///< of hostNetwork workloads: how many have it
  Index<Arrived<Service>> by_key_;
  Index<std::vector<ServicePtr>> by_hostname_;
  ByAddress<Service> by_vip_;
  std::shared_ptr<const Ranges> by_range_ = std::make_shared<const Ranges>();
  Index<std::shared_ptr<const std::vector<ServiceEndpoint>>> endpoints_;  ///< by uid
  std::shared_ptr<const Policies> policies_ = std::make_shared<const Policies>();
  Contested contested_addresses_, contested_vips_;
  SharedMap<IpAddress, std::uint32_t> captured_;  ///< how many workloads and VIPs make it one of mesh_
  SharedMap<Cidr, std::uint32_t> captured_ranges_;
  AddressesPtr mesh_ = std::make_shared<const Addresses>();
  std::uint64_t arrivals_ = 0, told_ = 0;
};

}  // namespace weft::state
