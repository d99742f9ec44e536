// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::agent {

/// One message between two agents of a node.
struct HandoverMessage {
  nlohmann::json body;
  std::vector<Fd> fds;
};

/// A SOCK_SEQPACKET connection between two agents. Owner: one thread at a time. Every call is bounded by the timeout
/// that it is given; a body that is too long for a packet travels in a memory file.
class HandoverChannel {
 public:
  /// Descriptors that fit into one message.
  static constexpr std::size_t kMaxFds = 64;

  explicit HandoverChannel(Fd socket) : socket_(std::move(socket)) {}

  /// Connects to the agent at `path`. Errors: kNotFound where nobody answers there, errno.
  static Result<HandoverChannel> connect(const std::string& path, milliseconds timeout);
  /// Listens at `path` with mode 0600; what a dead agent left there is replaced. Errors: kUnavailable where somebody
  /// answers on it, errno.
  static Result<Fd> listen(const std::string& path);
  /// The process at the other end is root's, or of this process's user. Errors: kDenied.
  Result<void> check_peer() const;

  /// Descriptors are borrowed. Errors: kUnavailable where the other side is gone, kTimeout.
  Result<void> send(const nlohmann::json& body, const std::vector<int>& fds, milliseconds timeout) const;
  Result<HandoverMessage> receive(milliseconds timeout) const;
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  Fd socket_;
};

}  // namespace weft::agent
