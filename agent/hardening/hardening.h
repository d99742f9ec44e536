// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "agent/hardening/syscalls.h"
#include "tunnel/base/error.h"

/// What the agent takes from itself before it does anything: rights that it does not need, system calls that it never
/// makes, and every way to its keys. docs/security.md says what each is good for.
namespace weft::agent::hardening {

struct Settings {
  SeccompMode seccomp = SeccompMode::kEnforce;
  std::string run_dir, bpf_root, socket, local_config;
};

/// Checks that the agent may do what it has to, gives up everything else for good (memory for keys, capabilities,
/// system calls, in this order), and looks at the files that others must not write. On the main thread, before there is
/// another, before the first key. Errors: kDenied, naming the capability that is missing and its purpose, or what is
/// too open; errno otherwise.
Result<void> harden(const Settings& settings);

}  // namespace weft::agent::hardening
