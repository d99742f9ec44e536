// SPDX-License-Identifier: Apache-2.0
#include "test/netns/attack_packet.h"

#include <netinet/in.h>

namespace weft::test {
namespace {

constexpr std::size_t kIpv6Header = 40;
constexpr std::uint8_t kTcp = IPPROTO_TCP;

void put8(std::string& out, std::size_t value) { out.push_back(static_cast<char>(value)); }
void put16(std::string& out, std::size_t value) {
  put8(out, value >> 8 & 0xff);
  put8(out, value & 0xff);
}
void put32(std::string& out, std::size_t value) {
  put16(out, value >> 16);
  put16(out, value);
}
void set16(std::string& out, std::size_t at, std::size_t value) {
  out[at] = static_cast<char>(value >> 8 & 0xff);
  out[at + 1] = static_cast<char>(value & 0xff);
}
std::size_t get8(const std::string& in, std::size_t at) { return static_cast<unsigned char>(in.at(at)); }

std::string raw(const IpAddress& address) {
  const auto bytes = address.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The Internet checksum.
std::uint16_t checksum(const std::string& data) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < data.size(); ++i) sum += i % 2 == 0 ? get8(data, i) << 8 : get8(data, i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

std::string tcp(const TcpPacket& packet) {
  std::string out;
  put16(out, packet.source.port);
  put16(out, packet.destination.port);
  put32(out, packet.sequence);
  put32(out, 0);
  put8(out, 5 << 4);
  put8(out, packet.flags);
  put16(out, 0xffff);  // window
  put32(out, 0);       // checksum, urgent pointer
  out += packet.payload;
  // IPv4's pseudo header and IPv6's sum up to the same for lengths below 64 KiB.
  std::string pseudo = raw(packet.source.address) + raw(packet.destination.address);
  put16(pseudo, IPPROTO_TCP);
  put16(pseudo, out.size());
  set16(out, 16, checksum(pseudo + out));
  return out;
}

void sum_ipv4_header(std::string& packet) {
  set16(packet, 10, 0);
  set16(packet, 10, checksum(packet.substr(0, (get8(packet, 0) & 0xf) * 4)));
}

std::string ipv4(const TcpPacket& packet) {
  const std::string body = tcp(packet);
  const std::size_t header = 20 + packet.options.size();
  std::string out;
  put8(out, 0x40 + header / 4);
  put8(out, 0);
  put16(out, header + body.size());
  put16(out, 0x4321);
  put16(out, 0);
  put8(out, 64);
  put8(out, IPPROTO_TCP);
  put16(out, 0);
  out += raw(packet.source.address) + raw(packet.destination.address) + packet.options;
  sum_ipv4_header(out);
  return out + body;
}

std::string ipv6(const TcpPacket& packet) {
  std::string chain;
  for (std::size_t i = 0; i < packet.extensions.size(); ++i) {
    put8(chain, i + 1 < packet.extensions.size() ? packet.extensions[i + 1].type : kTcp);
    chain += packet.extensions[i].rest;
  }
  chain += tcp(packet);
  std::string out;
  put32(out, 0x60000000);
  put16(out, chain.size());
  put8(out, packet.extensions.empty() ? kTcp : packet.extensions[0].type);
  put8(out, 64);
  return out + raw(packet.source.address) + raw(packet.destination.address) + chain;
}

/// Options of 8 bytes: the length byte, then PadN over the remaining six.
std::string padding() { return std::string("\x00\x01\x04\x00\x00\x00\x00", 7); }

std::pair<std::string, std::string> ipv4_fragments(const std::string& packet, std::size_t first) {
  const std::size_t header = (get8(packet, 0) & 0xf) * 4;
  std::string a = packet.substr(0, header + first);
  std::string b = packet.substr(0, header) + packet.substr(header + first);
  set16(a, 2, a.size());
  set16(b, 2, b.size());
  set16(a, 6, 0x2000);  // more fragments
  set16(b, 6, first / 8);
  sum_ipv4_header(a);
  sum_ipv4_header(b);
  return {a, b};
}

std::pair<std::string, std::string> ipv6_fragments(const std::string& packet, std::size_t first) {
  const auto part = [&](std::size_t offset, bool more, const std::string& body) {
    std::string out = packet.substr(0, kIpv6Header);
    set16(out, 4, 8 + body.size());
    const std::size_t next = get8(out, 6);
    out[6] = IPPROTO_FRAGMENT;
    put8(out, next);
    put8(out, 0);
    put16(out, offset | (more ? 1U : 0U));
    put32(out, 0x87654321);
    return out + body;
  };
  return {part(0, true, packet.substr(kIpv6Header, first)), part(first, false, packet.substr(kIpv6Header + first))};
}

}  // namespace

Extension hop_options() { return {IPPROTO_HOPOPTS, padding()}; }
Extension destination_options() { return {IPPROTO_DSTOPTS, padding()}; }

Extension segment_routing(const IpAddress& last) {
  // Length in units of 8 bytes, type 4, segments left, last entry, flags, tag, segment list (the last one first).
  return {IPPROTO_ROUTING, std::string("\x02\x04\x01\x00\x00\x00\x00", 7) + raw(last)};
}

Extension atomic_fragment() { return {IPPROTO_FRAGMENT, std::string("\x00\x00\x00\x00\x00\x00\x07", 7)}; }

std::string TcpPacket::bytes() const { return source.address.is_v4() ? ipv4(*this) : ipv6(*this); }

std::pair<std::string, std::string> in_fragments(const std::string& packet, std::size_t first) {
  return get8(packet, 0) >> 4 == 4 ? ipv4_fragments(packet, first) : ipv6_fragments(packet, first);
}

std::string frame(const Link& link, const std::string& packet, const std::vector<Tag>& tags, std::uint16_t ethertype) {
  std::string out;
  for (const auto byte : link.destination) put8(out, byte);
  for (const auto byte : link.source) put8(out, byte);
  for (const auto& tag : tags) {
    put16(out, tag.type);
    put16(out, tag.vlan);
  }
  if (ethertype == 0) ethertype = get8(packet, 0) >> 4 == 4 ? 0x0800 : 0x86dd;
  put16(out, ethertype);
  return out + packet;
}

}  // namespace weft::test
