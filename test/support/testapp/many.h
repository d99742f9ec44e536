// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "test/support/testapp/net.h"

/// What the modes with thousands of connections in one thread have in common.
namespace weft::testapp {

inline constexpr int kEventsAtOnce = 256;

/// As many descriptors as this process may have.
void raise_fd_limit();

/// Adds the descriptor to an epoll instance; its number is the event's data.
void watch(int epoll, int fd, std::uint32_t events);

/// Serves any number of connections until it is killed, after a line `serving NAME port=…`. `on_readable` gets the
/// descriptor of one that has something to read, and says false where it is to be closed. kError where the port cannot
/// be listened on.
Exit serve_many(const std::string& name, std::uint16_t port, int backlog, const std::function<bool(int)>& on_readable);

}  // namespace weft::testapp
