// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/pod_routing.h"

#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "bpf/shared.h"
#include "cni-plugin/netlink.h"
#include "cni-plugin/netns.h"

namespace weft::cni {
namespace {

static_assert(kCaptureMark == WEFT_MARK && kCaptureMark == WEFT_MARK_MASK,
              "the rule must match what the programs write");

constexpr std::uint32_t kLoopback = 1;  // lo's ifindex, in every netns
constexpr const char* kAcceptLocal = "/proc/sys/net/ipv4/conf/lo/accept_local";
constexpr const char* kDisableV6 = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
constexpr Rule kRule{kCapturePriority, kCaptureMark, kCaptureMark, kCaptureTable, false};
constexpr Route kRoute{kCaptureTable, RTN_LOCAL, 0, kLoopback};

/// The first character of a sysctl of the calling thread's netns. Error kNotFound where the kernel has no such.
Result<char> read_sysctl(const char* path) {
  const Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
  char value = 0;
  if (!fd || ::read(fd.get(), &value, 1) != 1) return fail_errno(errno, std::string("read ") + path);
  return value;
}

Result<void> write_sysctl(const char* path, char value) {
  const Fd fd(::open(path, O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), &value, 1) != 1) {
    return fail_errno(errno, std::string("write ") + value + " to " + path + " (is /proc/sys mounted read-only?)");
  }
  return {};
}

/// Whether lo carries IPv6 here. A kernel without IPv6 has no such sysctl.
bool lo_has_v6() {
  const auto disabled = read_sysctl(kDisableV6);
  return disabled && *disabled == '0';
}

const char* family_name(int family) { return family == AF_INET6 ? "IPv6" : "IPv4"; }

/// The steps of prepare_netns. What they change is noted at once, so that a failure in the middle can be undone.
class Preparation {
 public:
  Preparation(const Netlink& netlink, RoutingChanges& changes) : netlink_(netlink), changes_(changes) {}

  Result<void> run(bool needs_v6, const std::optional<IpAddress>& source_v4) {
    if (auto up = netlink_.set_up(kLoopback); !up) return up;
    if (auto set = accept_local(); !set) return set;
    if (auto added = family(AF_INET, changes_.rule_v4, changes_.route_v4, source_v4); !added) return added;
    if (needs_v6 && !lo_has_v6()) {
      if (auto enabled = write_sysctl(kDisableV6, '0'); !enabled) return enabled;
      changes_.enabled_v6 = true;
    }
    if (!lo_has_v6()) return {};
    return family(AF_INET6, changes_.rule_v6, changes_.route_v6, {});
  }

 private:
  Result<void> accept_local() {
    auto now = read_sysctl(kAcceptLocal);
    if (!now) return Failure(std::move(now.error()));
    if (*now == '1') return {};
    if (auto written = write_sysctl(kAcceptLocal, '1'); !written) return written;
    changes_.accept_local = true;
    return {};
  }

  Result<void> family(int family, bool& rule_added, bool& route_added, const std::optional<IpAddress>& source) {
    auto rules = netlink_.rules(family);
    if (!rules) return Failure(std::move(rules.error()));
    if (std::ranges::find(*rules, kRule) == rules->end()) {
      if (auto added = netlink_.add_rule(family, kRule); !added) return added;
      rule_added = true;
    }
    auto routes = netlink_.routes(family, kCaptureTable);
    if (!routes) return Failure(std::move(routes.error()));
    if (std::ranges::find(*routes, kRoute) == routes->end()) {
      if (auto added = netlink_.add_default_route(family, kRoute, source); !added) return added;
      route_added = true;
    }
    return {};
  }

  const Netlink& netlink_;
  RoutingChanges& changes_;
};

/// Best effort: an error here means that it is gone already, or will be with the netns.
void take_back(const Netlink& netlink, const RoutingChanges& changes) {
  if (changes.rule_v4) (void)netlink.delete_rule(AF_INET, kRule);
  if (changes.route_v4) (void)netlink.delete_default_route(AF_INET, kRoute);
  if (changes.rule_v6) (void)netlink.delete_rule(AF_INET6, kRule);
  if (changes.route_v6) (void)netlink.delete_default_route(AF_INET6, kRoute);
  if (changes.accept_local) (void)write_sysctl(kAcceptLocal, '0');
  if (changes.enabled_v6) (void)write_sysctl(kDisableV6, '1');
}

/// The kernel's rule for local addresses may stand before ours, and nothing else.
bool may_precede(const Rule& rule) { return rule.priority == 0 && rule.mask == 0 && rule.table == RT_TABLE_LOCAL; }

Result<void> verify_family(const Netlink& netlink, int family, std::vector<std::string>& problems) {
  const std::string name = family_name(family);
  auto rules = netlink.rules(family);
  if (!rules) return Failure(std::move(rules.error()));
  const auto ours = std::ranges::find(*rules, kRule);
  if (ours == rules->end()) problems.push_back("the " + name + " rule for the capture mark is missing");
  const auto ahead = std::find_if_not(rules->begin(), ours, may_precede);
  if (ours != rules->end() && ahead != ours) {
    problems.push_back("an " + name + " rule of priority " + std::to_string(ahead->priority) +
                       " stands before the one for the capture mark");
  }
  auto routes = netlink.routes(family, kCaptureTable);
  if (!routes) return Failure(std::move(routes.error()));
  if (std::ranges::find(*routes, kRoute) == routes->end()) {
    problems.push_back("the " + name + " local default route of table " + std::to_string(kCaptureTable) +
                       " is missing");
  }
  if (std::ranges::any_of(*routes, [](const Route& route) { return route != kRoute; })) {
    problems.push_back("table " + std::to_string(kCaptureTable) + " has other " + name + " routes than ours");
  }
  return {};
}

}  // namespace

Result<RoutingChanges> prepare_netns(int netns_fd, bool needs_v6, const std::optional<IpAddress>& source_v4) {
  auto scope = NetnsScope::enter(netns_fd);
  if (!scope) return Failure(std::move(scope.error()));
  auto netlink = Netlink::open();
  if (!netlink) return Failure(std::move(netlink.error()));
  RoutingChanges changes;
  auto done = Preparation(*netlink, changes).run(needs_v6, source_v4);
  if (!done) {
    take_back(*netlink, changes);
    return Failure(std::move(done.error()));
  }
  return changes;
}

void revert_netns(int netns_fd, const RoutingChanges& changes) {
  auto scope = NetnsScope::enter(netns_fd);
  if (!scope) return;
  auto netlink = Netlink::open();
  if (netlink) take_back(*netlink, changes);
}

void clear_netns(int netns_fd) {
  revert_netns(netns_fd, {.rule_v4 = true,
                          .route_v4 = true,
                          .rule_v6 = true,
                          .route_v6 = true,
                          .accept_local = true,
                          .enabled_v6 = false});
}

Result<std::vector<std::string>> verify_netns(int netns_fd, bool needs_v6) {
  auto scope = NetnsScope::enter(netns_fd);
  if (!scope) return Failure(std::move(scope.error()));
  auto netlink = Netlink::open();
  if (!netlink) return Failure(std::move(netlink.error()));
  std::vector<std::string> problems;
  auto lo = netlink->link(kLoopback);
  if (!lo) return Failure(std::move(lo.error()));
  if (!lo->up) problems.emplace_back("lo is down");
  auto accept_local = read_sysctl(kAcceptLocal);
  if (!accept_local) return Failure(std::move(accept_local.error()));
  if (*accept_local != '1') problems.emplace_back("net.ipv4.conf.lo.accept_local is not 1");
  if (auto v4 = verify_family(*netlink, AF_INET, problems); !v4) return Failure(std::move(v4.error()));
  if (lo_has_v6()) {
    if (auto v6 = verify_family(*netlink, AF_INET6, problems); !v6) return Failure(std::move(v6.error()));
  } else if (needs_v6) {
    problems.emplace_back("lo has no IPv6 although the pod's interface has");
  }
  return problems;
}

}  // namespace weft::cni
