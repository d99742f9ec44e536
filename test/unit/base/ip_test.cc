// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/ip.h"

#include <gtest/gtest.h>

#include <unordered_set>

namespace weft {
namespace {

IpAddress ip(const std::string& text) { return IpAddress::parse(text).value(); }
Cidr range(const std::string& text) { return Cidr::parse(text).value(); }

TEST(IpAddress, ParseAndText) {
  for (const char* text : {"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "2001:db8::1", "fe80::1"}) {
    EXPECT_EQ(ip(text).to_string(), text);
  }
  EXPECT_TRUE(ip("1.2.3.4").is_v4());
  EXPECT_TRUE(ip("::1").is_v6());
  EXPECT_EQ(ip("2001:DB8:0:0:0:0:0:1").to_string(), "2001:db8::1");
}

TEST(IpAddress, BadTextIsRefusedWithTheText) {
  for (const std::string& text :
       {std::string(""), std::string("1.2.3"), std::string("1.2.3.256"), std::string("1.2.3.4 "),
        std::string("01.2.3.4.5"), std::string("::g"), std::string("[::1]"), std::string("1.2.3.4/8"),
        std::string("fe80::1%eth0"), std::string("localhost")}) {
    const auto parsed = IpAddress::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalid);
    EXPECT_EQ(parsed.error().message(), "'" + text + "' is not an IPv4 or IPv6 address");
  }
  EXPECT_EQ(IpAddress::parse(std::string(10'000, '1')).error().message(),
            "'" + std::string(80, '1') + "...' is not an IPv4 or IPv6 address");
}

// The C library's parser stops at a NUL.
TEST(IpAddress, ANulEndsNoAddress) {
  using namespace std::string_literals;
  EXPECT_EQ(IpAddress::parse("10.0.0.1\0x"s).error().message(), "'10.0.0.1?x' is not an IPv4 or IPv6 address");
  EXPECT_FALSE(IpAddress::parse("::1\0"s));
  EXPECT_FALSE(Endpoint::parse("10.0.0.1\0:80"s));
  EXPECT_FALSE(Endpoint::parse("[::1\0x]:80"s));
  EXPECT_FALSE(Cidr::parse("10.0.0.0\0/8"s));
}

TEST(IpAddress, MappedIsHeldAsIpv4) {
  EXPECT_EQ(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
  EXPECT_EQ(std::hash<IpAddress>{}(ip("::ffff:10.0.0.1")), std::hash<IpAddress>{}(ip("10.0.0.1")));
  EXPECT_NE(ip("::10.0.0.1"), ip("10.0.0.1"));
}

TEST(IpAddress, FromBytesTakesFourOrSixteen) {
  const std::array<std::byte, 4> v4 = {std::byte{10}, std::byte{0}, std::byte{0}, std::byte{1}};
  EXPECT_EQ(IpAddress::from_bytes(v4), ip("10.0.0.1"));
  EXPECT_EQ(IpAddress::from_bytes(ip("2001:db8::7").bytes()), ip("2001:db8::7"));
  EXPECT_FALSE(IpAddress::from_bytes(std::span(v4).first(3)).valid());
  EXPECT_FALSE(IpAddress::from_bytes({}).valid());
  EXPECT_FALSE(IpAddress().valid());
  EXPECT_EQ(IpAddress().to_string(), "unset");
}

TEST(IpAddress, Kinds) {
  EXPECT_TRUE(ip("127.0.0.1").is_loopback());
  EXPECT_TRUE(ip("127.9.9.9").is_loopback());
  EXPECT_TRUE(ip("::1").is_loopback());
  EXPECT_TRUE(ip("::ffff:127.0.0.1").is_loopback());
  EXPECT_FALSE(ip("128.0.0.1").is_loopback());
  EXPECT_FALSE(ip("::2").is_loopback());
  EXPECT_TRUE(ip("0.0.0.0").is_unspecified());
  EXPECT_TRUE(ip("::").is_unspecified());
  EXPECT_FALSE(IpAddress().is_unspecified());
  EXPECT_TRUE(ip("169.254.1.1").is_link_local());
  EXPECT_TRUE(ip("fe80::1").is_link_local());
  EXPECT_TRUE(ip("febf::1").is_link_local());
  EXPECT_FALSE(ip("fec0::1").is_link_local());
  EXPECT_FALSE(ip("169.253.1.1").is_link_local());
  EXPECT_FALSE(IpAddress().is_loopback());
}

TEST(Cidr, ParseMasksAndPrints) {
  EXPECT_EQ(range("10.1.2.3/8").to_string(), "10.0.0.0/8");
  EXPECT_EQ(range("10.1.2.3").to_string(), "10.1.2.3/32");
  EXPECT_EQ(range("2001:db8:ffff::1/33").to_string(), "2001:db8:8000::/33");
  EXPECT_EQ(range("1.2.3.4/0").to_string(), "0.0.0.0/0");
  for (const char* text :
       {"", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8x", "::/129", "10.0.0.0/8/8"}) {
    EXPECT_FALSE(Cidr::parse(text)) << text;
  }
  EXPECT_EQ(Cidr::parse("10.0.0.0/33").error().message(), "'10.0.0.0/33': the prefix length must be 0 to 32");
}

TEST(Cidr, Contains) {
  EXPECT_TRUE(range("10.0.0.0/8").contains(ip("10.255.0.1")));
  EXPECT_FALSE(range("10.0.0.0/8").contains(ip("11.0.0.1")));
  EXPECT_TRUE(range("10.0.0.128/25").contains(ip("10.0.0.200")));
  EXPECT_FALSE(range("10.0.0.128/25").contains(ip("10.0.0.127")));
  EXPECT_TRUE(range("2001:db8::/33").contains(ip("2001:db8:7fff::1")));
  EXPECT_FALSE(range("2001:db8::/33").contains(ip("2001:db8:8000::1")));
}

TEST(Cidr, EverythingOfOneFamilyHoldsNothingOfTheOther) {
  EXPECT_FALSE(range("0.0.0.0/0").contains(ip("::1")));
  EXPECT_FALSE(range("::/0").contains(ip("1.2.3.4")));
  EXPECT_FALSE(range("::/0").contains(IpAddress()));
  EXPECT_FALSE(Cidr{}.contains(IpAddress()));
}

TEST(Endpoint, ParseAndText) {
  EXPECT_EQ(Endpoint::parse("1.2.3.4:80")->to_string(), "1.2.3.4:80");
  EXPECT_EQ(Endpoint::parse("[2001:db8::1]:65535")->to_string(), "[2001:db8::1]:65535");
  EXPECT_EQ(Endpoint::parse("[::ffff:1.2.3.4]:80")->to_string(), "1.2.3.4:80");
  for (const char* text : {"", ":80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4:8 0", "::1:80",
                           "[1.2.3.4]:80", "[::1]", "[]:80", "host:80", "[::1]:80 "}) {
    EXPECT_FALSE(Endpoint::parse(text)) << text;
  }
}

TEST(Endpoint, SockaddrRoundTrip) {
  for (const char* text : {"1.2.3.4:80", "[2001:db8::1]:443"}) {
    const Endpoint endpoint = Endpoint::parse(text).value();
    EXPECT_EQ(Endpoint::from_sockaddr(endpoint.to_sockaddr().storage), endpoint);
    EXPECT_EQ(Endpoint::from_sockaddr(endpoint.to_sockaddr_v6().storage), endpoint);
    EXPECT_EQ(endpoint.to_sockaddr_v6().storage.ss_family, AF_INET6);
  }
  EXPECT_EQ(Endpoint::parse("1.2.3.4:80")->to_sockaddr().length, sizeof(sockaddr_in));
  EXPECT_EQ(Endpoint::parse("1.2.3.4:80")->to_sockaddr_v6().length, sizeof(sockaddr_in6));
  sockaddr_storage unix_socket{};
  unix_socket.ss_family = AF_UNIX;
  EXPECT_EQ(Endpoint::from_sockaddr(unix_socket), Endpoint());
}

TEST(Endpoint, HashesTellPortsApart) {
  std::unordered_set<Endpoint> set;
  for (std::uint16_t port = 1; port <= 100; ++port) set.insert({ip("10.0.0.1"), port});
  EXPECT_EQ(set.size(), 100U);
  EXPECT_TRUE(set.contains({ip("::ffff:10.0.0.1"), 50}));
}

}  // namespace
}  // namespace weft
