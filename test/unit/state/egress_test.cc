// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/egress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::HasSubstr;

std::string texts(const State::Addresses& all) {
  std::string out;
  for (const auto& address : all.addresses) out += address.to_string() + " ";
  for (const auto& cidr : all.cidrs) out += cidr.to_string() + " ";
  return out;
}

/// A mesh with a plain pod, one of another network, one on the host's network, a service, and a range.
std::shared_ptr<const State> mesh() {
  Workload host = pod("host", {"192.168.0.1"}), remote = pod("remote", {"10.0.0.9"});
  host.network_mode = NetworkMode::kHostNetwork;
  remote.network = "remote";
  Service ranges = service("ranges.test", {});
  ranges.cidr_vips = {{"", range("198.51.100.0/24")}};
  ranges.load_balancer = LoadBalancer{};
  ranges.load_balancer->mode = LoadBalancerMode::kPassthrough;
  return build({plain_pod("plain", {"10.0.0.1", "2001:db8::1"}), host, remote},
               {service("web.test", {"10.96.0.1"}), ranges});
}

constexpr const char* kNamed = "10.0.0.1 10.0.0.9 10.96.0.1 192.168.0.1 2001:db8::1 198.51.100.0/24 ";

TEST(Egress, TheRegistryIsWhatIsNamedAndWhatIsExempt) {
  EXPECT_EQ(texts(registry(*mesh(), {.registry_only = true, .exempt = {}})), kNamed);
  EXPECT_EQ(
      texts(registry(*mesh(), {.registry_only = true, .exempt = {range("10.1.0.0/16"), range("198.51.100.0/24")}})),
      "10.0.0.1 10.0.0.9 10.96.0.1 192.168.0.1 2001:db8::1 10.1.0.0/16 198.51.100.0/24 ");
  EXPECT_EQ(texts(registry(*mesh(), {})), "") << "anything is allowed";
}

/// As the agent decides about a connection of the plain pod.
std::string refusal(const EgressPolicy& policy, const std::string& to) {
  const auto state = mesh();
  const Endpoint original = at(to);
  const auto routed = state->route(*state->workload_by_address("", ip("10.0.0.1")), original, 0);
  return egress_refusal(*state, policy, original, routed);
}

TEST(Egress, WhatIsNotNamedIsRefused) {
  const EgressPolicy policy{.registry_only = true, .exempt = {range("203.0.113.0/24")}};
  for (const char* to : {"192.0.2.1:443", "[2001:db8::2]:443", "169.254.169.254:80", "198.51.101.1:80"}) {
    EXPECT_THAT(refusal(policy, to), HasSubstr(at(to).address.to_string() + " is not in the registry")) << to;
  }
  for (const char* to : {"10.0.0.1:1", "[2001:db8::1]:80", "192.168.0.1:10250", "10.96.0.1:80", "10.96.0.1:81",
                         "198.51.100.7:5432", "203.0.113.9:80", "192.0.2.1:53"}) {
    EXPECT_EQ(refusal(policy, to), "") << to;
  }
  EXPECT_EQ(refusal({}, "192.0.2.1:443"), "") << "without the policy";
}

/// The programs and the agent must not differ.
TEST(Egress, NamesAndNamedAddressesAgree) {
  const auto state = mesh();
  const auto named = state->named_addresses();
  for (const char* text : {"10.0.0.1", "2001:db8::1", "10.0.0.9", "10.96.0.1", "192.168.0.1", "198.51.100.0",
                           "198.51.100.255", "198.51.101.0", "10.0.0.2", "2001:db8::2", "0.0.0.0"}) {
    const IpAddress address = ip(text);
    const bool listed = std::ranges::binary_search(named.addresses, address) ||
                        std::ranges::any_of(named.cidrs, [&](const Cidr& cidr) { return cidr.contains(address); });
    EXPECT_EQ(state->names(address), listed) << text;
  }
}

}  // namespace
}  // namespace weft::state::test
