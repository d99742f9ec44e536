// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::cni {

/// A pod's interface and its other end on the host, as the kernel pairs them. Names in prevResult play no part: plugins
/// list them in different orders, or not at all.
struct PodInterface {
  std::uint32_t ifindex = 0;       ///< in the pod
  std::uint32_t host_ifindex = 0;  ///< in the calling thread's netns
  std::string host_name;
  std::vector<IpAddress> addresses;  ///< what the interface has now, without link-local addresses
};

/// Finds both ends and checks from either side that each is the other's peer. The calling thread is in the host's
/// netns, and is again afterwards. Errors: kUnsupported, with what was found, when there is no such interface, or it is
/// no veth or netkit, or its other end is not here.
Result<PodInterface> find_pod_interface(int pod_netns, const std::string& if_name);

/// The interfaces of a netns that are up and that a route of any table leads through, but lo: traffic may leave by
/// them. By ifindex.
Result<std::map<std::uint32_t, std::string>> routed_interfaces(int netns_fd);

}  // namespace weft::cni
