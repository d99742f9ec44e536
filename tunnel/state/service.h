// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/state/workload.h"

namespace weft::state {

enum class LoadBalancerMode : std::uint8_t { kStandard, kStrict, kFailover, kPassthrough };
enum class LoadBalancerScope : std::uint8_t { kRegion, kZone, kSubzone, kNode, kCluster, kNetwork };
enum class HealthPolicy : std::uint8_t { kOnlyHealthy, kAllowAll };
enum class IpFamilies : std::uint8_t { kIpv4, kIpv6, kDual };
enum class Visibility : std::uint8_t { kPublic, kNamespace };

struct LoadBalancer {
  LoadBalancerMode mode = LoadBalancerMode::kStandard;
  std::vector<LoadBalancerScope> routing_preferences;
  HealthPolicy health_policy = HealthPolicy::kOnlyHealthy;
};

struct WeightedWaypoint {
  GatewayAddress waypoint;
  std::uint32_t weight = 1;
};

/// One service, as the control plane describes it (istio.workload.Service). Its endpoints are the workloads that name
/// it, found through State::endpoints.
struct Service {
  std::string name;
  std::string namespace_name;
  std::string hostname;
  std::vector<NetworkAddress> vips;
  struct CidrVip {
    std::string network;
    Cidr cidr;
  };
  std::vector<CidrVip> cidr_vips;
  std::map<std::uint16_t, std::uint16_t> ports;  ///< service port to target port; 0 = ask the workload
  std::vector<std::string> subject_alt_names;
  std::optional<GatewayAddress> waypoint;
  std::vector<WeightedWaypoint> weighted_waypoints;  ///< one a connection, by weight; goes before `waypoint`
  bool ingress_use_waypoint = false;                 ///< for ingress gateways alone: pods always use the waypoint
  std::optional<LoadBalancer> load_balancer;
  std::optional<IpFamilies> ip_families;
  bool canonical = false;
  Visibility visibility = Visibility::kPublic;

  /// "namespace/hostname": the key.
  [[nodiscard]] std::string key() const { return namespace_name + "/" + hostname; }
};

/// Of several services with one hostname the one with the highest rank is meant by who asks from that namespace, and of
/// equals the first: its own namespace's, then a canonical one.
[[nodiscard]] inline int hostname_rank(const Service& service, std::string_view namespace_name) {
  if (service.namespace_name == namespace_name) return 2;
  return service.canonical ? 1 : 0;
}

}  // namespace weft::state
