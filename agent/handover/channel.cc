// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/channel.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/unix_listener.h"
#include "tunnel/base/sys.h"

namespace weft::agent {
namespace {

using nlohmann::json;

/// Longer bodies go into a memory file. Far below any socket's buffer.
constexpr std::size_t kMaxPacket = 16 * 1024;
/// What a body may have at all: a hundred thousand connections.
constexpr off_t kMaxBody = 64 << 20;
/// In place of a body: it is in the last descriptor.
constexpr char kInFile = '@';
constexpr const char* kWhat = "handover socket";
/// Of agents that want to take over.
constexpr int kBacklog = 4;

Failure gone(const char* what) {
  return fail(ErrorCode::kUnavailable, std::string("handover: ") + what + ": the other agent is gone");
}

Result<void> wait_for(int fd, short events, SteadyTime until, const char* what) {
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(until - Clock::real().now());
    pollfd watched{fd, events, 0};
    const int n = ::poll(&watched, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
    if (n > 0) return {};
    if (n == 0) return fail(ErrorCode::kTimeout, std::string("handover: ") + what + ": the other agent is silent");
    if (errno != EINTR) return fail_errno(errno, std::string("handover: ") + what);
  }
}

Result<Fd> file_of(const std::string& text) {
  Fd file(::memfd_create("weft-handover", MFD_CLOEXEC));
  if (!file) return fail_errno(errno, "handover: make a memory file");
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t n = ::write(file.get(), rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(errno, "handover: write a memory file");
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  return file;
}

Result<std::string> text_of(const Fd& file) {
  struct stat st {};
  if (::fstat(file.get(), &st) < 0) return fail_errno(errno, "handover: look at a memory file");
  if (st.st_size > kMaxBody) return fail(ErrorCode::kInvalid, "handover: a message is too long");
  std::string text(static_cast<std::size_t>(st.st_size), '\0');
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t n = ::pread(file.get(), text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : EIO, "handover: read a memory file");
    done += static_cast<std::size_t>(n);
  }
  return text;
}

using Control = std::array<char, CMSG_SPACE((HandoverChannel::kMaxFds + 1) * sizeof(int))>;

}  // namespace

Result<HandoverChannel> HandoverChannel::connect(const std::string& path, milliseconds timeout) {
  auto address = unix_address(kWhat, path);
  if (!address) return Failure(address.error());
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "make a socket for the agent at " + path);
  const SteadyTime until = Clock::real().now() + timeout;
  // A Unix socket does not connect in the background: a full queue is EAGAIN.
  while (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) < 0) {
    const int error = errno;
    if (error == ENOENT || error == ECONNREFUSED)
      return fail(ErrorCode::kNotFound, "handover: no agent answers on " + path);
    if (error != EAGAIN && error != EINTR) return fail_errno(error, "connect to the agent at " + path);
    if (Clock::real().now() >= until)
      return fail(ErrorCode::kTimeout, "connect to the agent at " + path + ": its queue is full");
    ::poll(nullptr, 0, 10);
  }
  return HandoverChannel(std::move(fd));
}

Result<Fd> HandoverChannel::listen(const std::string& path) { return listen_unix(kWhat, path, kBacklog); }

Result<void> HandoverChannel::check_peer() const {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
    return fail_errno(errno, "handover: ask who is at the other end");
  if (peer.uid == 0 || peer.uid == ::geteuid()) return {};
  return fail(ErrorCode::kDenied, "handover: the other end is process " + std::to_string(peer.pid) + " of uid " +
                                      std::to_string(peer.uid) + ", expected uid 0");
}

Result<void> HandoverChannel::send(const json& body, const std::vector<int>& fds, milliseconds timeout) const {
  const char* what = "send a message";
  if (fds.size() > kMaxFds) return fail(ErrorCode::kInvalid, "handover: too many descriptors for one message");
  std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  std::vector<int> passed = fds;
  Fd file;
  if (text.size() > kMaxPacket) {
    auto made = file_of(text);
    if (!made) return Failure(made.error());
    file = std::move(*made);
    passed.push_back(file.get());
    text = kInFile;
  }
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!passed.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(passed.size() * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(passed.size() * sizeof(int));
    std::memcpy(CMSG_DATA(header), passed.data(), passed.size() * sizeof(int));
  }
  const SteadyTime until = Clock::real().now() + timeout;
  for (;;) {
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) >= 0) return {};
    if (errno == EPIPE || errno == ECONNRESET) return gone(what);
    if (errno != EAGAIN && errno != EINTR && errno != ETOOMANYREFS)
      return fail_errno(errno, std::string("handover: ") + what);
    // Too many descriptors are on their way; they arrive.
    if (errno == ETOOMANYREFS && Clock::real().now() < until) ::poll(nullptr, 0, 1);
    if (auto writable = wait_for(socket_.get(), POLLOUT, until, what); !writable) return writable;
  }
}

Result<HandoverMessage> HandoverChannel::receive(milliseconds timeout) const {
  const char* what = "receive a message";
  std::string text(kMaxPacket, '\0');
  iovec part{text.data(), text.size()};
  alignas(cmsghdr) Control control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const SteadyTime until = Clock::real().now() + timeout;
  ssize_t n = -1;
  while ((n = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno == ECONNRESET) return gone(what);
    if (errno != EAGAIN && errno != EINTR) return fail_errno(errno, std::string("handover: ") + what);
    if (auto readable = wait_for(socket_.get(), POLLIN, until, what); !readable) return Failure(readable.error());
  }
  HandoverMessage received{.body = {}, .fds = sys::take_descriptors(message)};
  if (n == 0) return gone(what);
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail(ErrorCode::kInvalid, "handover: a message did not arrive whole (out of file descriptors?)");
  text.resize(static_cast<std::size_t>(n));
  if (text.size() == 1 && text[0] == kInFile && !received.fds.empty()) {
    auto body = text_of(received.fds.back());
    if (!body) return Failure(body.error());
    received.fds.pop_back();
    text = std::move(*body);
  }
  received.body = json::parse(text, nullptr, false);
  if (!received.body.is_object()) return fail(ErrorCode::kInvalid, "handover: a message is no JSON object");
  return received;
}

}  // namespace weft::agent
