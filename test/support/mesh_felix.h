// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "test/support/netns.h"
#include "tunnel/base/ip.h"

namespace weft::test {

/// The rules that Calico's agent keeps on a node, without Calico: IPv4 and IPv6, iptables, its own names of chains.
/// Packets of pods pass a strict reverse path filter (raw PREROUTING, and rp_filter=1); from pods to the node itself
/// goes what DefaultEndpointToHostAction says; FORWARD drops interfaces that it does not know, and at those that it
/// knows what conntrack calls INVALID and what a policy denies. Needs iptables; its namespace must outlive it.
class FakeFelix {
 public:
  /// DefaultEndpointToHostAction: Felix' own default, and that of Calico's manifest.
  enum class HostAction : std::uint8_t { kDrop, kAccept };

  FakeFelix(const Netns& node, HostAction pods_to_node);

  /// Knows the interface from now on. Felix learns of a pod some time after its ADD.
  void add_endpoint(const std::string& interface) const;
  void remove_endpoint(const std::string& interface) const;
  /// A NetworkPolicy of the endpoint: new connections from this address are dropped.
  void deny(const std::string& interface, const IpAddress& source) const;
  /// Takes deny() of the endpoint back.
  void clear_policy(const std::string& interface) const;

  /// Packets that met the rules with `words` in them, as iptables-save prints rules; both families. Throws where there
  /// is no such rule.
  [[nodiscard]] std::uint64_t packets(const std::string& words) const;

 private:
  /// Both families, or that of `family` alone.
  void load(const std::string& rules, const IpAddress& family = {}) const;
  const Netns* node_;
};

}  // namespace weft::test
