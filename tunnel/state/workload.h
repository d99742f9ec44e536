// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tunnel/base/ip.h"
#include "tunnel/state/identity.h"

namespace weft::state {

/// An address in a named network; network "" is the default one.
struct NetworkAddress {
  std::string network;
  IpAddress address;
  auto operator<=>(const NetworkAddress&) const = default;
};

/// A service's name in its namespace, written "namespace/hostname".
struct NamespacedHostname {
  std::string namespace_name;
  std::string hostname;
  static Result<NamespacedHostname> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const NamespacedHostname&) const = default;
};

/// Where a workload takes HBONE.
inline constexpr std::uint16_t kHbonePort = 15008;

inline constexpr std::uint16_t kDnsPort = 53;

/// The ports that the mesh's own listeners are known by: no peer may ask for them.
[[nodiscard]] constexpr bool is_proxy_port(std::uint16_t port) {
  return port == 15001 || port == 15006 || port == kHbonePort;
}

/// A waypoint or network gateway, by address or by service name.
struct GatewayAddress {
  std::variant<NetworkAddress, NamespacedHostname> destination;
  std::uint16_t hbone_mtls_port = kHbonePort;
  auto operator<=>(const GatewayAddress&) const = default;
};

/// "network/address" or "namespace/hostname", as the configuration spells it.
[[nodiscard]] std::string to_string(const GatewayAddress& gateway);

enum class TunnelProtocol : std::uint8_t { kTcp, kHbone };
enum class NetworkMode : std::uint8_t { kStandard, kHostNetwork };
enum class HealthStatus : std::uint8_t { kHealthy, kUnhealthy };

struct ApplicationTunnel {
  enum class Protocol : std::uint8_t { kNone, kProxy } protocol = Protocol::kNone;
  std::optional<std::uint16_t> port;
  auto operator<=>(const ApplicationTunnel&) const = default;
};

struct Locality {
  std::string region, zone, subzone;
  auto operator<=>(const Locality&) const = default;
};

/// One workload (a pod, mostly), as the control plane describes it (istio.workload.Workload).
struct Workload {
  std::string uid;  ///< "cluster/group/kind/namespace/name": the key
  std::string name;
  std::string namespace_name;
  std::vector<IpAddress> addresses;
  std::string network;
  TunnelProtocol protocol = TunnelProtocol::kTcp;
  NetworkMode network_mode = NetworkMode::kStandard;
  bool native_tunnel = false;  ///< the workload itself speaks HBONE; nobody terminates it for it
  std::string trust_domain = "cluster.local";
  std::string service_account = "default";
  std::string node;
  std::string cluster_id = "Kubernetes";
  std::string hostname;  ///< of a DNS ServiceEntry workload, "" otherwise
  std::optional<GatewayAddress> waypoint;
  std::optional<GatewayAddress> network_gateway;
  std::optional<ApplicationTunnel> application_tunnel;
  HealthStatus status = HealthStatus::kHealthy;
  Locality locality;
  std::uint32_t capacity = 1;                       ///< weight among the endpoints of a service; 0 gets no traffic
  std::vector<std::string> authorization_policies;  ///< "namespace/name" of the selector-scoped ones
  /// "namespace/hostname" of each service it is an endpoint of, to {service port: target port}.
  std::map<std::string, std::map<std::uint16_t, std::uint16_t>> services;
  // Telemetry only.
  std::string workload_name;
  std::string workload_type = "pod";
  std::string canonical_name;
  std::string canonical_revision;

  [[nodiscard]] Identity identity() const { return {trust_domain, namespace_name, service_account}; }
  /// On this port of its own it believes what a PROXY header says, so only the agent may connect to it.
  [[nodiscard]] bool takes_proxy_headers(std::uint16_t port) const {
    return takes_proxy_headers() && application_tunnel->port.value_or(port) == port;
  }
  [[nodiscard]] bool takes_proxy_headers() const {
    return application_tunnel && application_tunnel->protocol == ApplicationTunnel::Protocol::kProxy;
  }
};

}  // namespace weft::state

template <>
struct std::hash<weft::state::NetworkAddress> {
  std::size_t operator()(const weft::state::NetworkAddress& a) const noexcept {
    return weft::hash_combine(std::hash<std::string>{}(a.network), std::hash<weft::IpAddress>{}(a.address));
  }
};
