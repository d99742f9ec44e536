// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "tunnel/base/error.h"

namespace weft::agent::hardening {

/// How long the agent keeps a capability.
enum class Use : std::uint8_t {
  kRun,          ///< as long as it runs
  kStart,        ///< given up before it has a second thread
  kStartMemlock  ///< as kStart, and only where BPF maps count as locked memory and that is limited (before Linux 5.11)
};

struct Capability {
  unsigned number;   ///< as in linux/capability.h
  const char* name;  ///< as an error, the documentation and capabilities(7) spell it
  Use use;
  const char* purpose;  ///< goes on from "it is needed to"
};

/// All that the agent needs; docs/security.md has the same list. CAP_BPF and CAP_PERFMON are not in it: setns() and the
/// look-up of programs by their id take CAP_SYS_ADMIN, which the kernel accepts wherever it asks for those two.
[[nodiscard]] std::span<const Capability> capabilities();

/// Whether every capability of the list is among those that `has` tells. Errors: kDenied, naming each that is missing
/// and what it is for.
Result<void> check_capabilities(const std::function<bool(unsigned)>& has, bool memlock_counts);

/// The same of this process, on this machine.
Result<void> check_capabilities();

/// Gives up all but the capabilities of kRun: effective and permitted become those, inheritable and ambient empty. The
/// bounding set too becomes those where the process has CAP_SETPCAP; without it stays what the container was given,
/// which counts for nothing in a process that cannot run another program. For the calling thread, so before there is
/// another. Errors: errno, kInternal where the kernel did not do it.
Result<void> drop_capabilities();

/// Raises RLIMIT_MEMLOCK for BPF maps where they count as locked memory. Before drop_capabilities(). Errors: errno.
Result<void> raise_memlock_for_maps();

}  // namespace weft::agent::hardening
