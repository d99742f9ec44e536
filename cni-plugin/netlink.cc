// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/netlink.h"

#include <linux/net_namespace.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/socket.h>

#include "cni-plugin/netlink_detail.h"

namespace weft::cni {
namespace {

using detail::netlink_failure;
using detail::Owned;

Link read_link(rtnl_link* object) {
  Link link;
  link.ifindex = static_cast<std::uint32_t>(rtnl_link_get_ifindex(object));
  if (const char* name = rtnl_link_get_name(object); name != nullptr) link.name = name;
  if (const char* kind = rtnl_link_get_type(object); kind != nullptr) link.kind = kind;
  link.up = (rtnl_link_get_flags(object) & IFF_UP) != 0;
  link.peer_ifindex = static_cast<std::uint32_t>(rtnl_link_get_link(object));
  int32_t nsid = 0;
  if (rtnl_link_get_link_netnsid(object, &nsid) == 0) link.peer_nsid = nsid;
  return link;
}

Result<Link> get_link(nl_sock* socket, int ifindex, const char* name) {
  rtnl_link* object = nullptr;
  const int status = rtnl_link_get_kernel(socket, ifindex, name, &object);
  if (status < 0) {
    return netlink_failure(status, "look up the interface " + (name != nullptr ? name : std::to_string(ifindex)));
  }
  const Owned<rtnl_link, rtnl_link_put> owned(object);
  return read_link(object);
}

/// Takes NETNSA_NSID out of the answer to RTM_GETNSID.
int on_nsid(nl_msg* message, void* into) {
  nlattr* attributes[NETNSA_MAX + 1];
  if (nlmsg_parse(nlmsg_hdr(message), sizeof(rtgenmsg), attributes, NETNSA_MAX, nullptr) < 0) return NL_SKIP;
  if (attributes[NETNSA_NSID] != nullptr) *static_cast<int*>(into) = nla_get_s32(attributes[NETNSA_NSID]);
  return NL_OK;
}

}  // namespace

namespace detail {

Failure netlink_failure(int status, const std::string& what) {
  ErrorCode code = ErrorCode::kInternal;
  switch (-status) {
    case NLE_OBJ_NOTFOUND:
    case NLE_NODEV:
    case NLE_NOADDR:
      code = ErrorCode::kNotFound;
      break;
    case NLE_PERM:
    case NLE_NOACCESS:
      code = ErrorCode::kDenied;
      break;
    case NLE_OPNOTSUPP:
    case NLE_AF_NOSUPPORT:
    case NLE_PROTO_MISMATCH:
      code = ErrorCode::kUnsupported;
      break;
    default:
      break;
  }
  return fail(code, what + ": " + nl_geterror(status));
}

}  // namespace detail

void Netlink::Closer::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<Netlink> Netlink::open() {
  Netlink netlink(nl_socket_alloc());
  if (netlink.socket_ == nullptr) return fail(ErrorCode::kInternal, "open a netlink socket: out of memory");
  const int status = nl_connect(netlink.socket_.get(), NETLINK_ROUTE);
  if (status < 0) return netlink_failure(status, "open a netlink socket");
  return netlink;
}

Result<Link> Netlink::link(const std::string& name) const { return get_link(socket_.get(), 0, name.c_str()); }

Result<Link> Netlink::link(std::uint32_t ifindex) const {
  return get_link(socket_.get(), static_cast<int>(ifindex), nullptr);
}

Result<std::vector<Link>> Netlink::links() const {
  nl_cache* cache = nullptr;
  const int status = rtnl_link_alloc_cache(socket_.get(), AF_UNSPEC, &cache);
  if (status < 0) return netlink_failure(status, "list the interfaces");
  const Owned<nl_cache, nl_cache_free> owned(cache);
  std::vector<Link> links;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    links.push_back(read_link(reinterpret_cast<rtnl_link*>(object)));
  }
  return links;
}

Result<void> Netlink::set_up(std::uint32_t ifindex) const {
  const Owned<rtnl_link, rtnl_link_put> which(rtnl_link_alloc());
  const Owned<rtnl_link, rtnl_link_put> change(rtnl_link_alloc());
  if (which == nullptr || change == nullptr) return fail(ErrorCode::kInternal, "set an interface up: out of memory");
  rtnl_link_set_ifindex(which.get(), static_cast<int>(ifindex));
  rtnl_link_set_flags(change.get(), IFF_UP);
  const int status = rtnl_link_change(socket_.get(), which.get(), change.get(), 0);
  if (status < 0) return netlink_failure(status, "set the interface " + std::to_string(ifindex) + " up");
  return {};
}

Result<std::vector<IpAddress>> Netlink::addresses(std::uint32_t ifindex) const {
  nl_cache* cache = nullptr;
  const int status = rtnl_addr_alloc_cache(socket_.get(), &cache);
  if (status < 0) return netlink_failure(status, "list the addresses of interface " + std::to_string(ifindex));
  const Owned<nl_cache, nl_cache_free> owned(cache);
  std::vector<IpAddress> addresses;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    auto* entry = reinterpret_cast<rtnl_addr*>(object);
    const nl_addr* local = rtnl_addr_get_local(entry);
    if (rtnl_addr_get_ifindex(entry) != static_cast<int>(ifindex) || local == nullptr) continue;
    const auto* bytes = static_cast<const std::byte*>(nl_addr_get_binary_addr(local));
    const IpAddress address = IpAddress::from_bytes({bytes, nl_addr_get_len(local)});
    if (address.valid() && !address.is_link_local()) addresses.push_back(address);
  }
  return addresses;
}

Result<std::optional<int>> Netlink::nsid_of(int netns_fd) const {
  const std::string what = "ask for the number of a network namespace";
  const Owned<nl_msg, nlmsg_free> message(nlmsg_alloc_simple(RTM_GETNSID, 0));
  rtgenmsg header{};
  if (message == nullptr || nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) < 0 ||
      nla_put_u32(message.get(), NETNSA_FD, static_cast<std::uint32_t>(netns_fd)) < 0) {
    return fail(ErrorCode::kInternal, what + ": out of memory");
  }
  const Owned<nl_cb, nl_cb_put> callbacks(nl_cb_alloc(NL_CB_DEFAULT));
  if (callbacks == nullptr) return fail(ErrorCode::kInternal, what + ": out of memory");
  int nsid = NETNSA_NSID_NOT_ASSIGNED;
  nl_cb_set(callbacks.get(), NL_CB_VALID, NL_CB_CUSTOM, on_nsid, &nsid);
  int status = nl_send_auto(socket_.get(), message.get());
  if (status >= 0) status = nl_recvmsgs(socket_.get(), callbacks.get());
  // An error is its own acknowledgement; behind an answer one more comes.
  if (status >= 0) status = nl_wait_for_ack(socket_.get());
  if (status < 0) return netlink_failure(status, what);
  return nsid == NETNSA_NSID_NOT_ASSIGNED ? std::optional<int>() : std::optional<int>(nsid);
}

}  // namespace weft::cni
