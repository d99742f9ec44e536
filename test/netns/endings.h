// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>

#include "test/netns/raw_tcp.h"

namespace weft::test {

/// What client and server saw, as one line.
using Script = std::function<std::string(Fd& client, Fd& server)>;

/// One way in which a connection ends.
struct Ending {
  const char* name;
  Script play;
  const char* expected;  ///< without anything between the two
};

/// The ways in which connections end, by FIN, RST and half by half.
std::span<const Ending> endings();

/// Plays it over a connection from one namespace to `to`, which is of the other; both are of the test's own thread.
std::string play_ending(const Ending& ending, const Netns& client, const Netns& server, const Endpoint& to);

}  // namespace weft::test
