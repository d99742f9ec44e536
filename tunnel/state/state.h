// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

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

/// One endpoint of a service for one service port.
struct ServiceEndpoint {
  WorkloadPtr workload;
  std::map<std::uint16_t, std::uint16_t> ports;  ///< service port to target port on this workload
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
/// makes a new one. Owner: whoever holds the shared_ptr.
class State {
 public:
  /// Indexes the input. Errors: kInvalid naming both objects where two claim one uid, one service key, one policy key,
  /// or one address in one network (hostNetwork workloads share addresses freely and are not found by address).
  static Result<std::shared_ptr<const State>> build(StateInput input);
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
  [[nodiscard]] const std::vector<PolicyPtr>& global_policies() const { return global_policies_; }
  [[nodiscard]] const std::vector<PolicyPtr>& namespace_policies(std::string_view namespace_name) const;

  [[nodiscard]] const std::vector<WorkloadPtr>& workloads() const { return workloads_; }
  [[nodiscard]] const std::vector<ServicePtr>& services() const { return services_; }
  [[nodiscard]] const std::vector<PolicyPtr>& policies() const { return policies_; }

  struct Addresses {
    std::vector<IpAddress> addresses;  ///< sorted, unique
    std::vector<Cidr> cidrs;           ///< sorted, unique
    bool operator==(const Addresses&) const = default;
    [[nodiscard]] bool contains(const IpAddress& address) const;
  };
  /// The addresses whose connections must be captured: workloads with HBONE, and VIPs with an HBONE endpoint or a
  /// waypoint, or whose balancing needs us ("What is captured" in ARCHITECTURE.md).
  [[nodiscard]] Addresses mesh_addresses() const;
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
  struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  template <class T>
  using Index = std::unordered_map<std::string, T, StringHash, std::equal_to<>>;

  Result<void> index_workloads();
  Result<void> index_services();
  Result<void> index_policies();
  /// Refuses what is a mesh address of another network; anything else stays kUnknown.
  [[nodiscard]] Destination elsewhere(Destination destination, const Workload& source, const Endpoint& original) const;

  std::vector<WorkloadPtr> workloads_;
  std::vector<ServicePtr> services_;
  std::vector<PolicyPtr> policies_;
  std::vector<PolicyPtr> global_policies_;
  Index<WorkloadPtr> by_uid_;
  Index<WorkloadPtr> by_pod_;
  Index<std::unordered_map<IpAddress, WorkloadPtr>> by_address_;  ///< network, then address
  std::unordered_set<IpAddress> host_addresses_;                  ///< of hostNetwork workloads
  Index<ServicePtr> by_key_;
  Index<std::vector<ServicePtr>> by_hostname_;
  Index<std::unordered_map<IpAddress, ServicePtr>> by_vip_;
  Index<std::vector<std::pair<Cidr, ServicePtr>>> by_cidr_;  ///< longest prefix first
  Index<std::vector<ServiceEndpoint>> endpoints_;
  Index<PolicyPtr> policy_by_key_;
  Index<std::vector<PolicyPtr>> by_namespace_;
};

}  // namespace weft::state
