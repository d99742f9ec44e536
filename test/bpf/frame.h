// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tunnel/base/ip.h"

namespace weft::test {

/// TCP flags as they stand in the header.
inline constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16;

/// An Ethernet frame to build: what is not set is that of a plain TCP SYN. Checksums are left 0: no program looks at
/// them.
struct Frame {
  IpAddress source, destination;
  std::uint16_t source_port = 40'000, destination_port = 80;
  std::uint8_t flags = kSyn;
  std::uint8_t protocol = 6;
  std::vector<std::uint16_t> vlan_tags{};  ///< their ethertypes, outermost first
  std::uint16_t ethertype = 0;  ///< 0: that of the addresses' family; anything else: nothing behind it but zeros
  std::vector<std::uint8_t> options{};  ///< IPv4 options, padded with zeros to a multiple of four
  std::uint16_t fragment = 0;           ///< IPv4's flags and offset
  /// IPv6 extension headers: type, and the bytes behind the "next header" byte; their lengths are the caller's.
  std::vector<std::pair<std::uint8_t, std::vector<std::uint8_t>>> extensions{};
  std::size_t payload = 0;
  std::size_t cut = 0;  ///< bytes taken off the end

  [[nodiscard]] std::vector<std::uint8_t> bytes() const;

  /// An extension header of 8 bytes.
  static std::pair<std::uint8_t, std::vector<std::uint8_t>> extension(std::uint8_t type) {
    return {type, {0, 1, 4, 0, 0, 0, 0}};  // in hop and destination options: PadN
  }
  Frame& with(std::pair<std::uint8_t, std::vector<std::uint8_t>> header) {
    extensions.push_back(std::move(header));
    return *this;
  }
};

}  // namespace weft::test
