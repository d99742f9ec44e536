// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tunnel/base/ip.h"

/// Packets as an attacker makes them by hand, with checksums that the kernel accepts: what is not stopped arrives.
namespace weft::test {

inline constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16;

/// An IPv6 extension header: its type, and its bytes behind the "next header" byte.
struct Extension {
  std::uint8_t type;
  std::string rest;
};
Extension hop_options();          ///< 8 bytes of padding
Extension destination_options();  ///< 8 bytes of padding
/// Routing header type 4 with one segment left: the packet goes to its destination and from there to `last`.
Extension segment_routing(const IpAddress& last);
Extension atomic_fragment();  ///< a fragment header of a packet that is whole

/// A TCP segment in its IP packet. Both endpoints are of one family.
struct TcpPacket {
  Endpoint source, destination;
  std::uint8_t flags = kSyn;
  std::uint32_t sequence = 1;
  std::string payload{};
  std::string options{};                ///< of IPv4; a multiple of four bytes
  std::vector<Extension> extensions{};  ///< of IPv6
  [[nodiscard]] std::string bytes() const;
};

/// The same packet in two fragments, the first with `first` bytes (a multiple of eight) of what is behind the IP
/// header.
std::pair<std::string, std::string> in_fragments(const std::string& packet, std::size_t first = 8);

/// A VLAN tag: 0x8100 or 0x88a8, and the number of the VLAN.
struct Tag {
  std::uint16_t type, vlan;
};

using Mac = std::array<std::uint8_t, 6>;
struct Link {
  Mac source, destination;
};

/// The packet in an Ethernet frame; `ethertype` 0: by the packet's IP version.
std::string frame(const Link& link, const std::string& packet, const std::vector<Tag>& tags = {},
                  std::uint16_t ethertype = 0);

}  // namespace weft::test
