// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/capabilities.h"

#include <cap-ng.h>
#include <sys/resource.h>
#include <sys/utsname.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string>

namespace weft::agent::hardening {
namespace {

constexpr std::array kCapabilities{
    Capability{CAP_SYS_ADMIN, "CAP_SYS_ADMIN", Use::kRun,
               "enter the pods' network namespaces, and load, pin and look up BPF programs and maps"},
    Capability{
        CAP_NET_ADMIN, "CAP_NET_ADMIN", Use::kRun,
        "attach the capture programs, open sockets with the pods' addresses, keep the pods' rules and routes, and "
        "end connections that a policy denies"},
    Capability{CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", Use::kRun,
               "call applications from ports below 32768 in pods that raise net.ipv4.ip_unprivileged_port_start"},
    Capability{CAP_IPC_LOCK, "CAP_IPC_LOCK", Use::kStart, "keep private keys in memory that is never swapped out"},
    Capability{CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", Use::kStartMemlock,
               "raise RLIMIT_MEMLOCK, which bounds BPF maps before Linux 5.11"},
};

/// Since 5.11 the memory of BPF maps is the memory cgroup's matter.
bool maps_are_locked_memory() {
  utsname name{};
  unsigned major = 0, minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%u.%u", &major, &minor) != 2) return false;
  return major < 5 || (major == 5 && minor < 11);
}

bool memlock_counts() {
  rlimit limit{};
  return maps_are_locked_memory() && ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_max != RLIM_INFINITY;
}

Result<void> read_own() {
  if (capng_get_caps_process() != 0) return fail(ErrorCode::kInternal, "read this process' capabilities: failed");
  return {};
}

bool has(capng_type_t set, unsigned capability) { return capng_have_capability(set, capability) == 1; }

bool is_kept(unsigned number) {
  for (const auto& capability : kCapabilities) {
    if (capability.number == number) return capability.use == Use::kRun;
  }
  return false;
}

/// Whether the kernel's sets are now those that were asked for. What a kernel does not know it does not have.
Result<void> check_dropped() {
  if (auto read = read_own(); !read) return read;
  for (unsigned number = 0; number <= CAP_LAST_CAP; ++number) {
    const bool kept = is_kept(number);
    if (has(CAPNG_EFFECTIVE, number) == kept && has(CAPNG_PERMITTED, number) == kept &&
        !has(CAPNG_INHERITABLE, number) && !has(CAPNG_AMBIENT, number)) {
      continue;
    }
    return fail(ErrorCode::kInternal, "give up capabilities: the kernel did not take the new set, capability " +
                                          std::to_string(number) + " is not as it should be");
  }
  return {};
}

}  // namespace

std::span<const Capability> capabilities() { return kCapabilities; }

Result<void> check_capabilities(const std::function<bool(unsigned)>& has, bool memlock_counts) {
  std::string missing;
  std::string add;
  for (const auto& capability : kCapabilities) {
    if (has(capability.number) || (capability.use == Use::kStartMemlock && !memlock_counts)) continue;
    missing += (missing.empty() ? "" : "; ") + std::string(capability.name) + " is missing, it is needed to " +
               capability.purpose;
    add += (add.empty() ? "" : ", ") + std::string(capability.name + sizeof "CAP_" - 1);
  }
  if (missing.empty()) return {};
  return fail(ErrorCode::kDenied,
              "start weft-agent: " + missing + " (add to the container's securityContext.capabilities: " + add + ")");
}

Result<void> check_capabilities() {
  if (auto read = read_own(); !read) return read;
  return check_capabilities([](unsigned number) { return has(CAPNG_PERMITTED, number); }, memlock_counts());
}

Result<void> drop_capabilities() {
  capng_clear(CAPNG_SELECT_ALL);
  for (const auto& capability : kCapabilities) {
    if (capability.use != Use::kRun) continue;
    for (const auto set : {CAPNG_EFFECTIVE, CAPNG_PERMITTED, CAPNG_BOUNDING_SET}) {
      if (capng_update(CAPNG_ADD, set, capability.number) != 0) {
        return fail(ErrorCode::kInternal, std::string("choose the capability ") + capability.name + ": failed");
      }
    }
  }
  // Leaves the bounding set as it is where CAP_SETPCAP is missing.
  if (capng_apply(CAPNG_SELECT_ALL) != 0) return fail_errno(errno, "give up capabilities");
  return check_dropped();
}

Result<void> raise_memlock_for_maps() {
  if (!maps_are_locked_memory()) return {};
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  if (::setrlimit(RLIMIT_MEMLOCK, &unlimited) < 0) return fail_errno(errno, "raise RLIMIT_MEMLOCK for BPF maps");
  return {};
}

}  // namespace weft::agent::hardening
