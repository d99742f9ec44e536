// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/registration.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tunnel/base/clock.h"
#include "tunnel/base/sys.h"

namespace weft::cni {
namespace {

constexpr const char* kAgentHint = " (is weft-agent running, and is agentSocket its socket?)";

/// The time that is left of a call.
class Deadline {
 public:
  explicit Deadline(int timeout_ms) : end_(std::chrono::steady_clock::now() + milliseconds(timeout_ms)) {}

  /// Lets the socket's next calls wait no longer than what is left. A timeval of zero would mean for ever: a call whose
  /// time is up gets a microsecond.
  Result<void> arm(int socket) const {
    const auto left = std::chrono::duration_cast<std::chrono::microseconds>(end_ - std::chrono::steady_clock::now());
    const auto us = std::max<std::int64_t>(left.count(), 1);
    timeval value{};
    value.tv_sec = static_cast<time_t>(us / 1'000'000);
    value.tv_usec = static_cast<suseconds_t>(us % 1'000'000);
    for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO}) {
      if (::setsockopt(socket, SOL_SOCKET, option, &value, sizeof value) < 0) {
        return fail_errno(errno, "set the timeout of the registration socket");
      }
    }
    return {};
  }

 private:
  SteadyTime end_;
};

/// What a failed send or receive means to the caller.
Failure socket_failure(int error, const std::string& what) {
  if (error == EAGAIN || error == EWOULDBLOCK) return fail(ErrorCode::kTimeout, what + ": timed out");
  if (error == EPIPE || error == ECONNRESET) {
    return fail(ErrorCode::kUnavailable, what + ": the other side closed the connection");
  }
  if (error == EMSGSIZE) return fail(ErrorCode::kInvalid, what + ": the packet is too large for the socket");
  return fail_errno(error, what);
}

Result<Fd> connect_to(const std::string& path, const Deadline& deadline) {
  const std::string what = "connect to the agent at " + path;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid,
                what + ": a socket's path has 1 to " + std::to_string(sizeof address.sun_path - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "open a socket for the agent");
  if (auto armed = deadline.arm(fd.get()); !armed) return Failure(std::move(armed.error()));
  int status = 0;
  do {
    status = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (status < 0 && errno == EINTR);
  if (status == 0) return fd;
  const int error = errno;
  if (error == EAGAIN) return fail(ErrorCode::kTimeout, what + ": timed out: its queue is full" + kAgentHint);
  if (error == EPROTOTYPE) return fail(ErrorCode::kInvalid, what + ": it is another kind of socket" + kAgentHint);
  if (error == EACCES || error == EPERM) return fail_errno(error, what);
  return fail(ErrorCode::kUnavailable, what + ": " + ::strerrordesc_np(error) + kAgentHint);
}

}  // namespace

Result<void> send_packet(int socket, std::string_view text, int fd_to_pass) {
  const std::string what = "send a registration message";
  if (text.size() > kMaxMessage) {
    return fail(ErrorCode::kInvalid, what + ": it has " + std::to_string(text.size()) + " bytes, at most " +
                                         std::to_string(kMaxMessage) + " are allowed");
  }
  iovec part{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (fd_to_pass >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd_to_pass, sizeof(int));
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return socket_failure(errno, what);
  return {};
}

Result<Packet> receive_packet(int socket) {
  const std::string what = "receive a registration message";
  Packet packet;
  packet.text.resize(kMaxMessage);
  iovec part{packet.text.data(), packet.text.size()};
  // Room for a few descriptors more than one, so that what should not be there can be closed.
  alignas(cmsghdr) std::array<char, CMSG_SPACE(8 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t received = 0;
  do {
    received = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) return socket_failure(errno, what);
  // The first is kept, the rest closed at once.
  if (auto came = sys::take_descriptors(message); !came.empty()) packet.fd = std::move(came.front());
  if ((message.msg_flags & MSG_TRUNC) != 0) {
    return fail(ErrorCode::kInvalid, what + ": it has more than " + std::to_string(kMaxMessage) + " bytes");
  }
  if (received == 0) return fail(ErrorCode::kUnavailable, what + ": the other side closed the connection without one");
  packet.text.resize(static_cast<std::size_t>(received));
  return packet;
}

Result<Reply> call(const std::string& socket_path, const Request& request, int timeout_ms) {
  const Deadline deadline(timeout_ms);
  const auto failed = [&](Error error) {
    error.context = "ask the agent at " + socket_path + ": " + error.context;
    if (error.code == ErrorCode::kTimeout) error.context += " after " + std::to_string(timeout_ms) + " ms";
    if (error.code == ErrorCode::kTimeout || error.code == ErrorCode::kUnavailable) error.context += kAgentHint;
    return Failure(std::move(error));
  };
  auto socket = connect_to(socket_path, deadline);
  if (!socket) return Failure(std::move(socket.error()));
  if (auto sent = send_packet(socket->get(), encode(request), request.netns_fd.get()); !sent) {
    return failed(std::move(sent.error()));
  }
  if (auto armed = deadline.arm(socket->get()); !armed) return Failure(std::move(armed.error()));
  auto packet = receive_packet(socket->get());
  if (!packet) return failed(std::move(packet.error()));
  auto reply = parse_reply(packet->text);
  if (!reply) return failed(std::move(reply.error()));
  if (reply->error && reply->error->code == ErrorCode::kUnsupported && reply->version < request.version) {
    return fail(ErrorCode::kUnsupported,
                "ask the agent at " + socket_path + ": it speaks version " + std::to_string(reply->version) +
                    " of the registration protocol, this plugin version " + std::to_string(request.version) +
                    " (upgrade weft-agent first): " + reply->error->message());
  }
  return reply;
}

}  // namespace weft::cni
