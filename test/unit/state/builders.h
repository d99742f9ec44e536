// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tunnel/state/state.h"

/// Short ways to write the objects that these tests need. What cannot be parsed aborts: it is the test that is wrong.
namespace weft::state::test {

inline IpAddress ip(const std::string& text) { return IpAddress::parse(text).value(); }
inline Endpoint at(const std::string& text) { return Endpoint::parse(text).value(); }
inline Cidr range(const std::string& text) { return Cidr::parse(text).value(); }

/// An HBONE pod `name` in namespace "ns".
inline Workload pod(const std::string& name, const std::vector<std::string>& addresses) {
  Workload out;
  out.uid = "Kubernetes//Pod/ns/" + name;
  out.name = name;
  out.namespace_name = "ns";
  out.service_account = name + "-sa";
  out.protocol = TunnelProtocol::kHbone;
  for (const auto& address : addresses) out.addresses.push_back(ip(address));
  return out;
}

inline Workload plain_pod(const std::string& name, const std::vector<std::string>& addresses) {
  Workload out = pod(name, addresses);
  out.protocol = TunnelProtocol::kTcp;
  return out;
}

/// `workload` as an endpoint of ns/HOSTNAME.
inline Workload serving(Workload workload, const std::string& hostname,
                        std::map<std::uint16_t, std::uint16_t> ports = {}) {
  workload.services["ns/" + hostname] = std::move(ports);
  return workload;
}

inline Service service(const std::string& hostname, const std::vector<std::string>& vips,
                       std::map<std::uint16_t, std::uint16_t> ports = {{80, 8080}}) {
  Service out;
  out.name = hostname.substr(0, hostname.find('.'));
  out.namespace_name = "ns";
  out.hostname = hostname;
  for (const auto& vip : vips) out.vips.push_back({"", ip(vip)});
  out.ports = std::move(ports);
  return out;
}

inline std::shared_ptr<const State> build(std::vector<Workload> workloads, std::vector<Service> services = {},
                                          std::vector<Policy> policies = {}) {
  auto state = State::build({std::move(workloads), std::move(services), std::move(policies)});
  if (!state) {
    ADD_FAILURE() << state.error().message();
    return State::empty();
  }
  return *state;
}

/// The text of the error that building gives, "" where it gives none.
inline std::string build_error(std::vector<Workload> workloads, std::vector<Service> services = {},
                               std::vector<Policy> policies = {}) {
  const auto state = State::build({std::move(workloads), std::move(services), std::move(policies)});
  return state ? "" : state.error().message();
}

inline std::string name_of(const WorkloadPtr& workload) { return workload ? workload->name : "none"; }

}  // namespace weft::state::test
