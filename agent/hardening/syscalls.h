// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "tunnel/base/error.h"

namespace weft::agent::hardening {

enum class SeccompMode : std::uint8_t {
  kEnforce,
  kLog,  ///< what kEnforce would refuse happens, and stands in the kernel's audit log
  kOff,
};

/// "enforce", "log" or "off". Errors: kInvalid.
Result<SeccompMode> parse_seccomp_mode(const std::string& text);
[[nodiscard]] const char* to_text(SeccompMode mode);

/// System calls that nothing in the agent ever makes and that an intruder wants: they end the process. All else that is
/// not allowed fails with ENOSYS, for which libraries have another way. For tests.
[[nodiscard]] std::span<const char* const> fatal_syscalls();
/// Those that are allowed whatever their arguments. For tests.
[[nodiscard]] std::span<const char* const> allowed_syscalls();

/// Whether this is a build with a sanitizer, whose runtime looks at the process from outside and makes calls of its
/// own: it runs without the filter, and with keys in ordinary memory.
[[nodiscard]] bool is_instrumented();

/// Sets no_new_privs and puts all threads of the process under the filter, for good. kOff: no_new_privs alone.
/// Errors: errno (kUnsupported where the kernel has no filters), naming the call that the filter could not take.
Result<void> filter_syscalls(SeccompMode mode);

}  // namespace weft::agent::hardening
