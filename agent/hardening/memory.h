// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tunnel/base/error.h"

namespace weft::agent::hardening {

/// Keeps keys where only this process can read them: OpenSSL puts private keys, long-lived and of handshakes, in memory
/// that is locked, in no dump, and between guard pages; there are no core dumps, and only root with CAP_SYS_PTRACE
/// looks into the process (in builds with a sanitizer its runtime must, and keys are in ordinary memory). Once, before
/// the first key. Errors: kDenied where the memory cannot be locked.
Result<void> protect_keys();

}  // namespace weft::agent::hardening
