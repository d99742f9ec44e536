// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

/// What captured packets need inside a pod's netns, so that those which `deliver` has marked reach the agent's sockets
/// whatever their destination: lo up, `ip rule pref 1 fwmark 0x1000/0x1000 lookup 1500`, `ip route local default dev lo
/// table 1500` (IPv4: `src` the pod's address, because an application that sets the mark itself routes by it too and
/// would otherwise find no source address: it is captured over lo), and net.ipv4.conf.lo.accept_local=1; rule and route
/// for IPv6 too where the netns has it.
///
/// All functions take a descriptor of the pod's netns and leave the calling thread in the netns that it was in.
namespace weft::cni {

inline constexpr std::uint32_t kCaptureMark = 0x1000;  ///< value and mask
inline constexpr std::uint32_t kCaptureTable = 1500;   ///< not 100, which others use for transparent proxies
inline constexpr std::uint32_t kCapturePriority = 1;   ///< directly behind the kernel's own rule for local addresses

/// What prepare_netns changed, for undoing exactly that.
struct RoutingChanges {
  bool rule_v4 = false, route_v4 = false, rule_v6 = false, route_v6 = false;
  bool accept_local = false;  ///< set from 0
  bool enabled_v6 = false;    ///< IPv6 was switched off on lo
};

/// Brings everything in place that is not there yet. `needs_v6`: the pod's interface has IPv6 addresses, so lo gets
/// IPv6 too where it was switched off. `source_v4`: an IPv4 address that the pod's interface has. On failure what this
/// call changed is undone, except that lo stays up: the runtime sets it up as well, at the same time.
Result<RoutingChanges> prepare_netns(int netns_fd, bool needs_v6, const std::optional<IpAddress>& source_v4);

/// Takes back what prepare_netns changed. Never fails: what is gone is gone.
void revert_netns(int netns_fd, const RoutingChanges& changes);

/// Takes off rules, routes and accept_local whoever put them there.
void clear_netns(int netns_fd);

/// What is missing or in the way, one text each; empty means all is well.
Result<std::vector<std::string>> verify_netns(int netns_fd, bool needs_v6);

}  // namespace weft::cni
