// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/veth.h"

#include <sys/socket.h>

#include <optional>
#include <set>

#include "cni-plugin/netlink.h"
#include "cni-plugin/netns.h"

namespace weft::cni {
namespace {

/// The pod's side, and the number that the pod's netns has for the host's.
struct PodSide {
  Link link;
  std::optional<int> host_nsid;
  std::vector<IpAddress> addresses;
};

Result<PodSide> look_inside(int pod_netns, int host_netns, const std::string& if_name) {
  auto scope = NetnsScope::enter(pod_netns);
  if (!scope) return Failure(std::move(scope.error()));
  auto netlink = Netlink::open();
  if (!netlink) return Failure(std::move(netlink.error()));
  auto link = netlink->link(if_name);
  if (!link) {
    if (link.error().code == ErrorCode::kNotFound) {
      return fail(ErrorCode::kUnsupported, "the pod has no interface " + if_name);
    }
    return Failure(std::move(link.error()));
  }
  auto nsid = netlink->nsid_of(host_netns);
  if (!nsid) return Failure(std::move(nsid.error()));
  auto addresses = netlink->addresses(link->ifindex);
  if (!addresses) return Failure(std::move(addresses.error()));
  return PodSide{std::move(*link), *nsid, std::move(*addresses)};
}

/// Why the pod's side cannot be wired; empty when it can.
std::string unusable(const PodSide& pod) {
  const std::string what = "the pod's interface " + pod.link.name;
  if (pod.link.kind != "veth" && pod.link.kind != "netkit") {
    return what + " is of the kind '" + pod.link.kind + "': veth and netkit are supported";
  }
  if (pod.link.peer_ifindex == 0) return what + " has no other end";
  if (!pod.link.peer_nsid) return what + " has its other end inside the pod";
  if (pod.link.peer_nsid != pod.host_nsid) return what + " has its other end in a third network namespace";
  return {};
}

}  // namespace

Result<PodInterface> find_pod_interface(int pod_netns, const std::string& if_name) {
  auto host_netns = own_netns();
  if (!host_netns) return Failure(std::move(host_netns.error()));
  auto pod = look_inside(pod_netns, host_netns->get(), if_name);
  if (!pod) return Failure(std::move(pod.error()));
  if (const std::string why = unusable(*pod); !why.empty()) return fail(ErrorCode::kUnsupported, why);

  auto netlink = Netlink::open();
  if (!netlink) return Failure(std::move(netlink.error()));
  auto host = netlink->link(pod->link.peer_ifindex);
  const std::string peer = "interface " + std::to_string(pod->link.peer_ifindex) + " of the host";
  if (!host) {
    if (host.error().code != ErrorCode::kNotFound) return Failure(std::move(host.error()));
    return fail(ErrorCode::kUnsupported, "the other end of the pod's " + if_name + ", " + peer + ", is gone");
  }
  auto pod_nsid = netlink->nsid_of(pod_netns);
  if (!pod_nsid) return Failure(std::move(pod_nsid.error()));
  if (host->kind != pod->link.kind || host->peer_ifindex != pod->link.ifindex || !host->peer_nsid ||
      host->peer_nsid != *pod_nsid) {
    return fail(ErrorCode::kUnsupported, peer + " (" + host->name + ") is not the other end of the pod's " + if_name);
  }
  return PodInterface{pod->link.ifindex, host->ifindex, host->name, std::move(pod->addresses)};
}

Result<std::map<std::uint32_t, std::string>> routed_interfaces(int netns_fd) {
  auto scope = NetnsScope::enter(netns_fd);
  if (!scope) return Failure(std::move(scope.error()));
  auto netlink = Netlink::open();
  if (!netlink) return Failure(std::move(netlink.error()));
  auto links = netlink->links();
  if (!links) return Failure(std::move(links.error()));
  std::set<std::uint32_t> routed;
  for (const int family : {AF_INET, AF_INET6}) {
    auto through = netlink->routed_interfaces(family);
    if (!through) return Failure(std::move(through.error()));
    routed.insert(through->begin(), through->end());
  }
  std::map<std::uint32_t, std::string> found;
  for (const Link& link : *links) {
    if (link.up && link.name != "lo" && routed.contains(link.ifindex)) found.emplace(link.ifindex, link.name);
  }
  return found;
}

}  // namespace weft::cni
