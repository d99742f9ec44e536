// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"

namespace weft {

/// An IPv4 or IPv6 address. IPv4-mapped IPv6 addresses (::ffff:a.b.c.d) are always held as IPv4, so that two spellings
/// of one address are equal.
class IpAddress {
 public:
  IpAddress() = default;  ///< the unset address: family 0
  /// 4 or 16 bytes in network order; any other length gives the unset address.
  static IpAddress from_bytes(std::span<const std::byte> bytes);
  static IpAddress from_v4(const in_addr& address);
  static IpAddress from_v6(const in6_addr& address);
  static Result<IpAddress> parse(std::string_view text);

  [[nodiscard]] bool valid() const { return family_ != 0; }
  [[nodiscard]] bool is_v4() const { return family_ == 4; }
  [[nodiscard]] bool is_v6() const { return family_ == 6; }
  [[nodiscard]] bool is_loopback() const;
  [[nodiscard]] bool is_unspecified() const;
  /// 169.254.0.0/16 and fe80::/10.
  [[nodiscard]] bool is_link_local() const;
  /// 4 or 16 bytes in network order, none where unset.
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return {bytes_.data(), family_ == 4 ? 4U : family_ == 6 ? 16U : 0U};
  }
  [[nodiscard]] std::string to_string() const;

  auto operator<=>(const IpAddress&) const = default;

 private:
  std::uint8_t family_ = 0;
  std::array<std::byte, 16> bytes_{};
};

/// An address range. Bits behind the prefix are cleared.
struct Cidr {
  IpAddress address;
  std::uint8_t length = 0;  ///< bits, at most 32 or 128

  static Result<Cidr> parse(std::string_view text);  ///< "10.0.0.0/8", or an address alone: the whole length
  static Cidr of(const IpAddress& address, std::uint8_t length);
  [[nodiscard]] bool contains(const IpAddress& other) const;
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const Cidr&) const = default;
};

/// An address and a TCP port in host order.
struct Endpoint {
  IpAddress address;
  std::uint16_t port = 0;

  /// "1.2.3.4:80" or "[2001:db8::1]:80", nothing else.
  static Result<Endpoint> parse(std::string_view text);
  static Endpoint from_sockaddr(const sockaddr_storage& address);
  /// As sockaddr_in or sockaddr_in6; `length` receives its size.
  struct Sockaddr {
    sockaddr_storage storage{};
    socklen_t length = 0;
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  };
  [[nodiscard]] Sockaddr to_sockaddr() const;
  /// As sockaddr_in6 whatever the family (IPv4 as IPv4-mapped), for dual-stack sockets.
  [[nodiscard]] Sockaddr to_sockaddr_v6() const;
  [[nodiscard]] std::string to_string() const;
  auto operator<=>(const Endpoint&) const = default;
};

/// Mixes a value into a running hash; for the hash specialisations of small keys.
inline std::size_t hash_combine(std::size_t seed, std::size_t value) {
  return seed ^ (value + 0x9e3779b97f4a7c15ULL + (seed << 6) + (seed >> 2));
}

}  // namespace weft

template <>
struct std::hash<weft::IpAddress> {
  std::size_t operator()(const weft::IpAddress& a) const noexcept {
    const auto b = a.bytes();
    return std::hash<std::string_view>{}({reinterpret_cast<const char*>(b.data()), b.size()});
  }
};
template <>
struct std::hash<weft::Cidr> {
  std::size_t operator()(const weft::Cidr& range) const noexcept {
    return weft::hash_combine(std::hash<weft::IpAddress>{}(range.address), range.length);
  }
};
template <>
struct std::hash<weft::Endpoint> {
  std::size_t operator()(const weft::Endpoint& e) const noexcept {
    return weft::hash_combine(std::hash<weft::IpAddress>{}(e.address), e.port);
  }
};
