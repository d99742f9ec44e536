// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

struct nl_sock;

namespace weft::cni {

/// A network interface as its own namespace sees it.
struct Link {
  std::uint32_t ifindex = 0;
  std::string name;
  std::string kind;  ///< "veth", "macvlan", …; empty for physical devices and lo
  bool up = false;
  std::uint32_t peer_ifindex = 0;  ///< IFLA_LINK: a veth's other end; 0 where there is none
  std::optional<int> peer_nsid;  ///< IFLA_LINK_NETNSID: where that is, by this namespace's numbers; empty: in this one
};

/// A policy rule, as far as ours differ from others.
struct Rule {
  std::uint32_t priority = 0;
  std::uint32_t mark = 0;
  std::uint32_t mask = 0;
  std::uint32_t table = 0;    ///< 0: the rule does something else than look up a table
  bool selects_more = false;  ///< it also has a source, a destination or an interface
  bool operator==(const Rule&) const = default;
};

/// A route of a table of ours.
struct Route {
  std::uint32_t table = 0;
  std::uint8_t type = 0;  ///< RTN_LOCAL, …
  std::uint8_t prefix_length = 0;
  std::uint32_t ifindex = 0;
  bool operator==(const Route&) const = default;
};

/// A route netlink socket in the namespace where it was opened; it stays there when its thread moves on. One thread at
/// a time. `family` is AF_INET or AF_INET6. Errors: kNotFound for what does not exist, kDenied without CAP_NET_ADMIN,
/// kUnsupported where the kernel lacks it; the texts name what was tried on what.
class Netlink {
 public:
  static Result<Netlink> open();

  Result<Link> link(const std::string& name) const;
  Result<Link> link(std::uint32_t ifindex) const;
  Result<std::vector<Link>> links() const;
  Result<void> set_up(std::uint32_t ifindex) const;
  /// The addresses of an interface; link-local ones are left out.
  Result<std::vector<IpAddress>> addresses(std::uint32_t ifindex) const;
  /// This namespace's number for another one; empty when it has none.
  Result<std::optional<int>> nsid_of(int netns_fd) const;

  /// In the order in which the kernel asks them.
  Result<std::vector<Rule>> rules(int family) const;
  Result<void> add_rule(int family, const Rule& rule) const;
  Result<void> delete_rule(int family, const Rule& rule) const;

  /// The routes of one table.
  Result<std::vector<Route>> routes(int family, std::uint32_t table) const;
  /// The interfaces that unicast routes of any table lead through; link-local prefixes do not count.
  Result<std::vector<std::uint32_t>> routed_interfaces(int family) const;
  /// Routes are added for the default prefix only; an existing one is kept (no error).
  /// `source`: the address that sockets get which send through the route; when it goes, so does the route.
  Result<void> add_default_route(int family, const Route& route, const std::optional<IpAddress>& source = {}) const;
  Result<void> delete_default_route(int family, const Route& route) const;

 private:
  struct Closer {
    void operator()(nl_sock* socket) const;
  };
  explicit Netlink(nl_sock* socket) : socket_(socket) {}
  std::unique_ptr<nl_sock, Closer> socket_;
};

}  // namespace weft::cni
