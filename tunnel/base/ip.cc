// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/ip.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace weft {
namespace {

bool parse_number(std::string_view text, unsigned max, unsigned& out) {
  if (text.empty() || text.size() > 5) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size() && out <= max;
}

}  // namespace

IpAddress IpAddress::from_bytes(std::span<const std::byte> bytes) {
  if (bytes.size() == 16) {
    in6_addr a{};
    std::memcpy(&a, bytes.data(), 16);
    return from_v6(a);
  }
  IpAddress out;
  if (bytes.size() == 4) {
    out.family_ = 4;
    std::ranges::copy(bytes, out.bytes_.begin());
  }
  return out;
}

IpAddress IpAddress::from_v4(const in_addr& address) { return from_bytes(std::as_bytes(std::span(&address, 1))); }

IpAddress IpAddress::from_v6(const in6_addr& address) {
  IpAddress out;
  const auto bytes = std::as_bytes(std::span(&address, 1));
  if (IN6_IS_ADDR_V4MAPPED(&address)) return from_bytes(bytes.subspan(12));
  out.family_ = 6;
  std::ranges::copy(bytes, out.bytes_.begin());
  return out;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  // inet_pton would stop at a NUL and take what stands before it for the whole.
  const bool is_text = text.find('\0') == std::string_view::npos;
  const std::string copy(text);
  in_addr v4{};
  if (is_text && ::inet_pton(AF_INET, copy.c_str(), &v4) == 1) return from_v4(v4);
  in6_addr v6{};
  if (is_text && ::inet_pton(AF_INET6, copy.c_str(), &v6) == 1) return from_v6(v6);
  return fail(ErrorCode::kInvalid, "'" + excerpt(text) + "' is not an IPv4 or IPv6 address");
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[0] == std::byte{127};
  return is_v6() && *this == from_v6(in6addr_loopback);
}

bool IpAddress::is_unspecified() const {
  return valid() && std::ranges::all_of(bytes(), [](std::byte b) { return b == std::byte{0}; });
}

bool IpAddress::is_link_local() const {
  if (is_v4()) return bytes_[0] == std::byte{169} && bytes_[1] == std::byte{254};
  return is_v6() && bytes_[0] == std::byte{0xfe} && (bytes_[1] & std::byte{0xc0}) == std::byte{0x80};
}

std::string IpAddress::to_string() const {
  if (!valid()) return "unset";
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), text, sizeof text);
  return text;
}

Cidr Cidr::of(const IpAddress& address, std::uint8_t length) {
  std::array<std::byte, 16> masked{};
  const auto bytes = address.bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int keep = std::clamp(static_cast<int>(length) - static_cast<int>(i) * 8, 0, 8);
    masked[i] = bytes[i] & static_cast<std::byte>(0xff00U >> static_cast<unsigned>(keep));
  }
  return {IpAddress::from_bytes({masked.data(), bytes.size()}), length};
}

Result<Cidr> Cidr::parse(std::string_view text) {
  const auto slash = text.find('/');
  auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return Failure(address.error());
  const unsigned max = address->is_v4() ? 32 : 128;
  unsigned length = max;
  if (slash != std::string_view::npos && !parse_number(text.substr(slash + 1), max, length)) {
    return fail(ErrorCode::kInvalid, "'" + excerpt(text) + "': the prefix length must be 0 to " + std::to_string(max));
  }
  return of(*address, static_cast<std::uint8_t>(length));
}

bool Cidr::contains(const IpAddress& other) const {
  return address.valid() && other.bytes().size() == address.bytes().size() && of(other, length).address == address;
}

std::string Cidr::to_string() const { return address.to_string() + "/" + std::to_string(length); }

Result<Endpoint> Endpoint::parse(std::string_view text) {
  const auto bad = [&] {
    return fail(ErrorCode::kInvalid, "'" + excerpt(text) + "' is not address:port or [address]:port");
  };
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad();
  std::string_view host = text.substr(0, colon);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  unsigned port = 0;
  if (!parse_number(text.substr(colon + 1), 65535, port)) return bad();
  auto address = IpAddress::parse(host);
  if (!address || bracketed != (host.find(':') != std::string_view::npos)) return bad();
  return Endpoint{*address, static_cast<std::uint16_t>(port)};
}

Endpoint Endpoint::from_sockaddr(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return {IpAddress::from_v4(v4.sin_addr), ntohs(v4.sin_port)};
  }
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    return {IpAddress::from_v6(v6.sin6_addr), ntohs(v6.sin6_port)};
  }
  return {};
}

Endpoint::Sockaddr Endpoint::to_sockaddr() const {
  if (!address.is_v4()) return to_sockaddr_v6();
  Sockaddr out;
  auto& v4 = reinterpret_cast<sockaddr_in&>(out.storage);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  std::memcpy(&v4.sin_addr, address.bytes().data(), 4);
  out.length = sizeof v4;
  return out;
}

Endpoint::Sockaddr Endpoint::to_sockaddr_v6() const {
  Sockaddr out;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(out.storage);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  out.length = sizeof v6;
  auto* bytes = reinterpret_cast<std::byte*>(&v6.sin6_addr);
  if (address.is_v4()) {
    bytes[10] = bytes[11] = std::byte{0xff};
    std::ranges::copy(address.bytes(), bytes + 12);
  } else {
    std::ranges::copy(address.bytes(), bytes);
  }
  return out;
}

std::string Endpoint::to_string() const {
  const std::string host = address.to_string();
  return (address.is_v6() ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

}  // namespace weft
