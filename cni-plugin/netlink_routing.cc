// SPDX-License-Identifier: Apache-2.0
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>
#include <netlink/route/rule.h>

#include <array>

#include "cni-plugin/netlink.h"
#include "cni-plugin/netlink_detail.h"

namespace weft::cni {
namespace {

using detail::netlink_failure;
using detail::Owned;

std::string describe(int family, const Rule& rule) {
  return std::string(family == AF_INET6 ? "the IPv6" : "the IPv4") + " rule " + std::to_string(rule.priority) +
         " to table " + std::to_string(rule.table);
}

std::string describe(int family, const Route& route) {
  return std::string(family == AF_INET6 ? "the IPv6" : "the IPv4") + " local default route of table " +
         std::to_string(route.table);
}

Rule read_rule(rtnl_rule* object) {
  Rule rule;
  rule.priority = rtnl_rule_get_prio(object);
  rule.mark = rtnl_rule_get_mark(object);
  rule.mask = rtnl_rule_get_mask(object);
  if (rtnl_rule_get_action(object) == FR_ACT_TO_TBL) rule.table = rtnl_rule_get_table(object);
  const auto selects = [](const nl_addr* address) { return address != nullptr && nl_addr_get_prefixlen(address) != 0; };
  const auto names = [](const char* name) { return name != nullptr && *name != '\0'; };
  rule.selects_more = selects(rtnl_rule_get_src(object)) || selects(rtnl_rule_get_dst(object)) ||
                      names(rtnl_rule_get_iif(object)) || names(rtnl_rule_get_oif(object));
  return rule;
}

Owned<rtnl_rule, rtnl_rule_put> make_rule(int family, const Rule& rule) {
  Owned<rtnl_rule, rtnl_rule_put> object(rtnl_rule_alloc());
  if (object == nullptr) return object;
  rtnl_rule_set_family(object.get(), family);
  rtnl_rule_set_prio(object.get(), rule.priority);
  rtnl_rule_set_mark(object.get(), rule.mark);
  rtnl_rule_set_mask(object.get(), rule.mask);
  rtnl_rule_set_action(object.get(), FR_ACT_TO_TBL);
  rtnl_rule_set_table(object.get(), rule.table);
  return object;
}

/// The interface of a route with one next hop; 0 for any other.
std::uint32_t interface_of(rtnl_route* object) {
  if (rtnl_route_get_nnexthops(object) != 1) return 0;
  return static_cast<std::uint32_t>(rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(object, 0)));
}

/// fe80::/10 is on every interface and leads nowhere else.
bool is_link_local(const nl_addr* destination) {
  if (destination == nullptr || nl_addr_get_family(destination) != AF_INET6 ||
      nl_addr_get_prefixlen(destination) < 10) {
    return false;
  }
  const auto* bytes = static_cast<const unsigned char*>(nl_addr_get_binary_addr(destination));
  return bytes[0] == 0xfe && (bytes[1] & 0xc0U) == 0x80;
}

Owned<rtnl_route, rtnl_route_put> make_default_route(int family, const Route& route,
                                                     const std::optional<IpAddress>& source = {}) {
  Owned<rtnl_route, rtnl_route_put> object(rtnl_route_alloc());
  const std::array<char, 16> zero{};
  const Owned<nl_addr, nl_addr_put> destination(nl_addr_build(family, zero.data(), family == AF_INET6 ? 16 : 4));
  rtnl_nexthop* hop = rtnl_route_nh_alloc();
  if (object == nullptr || destination == nullptr || hop == nullptr) {
    if (hop != nullptr) rtnl_route_nh_free(hop);
    return nullptr;
  }
  nl_addr_set_prefixlen(destination.get(), 0);
  rtnl_route_nh_set_ifindex(hop, static_cast<int>(route.ifindex));
  rtnl_route_add_nexthop(object.get(), hop);
  rtnl_route_set_family(object.get(), static_cast<std::uint8_t>(family));
  rtnl_route_set_table(object.get(), route.table);
  rtnl_route_set_type(object.get(), route.type);
  rtnl_route_set_scope(object.get(), family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_HOST);
  rtnl_route_set_protocol(object.get(), RTPROT_STATIC);
  rtnl_route_set_dst(object.get(), destination.get());
  if (source) {
    const auto bytes = source->bytes();
    const Owned<nl_addr, nl_addr_put> preferred(nl_addr_build(family, bytes.data(), bytes.size()));
    if (preferred == nullptr || rtnl_route_set_pref_src(object.get(), preferred.get()) < 0) return nullptr;
  }
  return object;
}

}  // namespace

Result<std::vector<Rule>> Netlink::rules(int family) const {
  nl_cache* cache = nullptr;
  const int status = rtnl_rule_alloc_cache(socket_.get(), family, &cache);
  if (status < 0) return netlink_failure(status, "list the policy rules");
  const Owned<nl_cache, nl_cache_free> owned(cache);
  std::vector<Rule> rules;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    auto* entry = reinterpret_cast<rtnl_rule*>(object);
    // libnl asks for the rules of all families whatever it is told.
    if (rtnl_rule_get_family(entry) == family) rules.push_back(read_rule(entry));
  }
  return rules;
}

Result<void> Netlink::add_rule(int family, const Rule& rule) const {
  const auto object = make_rule(family, rule);
  const int status = object == nullptr ? -NLE_NOMEM : rtnl_rule_add(socket_.get(), object.get(), NLM_F_EXCL);
  if (status < 0 && status != -NLE_EXIST) return netlink_failure(status, "add " + describe(family, rule));
  return {};
}

Result<void> Netlink::delete_rule(int family, const Rule& rule) const {
  const auto object = make_rule(family, rule);
  const int status = object == nullptr ? -NLE_NOMEM : rtnl_rule_delete(socket_.get(), object.get(), 0);
  if (status < 0) return netlink_failure(status, "delete " + describe(family, rule));
  return {};
}

Result<std::vector<Route>> Netlink::routes(int family, std::uint32_t table) const {
  nl_cache* cache = nullptr;
  const int status = rtnl_route_alloc_cache(socket_.get(), family, 0, &cache);
  if (status < 0) return netlink_failure(status, "list the routes");
  const Owned<nl_cache, nl_cache_free> owned(cache);
  std::vector<Route> routes;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    auto* entry = reinterpret_cast<rtnl_route*>(object);
    if (rtnl_route_get_table(entry) != table) continue;
    const nl_addr* destination = rtnl_route_get_dst(entry);
    const auto length = destination == nullptr ? 0U : nl_addr_get_prefixlen(destination);
    routes.push_back({table, rtnl_route_get_type(entry), static_cast<std::uint8_t>(length), interface_of(entry)});
  }
  return routes;
}

Result<std::vector<std::uint32_t>> Netlink::routed_interfaces(int family) const {
  nl_cache* cache = nullptr;
  const int status = rtnl_route_alloc_cache(socket_.get(), family, 0, &cache);
  if (status < 0) return netlink_failure(status, "list the routes");
  const Owned<nl_cache, nl_cache_free> owned(cache);
  std::vector<std::uint32_t> interfaces;
  for (nl_object* object = nl_cache_get_first(cache); object != nullptr; object = nl_cache_get_next(object)) {
    auto* entry = reinterpret_cast<rtnl_route*>(object);
    if (rtnl_route_get_type(entry) != RTN_UNICAST || is_link_local(rtnl_route_get_dst(entry))) continue;
    for (int i = 0; i < rtnl_route_get_nnexthops(entry); ++i) {
      interfaces.push_back(static_cast<std::uint32_t>(rtnl_route_nh_get_ifindex(rtnl_route_nexthop_n(entry, i))));
    }
  }
  return interfaces;
}

Result<void> Netlink::add_default_route(int family, const Route& route, const std::optional<IpAddress>& source) const {
  const auto object = make_default_route(family, route, source);
  const int status = object == nullptr ? -NLE_NOMEM : rtnl_route_add(socket_.get(), object.get(), NLM_F_EXCL);
  if (status < 0 && status != -NLE_EXIST) return netlink_failure(status, "add " + describe(family, route));
  return {};
}

Result<void> Netlink::delete_default_route(int family, const Route& route) const {
  const auto object = make_default_route(family, route);
  const int status = object == nullptr ? -NLE_NOMEM : rtnl_route_delete(socket_.get(), object.get(), 0);
  if (status < 0) return netlink_failure(status, "delete " + describe(family, route));
  return {};
}

}  // namespace weft::cni
