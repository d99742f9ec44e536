// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/un.h>

#include <string>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::agent {

/// The address of a socket's path. `what` names the socket in errors, "registration socket". Errors: kInvalid where the
/// path is empty or too long.
Result<sockaddr_un> unix_address(const std::string& what, const std::string& path);

/// A non-blocking SOCK_SEQPACKET listener at the path, of mode 0600. What a dead agent left there is replaced. Errors:
/// kUnavailable where somebody answers on the path, kInvalid where it is too long or is no socket, errno.
Result<Fd> listen_unix(const std::string& what, const std::string& path, int backlog);

}  // namespace weft::agent
