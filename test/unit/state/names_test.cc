// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = Destination::Kind;

constexpr const char* kVip = "10.1.0.1:80";

/// An endpoint of api.example.com that is known by this name alone.
Workload named(const std::string& hostname) {
  Workload out = serving(plain_pod("external", {}), "api.example.com");
  out.hostname = hostname;
  return out;
}
Service api() { return service("api.example.com", {"10.1.0.1", "2001:db8:1::1"}); }

class Names : public ::testing::Test {
 protected:
  static std::shared_ptr<const State> mesh(std::vector<Workload> more, std::vector<Service> services = {}) {
    more.push_back(pod("client", {"10.0.0.100"}));
    services.push_back(api());
    return build(std::move(more), std::move(services));
  }
  /// Where a connection of the client to the VIP goes, once the name has this address.
  static Destination resolved(const std::shared_ptr<const State>& state, const std::string& address) {
    const auto source = state->workload_by_pod("ns", "client");
    return state->resolved(*source, state->route(*source, at(kVip), 0), ip(address), 0);
  }
};

TEST_F(Names, AnEndpointThatIsANameIsLeftToBeResolved) {
  const auto state = mesh({named("server.example.com")});
  const auto to = state->route(*state->workload_by_pod("ns", "client"), at(kVip), 0);
  EXPECT_EQ(to.kind, Kind::kDirect);
  EXPECT_EQ(to.hostname, "server.example.com");
  EXPECT_FALSE(to.target.address.valid());
  EXPECT_EQ(to.target.port, 8080);
  EXPECT_EQ(to.service->hostname, "api.example.com");
  EXPECT_EQ(name_of(to.workload), "external");
}

TEST_F(Names, AddressesGoBeforeTheName) {
  Workload both = named("server.example.com");
  both.addresses = {ip("192.0.2.1")};
  const auto state = mesh({both});
  const auto to = state->route(*state->workload_by_pod("ns", "client"), at(kVip), 0);
  EXPECT_EQ(to.target.to_string(), "192.0.2.1:8080");
  EXPECT_EQ(to.hostname, "");
}

TEST_F(Names, ANameIsAnEndpointAmongOthers) {
  const auto state = mesh({named("server.example.com"), serving(pod("a", {"10.0.0.1"}), "api.example.com")});
  std::set<std::string> seen;
  for (std::uint64_t random = 0; random < 4; ++random) {
    seen.insert(name_of(state->route(*state->workload_by_pod("ns", "client"), at(kVip), random).workload));
  }
  EXPECT_THAT(seen, ElementsAre("a", "external"));
}

TEST_F(Names, AnAddressOutsideOfTheMeshIsDialledAsItIs) {
  const auto to = resolved(mesh({named("server.example.com")}), "192.0.2.1");
  EXPECT_EQ(to.kind, Kind::kDirect);
  EXPECT_EQ(to.target.to_string(), "192.0.2.1:8080");
  EXPECT_EQ(to.hostname, "");
  EXPECT_EQ(name_of(to.workload), "external");
  EXPECT_EQ(to.service->hostname, "api.example.com");
}

TEST_F(Names, AMeshPodsAddressIsReachedThroughItsTunnel) {
  const auto to = resolved(mesh({named("server.example.com"), pod("a", {"10.0.0.1"})}), "10.0.0.1");
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:8080");
  EXPECT_EQ(to.hbone.to_string(), "10.0.0.1:15008");
  EXPECT_EQ(name_of(to.workload), "a");
  EXPECT_THAT(to.expected_identities, ElementsAre(Identity{"cluster.local", "ns", "a-sa"}));
  EXPECT_EQ(to.service->hostname, "api.example.com");
}

TEST_F(Names, AServicesVipLeadsToItsEndpoints) {
  const auto to = resolved(mesh({named("server.example.com"), serving(pod("a", {"10.0.0.1"}), "web.test")},
                                {service("web.test", {"10.1.0.2"}, {{8080, 9090}})}),
                           "10.1.0.2");
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.target.to_string(), "10.0.0.1:9090");
  EXPECT_EQ(to.service->hostname, "api.example.com");
}

TEST_F(Names, ANameIsNotFollowedTwice) {
  Service self = api();
  self.ports = {{80, 80}};
  const auto state = build({pod("client", {"10.0.0.100"}), named("server.example.com")}, {self});
  const auto to = resolved(state, "10.1.0.1");
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("resolve server.example.com: 10.1.0.1 is of service ns/api.example.com"));
}

TEST_F(Names, WhatMayNotBeDialledIsRefusedWithTheNamesWay) {
  const auto to = resolved(mesh({named("server.example.com")}, {service("web.test", {"10.1.0.2"})}), "10.1.0.2");
  EXPECT_EQ(to.kind, Kind::kRefused);
  EXPECT_THAT(to.reason, HasSubstr("resolve server.example.com: 10.1.0.2: service ns/web.test has no port 8080"));
}

TEST_F(Names, ANameThatSpeaksHboneGetsATunnel) {
  Workload native = named("server.example.com");
  native.protocol = TunnelProtocol::kHbone;
  const auto to = resolved(mesh({native}), "192.0.2.1");
  EXPECT_EQ(to.kind, Kind::kHbone);
  EXPECT_EQ(to.hbone.to_string(), "192.0.2.1:15008");
  EXPECT_THAT(to.expected_identities, ElementsAre(Identity{"cluster.local", "ns", "external-sa"}));
}

TEST(HostNames, AreTold) {
  for (const char* name :
       {"a", "api.example.com", "API.example.com.", "_x.y-z.test", "1a.2b", "10.0.0.1.example.com"}) {
    EXPECT_TRUE(is_host_name(name)) << name;
  }
  const std::string label(63, 'a');
  EXPECT_TRUE(is_host_name(label + "." + label + "." + label + "." + std::string(61, 'a')));
  for (const std::string& name :
       {std::string(), std::string("."), std::string("a..b"), std::string(".a"), std::string("*.example.com"),
        std::string("10.0.0.1"), std::string("::1"), std::string("a b"), std::string("a\0b", 3), std::string("ä.test"),
        std::string(64, 'a'), label + "." + label + "." + label + "." + std::string(62, 'a')}) {
    EXPECT_FALSE(is_host_name(name)) << name;
  }
}

std::set<std::string> choices(const std::vector<IpAddress>& addresses, const char* like, IpFamilies families,
                              const IpAddress& avoid = {}) {
  std::set<std::string> out;
  for (std::uint64_t random = 0; random < 8; ++random) {
    const IpAddress chosen = choose_address(addresses, ip(like), families, random, avoid);
    if (chosen.valid()) out.insert(chosen.to_string());
  }
  return out;
}

TEST(ChooseAddress, OfTheFamilyDialledAtRandom) {
  const std::vector<IpAddress> all{ip("192.0.2.1"), ip("2001:db8::1"), ip("192.0.2.2"), ip("2001:db8::2")};
  EXPECT_THAT(choices(all, "10.0.0.1", IpFamilies::kDual), ElementsAre("192.0.2.1", "192.0.2.2"));
  EXPECT_THAT(choices(all, "fd00::1", IpFamilies::kDual), ElementsAre("2001:db8::1", "2001:db8::2"));
  EXPECT_THAT(choices(all, "fd00::1", IpFamilies::kIpv4), ElementsAre("192.0.2.1", "192.0.2.2"));
  EXPECT_THAT(choices({ip("2001:db8::1")}, "10.0.0.1", IpFamilies::kDual), ElementsAre("2001:db8::1"));
}

TEST(ChooseAddress, AnotherThanTheOneThatFailedIfThereIsOne) {
  EXPECT_THAT(choices({ip("192.0.2.1"), ip("2001:db8::1")}, "10.0.0.1", IpFamilies::kDual, ip("192.0.2.1")),
              ElementsAre("2001:db8::1"));
  EXPECT_THAT(choices({ip("192.0.2.1")}, "10.0.0.1", IpFamilies::kDual, ip("192.0.2.1")), ElementsAre("192.0.2.1"));
}

TEST(ChooseAddress, NeverWhatLeadsBackToTheDialler) {
  EXPECT_THAT(choices({ip("127.0.0.1"), ip("0.0.0.0"), ip("::1"), ip("::")}, "10.0.0.1", IpFamilies::kDual), IsEmpty());
}

}  // namespace
}  // namespace weft::state::test
