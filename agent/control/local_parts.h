// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/control/field_reader.h"
#include "tunnel/state/state.h"

/// The parts of the local configuration, one reader each. Problems go to `problems`; what comes back is of use only
/// where there were none.
namespace weft::control {

state::Workload read_workload(Problems& problems, const Field& field);
state::Policy read_policy(Problems& problems, const Field& field);

/// A service, with the endpoints that it lists by itself (ztunnel's dumps do): by workload uid, {service port: target}.
struct ServiceWithEndpoints {
  state::Service service;
  struct Listed {
    std::string uid;
    std::map<std::uint16_t, std::uint16_t> ports;
    Field field;
  };
  std::vector<Listed> endpoints;
};
ServiceWithEndpoints read_service(Problems& problems, const Field& field);

// What workloads and services share.
std::string read_namespace(ObjectReader& object);
std::optional<state::GatewayAddress> read_gateway(Problems& problems, const Field& field);
/// {service port: target port}; a target of 0 only where `allow_zero`.
std::map<std::uint16_t, std::uint16_t> read_ports(Problems& problems, const Field& field, bool allow_zero);

}  // namespace weft::control
