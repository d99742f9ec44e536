// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "test/netns/attack_packet.h"
#include "test/support/netns.h"

/// Ways for a process with CAP_NET_RAW to put a frame on an interface of its own network namespace.
namespace weft::test {

enum class Way : std::uint8_t {
  kPacketSocket,  ///< AF_PACKET: through the queueing discipline, so TC egress sees it
  kQdiscBypass,   ///< AF_PACKET with PACKET_QDISC_BYPASS: past TC egress
};

/// An AF_PACKET socket in the pod. Throws TestError on trouble.
class PacketSender {
 public:
  PacketSender(const Netns& netns, const std::string& interface, Way way, std::uint32_t mark = 0);
  void send(const std::string& frame) const;

 private:
  Fd socket_;
  int ifindex_ = 0;
};

/// Sends one frame by AF_XDP in copy mode from queue 0. Gives an empty text, or why this kernel cannot.
std::string send_by_xdp(const Netns& netns, const std::string& interface, const std::string& frame);

/// The hardware addresses of an interface in `netns` and of its peer `peer` in `peer_netns`.
Link link_between(const Netns& netns, const std::string& interface, const Netns& peer_netns, const std::string& peer);

}  // namespace weft::test
