// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/proxy_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

namespace weft::proxy {
namespace {

using ::testing::HasSubstr;

Endpoint at(const std::string& text) { return Endpoint::parse(text).value(); }
const state::Identity kClient{"cluster.local", "shop", "client"};
constexpr std::string_view kUri = "spiffe://cluster.local/ns/shop/sa/client";

/// In hexadecimal.
std::string hex(std::span<const std::byte> bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string out;
  for (const auto byte : bytes) {
    out += kDigits[std::to_integer<unsigned>(byte) >> 4];
    out += kDigits[std::to_integer<unsigned>(byte) & 0xfU];
  }
  return out;
}
std::string hex(std::string_view text) { return hex(std::as_bytes(std::span(text))); }

std::string written(const std::string& source, const std::string& destination) {
  const auto header = proxy_header(at(source), at(destination), kClient);
  EXPECT_TRUE(header.has_value());
  return header ? hex(*header) : "";
}

// The bytes as proxy-protocol.txt, section 2.2, lays them out.
constexpr const char* kSignature = "0d0a0d0a000d0a515549540a";

TEST(ProxyHeader, Ipv4) {
  // 12 bytes of addresses and ports, 3 of the TLV's head, 40 of the identity.
  EXPECT_EQ(written("10.0.0.1:40000", "10.96.0.10:80"), std::string(kSignature) + "21" + "11" + "0037" + "0a000001" +
                                                            "0a60000a" + "9c40" + "0050" + "d0" + "0028" + hex(kUri));
}

TEST(ProxyHeader, Ipv6) {
  EXPECT_EQ(written("[2001:db8::1]:40000", "[fd96::a]:80"),
            std::string(kSignature) + "21" + "21" + "004f" + "20010db8000000000000000000000001" +
                "fd96000000000000000000000000000a" + "9c40" + "0050" + "d0" + "0028" + hex(kUri));
}

TEST(ProxyHeader, BothFamiliesAreIpv6) {
  EXPECT_EQ(written("10.0.0.1:1", "[fd96::a]:65535"),
            std::string(kSignature) + "21" + "21" + "004f" + "00000000000000000000ffff0a000001" +
                "fd96000000000000000000000000000a" + "0001" + "ffff" + "d0" + "0028" + hex(kUri));
  EXPECT_THAT(written("[fd96::a]:1", "10.0.0.1:2"), HasSubstr("00000000000000000000ffff0a000001"
                                                              "0001"
                                                              "0002"));
}

TEST(ProxyHeader, WithoutAnAddressThereIsNone) {
  EXPECT_FALSE(proxy_header({}, at("10.0.0.1:80"), kClient).has_value());
  EXPECT_THAT(proxy_header(at("10.0.0.1:80"), {}, kClient).error().message(), HasSubstr("an address is not set"));
}

TEST(ProxyHeader, AnIdentityThatDoesNotFitIsAnErrorAndNotCutShort) {
  // Addresses, ports and the TLV's head leave 65,520 bytes.
  const std::size_t rest = std::string("spiffe://cluster.local/ns/shop/sa/").size();
  const state::Identity longest{"cluster.local", "shop", std::string(65'520 - rest, 'a')};
  const auto fits = proxy_header(at("10.0.0.1:1"), at("10.0.0.2:2"), longest);
  ASSERT_TRUE(fits.has_value());
  EXPECT_EQ(hex(std::span(*fits).subspan(14, 2)), "ffff");
  EXPECT_EQ(fits->size(), 16U + 65'535U);
  const state::Identity longer{"cluster.local", "shop", longest.service_account + "a"};
  EXPECT_THAT(proxy_header(at("10.0.0.1:1"), at("10.0.0.2:2"), longer).error().message(), HasSubstr("65521 bytes"));
}

}  // namespace
}  // namespace weft::proxy
