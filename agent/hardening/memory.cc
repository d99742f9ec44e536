// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/memory.h"

#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>

#include "agent/hardening/syscalls.h"

namespace weft::agent::hardening {
namespace {

/// A tunnel holds 32 bytes of it as long as it lives, and without a free piece there is no handshake: enough for half a
/// million tunnels. Pages are taken when they are first used.
constexpr std::size_t kKeyBytes = 16U << 20;
constexpr std::size_t kSmallestPiece = 32;
/// What OpenSSL says where it has the memory, but could not lock it.
constexpr int kNotLocked = 2;

}  // namespace

Result<void> protect_keys() {
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) < 0) return fail_errno(errno, "forbid core dumps");
  // LeakSanitizer looks into the process from outside, and not into that memory, where OpenSSL keeps what alone knows
  // of its random generators.
  if (is_instrumented()) return {};
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
    return fail_errno(errno, "forbid others to look into the process");
  }
  const int made = CRYPTO_secure_malloc_init(kKeyBytes, kSmallestPiece);
  if (made == kNotLocked) {
    return fail(ErrorCode::kDenied, "lock memory for private keys: refused (is CAP_IPC_LOCK there?)");
  }
  if (made != 1) return fail(ErrorCode::kInternal, "make locked memory for private keys: out of memory");
  return {};
}

}  // namespace weft::agent::hardening
