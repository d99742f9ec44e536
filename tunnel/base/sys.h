// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

/// Every socket system call of the data path, in one place. Tests put failures beneath it (test/faults). All functions
/// are thread-safe, retry EINTR, and make sockets non-blocking and close-on-exec.
namespace weft::sys {

Result<Fd> socket(int family, int type, int protocol = 0);
Result<void> bind(int fd, const Endpoint::Sockaddr& address);
/// True when connected at once, false when under way (EINPROGRESS).
Result<bool> connect(int fd, const Endpoint::Sockaddr& address);
Result<void> listen(int fd, int backlog);
struct Accepted {
  Fd fd;
  Endpoint peer;
};
/// Empty when nothing is waiting.
Result<std::optional<Accepted>> accept(int fd);
/// Bytes read; 0 is the end of the stream; empty when nothing is there yet.
Result<std::optional<std::size_t>> recv(int fd, std::span<std::byte> into);
/// Bytes taken by the kernel, maybe fewer than given; empty when none could be taken now.
Result<std::optional<std::size_t>> send(int fd, std::span<const std::byte> data);
Result<std::optional<std::size_t>> send_parts(int fd, std::span<const iovec> parts);
/// What one datagram was, besides its bytes.
struct Datagram {
  std::size_t bytes = 0;
  Endpoint source;
  Endpoint destination;  ///< as its sender wrote it; unset where the socket was not told to say (IP_RECVORIGDSTADDR)
};
/// Empty when nothing is there yet. What is longer than `into` is cut off.
Result<std::optional<Datagram>> recv_datagram(int fd, std::span<std::byte> into);
/// Sends a datagram that comes from `source`, which is foreign unless the socket is transparent; the port is the
/// socket's own. False where the kernel could not take it now.
Result<bool> send_datagram(int fd, std::span<const std::byte> data, const IpAddress& source, const Endpoint& to);
struct Pair {
  Fd a, b;
};
/// Two stream sockets of this process that are connected to each other.
Result<Pair> stream_pair();
Result<void> shutdown_write(int fd);
/// Closes, and the peer hears a reset, not an end. Nothing for one that is closed.
void close_with_reset(Fd& fd);
Result<Endpoint> local_endpoint(int fd);
Result<Endpoint> peer_endpoint(int fd);
/// The pending SO_ERROR, 0 for none.
int take_error(int fd);
Result<void> set_option(int fd, int level, int name, int value);
Result<int> get_option(int fd, int level, int name);
/// The descriptors that came with a message of a Unix socket (SCM_RIGHTS), whoever of them is wanted: each is closed
/// unless it is kept.
std::vector<Fd> take_descriptors(msghdr& message);
/// Puts the calling thread into a network namespace.
Result<void> enter_netns(int netns_fd);

}  // namespace weft::sys
