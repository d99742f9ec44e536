// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "test/support/netns.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

/// Both ends of a connection in one thread, each in its own pod: for tests that need to know who did what when. Every
/// call ends after seconds.
namespace weft::test {

/// Listens on every address of the pod.
Fd listen_in(const Netns& netns, std::uint16_t port);
/// The next connection. Throws when none comes.
Fd accept_from(const Fd& listener);
/// What became of a connect: the socket, or why there is none.
struct Dialled {
  Fd fd;
  int error = 0;  ///< errno of connect()
};
Dialled dial_in(const Netns& netns, const Endpoint& to);
void send_all(const Fd& fd, const std::string& text);
/// Reads `bytes` bytes. Throws when they do not come.
std::string read_some(const Fd& fd, std::size_t bytes);
/// Reads to the end and says how that came: what was read, then "|end", "|reset", "|silence" (nothing for seconds) or
/// another error's text.
std::string read_to_end(const Fd& fd);
void shut_write(const Fd& fd);
/// Closes with RST.
void reset(Fd& fd);

}  // namespace weft::test
