// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Points at which a build for fault injection can be made to fail: `weft-cni-faults` reads WEFT_FAULT=POINT:ACTION,
/// where ACTION is kill (SIGKILL to itself), hang (sleeps until it is killed) or fail (the step that follows fails with
/// ENOSPC). In every other build a point is nothing.
namespace weft {

#ifdef WEFT_FAULT_INJECTION
/// True when the step that follows must fail. Does not return for kill and hang.
[[nodiscard]] bool fault_at(const char* point);
#else
[[nodiscard]] constexpr bool fault_at(const char* /*point*/) { return false; }
#endif

}  // namespace weft
