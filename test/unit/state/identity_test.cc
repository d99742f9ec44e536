// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/identity.h"

#include <gtest/gtest.h>

#include "tunnel/state/workload.h"

namespace weft::state {
namespace {

TEST(Identity, RoundTrip) {
  const auto id = Identity::parse("spiffe://cluster.local/ns/default/sa/web");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->trust_domain, "cluster.local");
  EXPECT_EQ(id->namespace_name, "default");
  EXPECT_EQ(id->service_account, "web");
  EXPECT_EQ(id->to_uri(), "spiffe://cluster.local/ns/default/sa/web");
  EXPECT_EQ(id->to_principal(), "cluster.local/ns/default/sa/web");
}

TEST(Identity, AnythingButTheExactFormIsRefused) {
  const std::string nul("spiffe://td/ns/a/sa/b\0c", 23);
  for (const std::string& text : {std::string(""),
                                  std::string("spiffe://"),
                                  std::string("spiffe://td"),
                                  std::string("spiffe://td/ns/a"),
                                  std::string("spiffe://td/ns/a/sa"),
                                  std::string("spiffe://td/ns/a/sa/"),
                                  std::string("spiffe://td/ns//sa/b"),
                                  std::string("spiffe:///ns/a/sa/b"),
                                  std::string("spiffe://td/ns/a/sa/b/"),
                                  std::string("spiffe://td/ns/a/sa/b/c"),
                                  std::string("spiffe://td/NS/a/sa/b"),
                                  std::string("spiffe://td/sa/a/ns/b"),
                                  std::string("td/ns/a/sa/b"),
                                  std::string("SPIFFE://td/ns/a/sa/b"),
                                  std::string("https://td/ns/a/sa/b"),
                                  std::string("spiffe://td/ns/a/sa/b?x"),
                                  std::string("spiffe://td/ns/a/sa/b#x"),
                                  std::string("spiffe://td/ns/a/sa/%62"),
                                  std::string("spiffe://td/ns/a b/sa/c"),
                                  nul}) {
    const auto id = Identity::parse(text);
    ASSERT_FALSE(id) << text;
    EXPECT_EQ(id.error().code, ErrorCode::kInvalid);
    EXPECT_NE(id.error().message().find("expected spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT"),
              std::string::npos);
  }
}

TEST(Identity, EqualPartsAreEqualAndHashAlike) {
  const Identity a{"td", "ns", "sa"}, b{"td", "ns", "sa"}, c{"td", "ns", "other"};
  EXPECT_EQ(a, b);
  EXPECT_EQ(std::hash<Identity>{}(a), std::hash<Identity>{}(b));
  EXPECT_NE(a, c);
}

TEST(NamespacedHostname, ParseTakesTwoParts) {
  const auto name = NamespacedHostname::parse("ns/web.example.com");
  ASSERT_TRUE(name);
  EXPECT_EQ(name->namespace_name, "ns");
  EXPECT_EQ(name->hostname, "web.example.com");
  EXPECT_EQ(name->to_string(), "ns/web.example.com");
  for (const char* text : {"", "ns", "/host", "ns/", "a/b/c"}) EXPECT_FALSE(NamespacedHostname::parse(text)) << text;
}

TEST(GatewayAddress, Text) {
  EXPECT_EQ(to_string(GatewayAddress{NamespacedHostname{"ns", "wp.example"}}), "ns/wp.example");
  EXPECT_EQ(to_string(GatewayAddress{NetworkAddress{"net", IpAddress::parse("10.0.0.9").value()}}), "net/10.0.0.9");
}

}  // namespace
}  // namespace weft::state
