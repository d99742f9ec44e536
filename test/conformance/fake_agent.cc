// SPDX-License-Identifier: Apache-2.0
#include "test/conformance/fake_agent.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace weft::test {
namespace {

constexpr int kBacklog = 64;

cni::Reply refusal(ErrorCode code, const std::string& message) {
  cni::Reply reply;
  reply.error = Error{code, 0, message};
  return reply;
}

std::uint64_t inode_of(const Fd& fd) {
  struct stat info {};
  return fd && ::fstat(fd.get(), &info) == 0 ? info.st_ino : 0;
}

}  // namespace

FakeAgent::FakeAgent(std::string path) : path_(std::move(path)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) throw std::runtime_error(path_ + ": too long for a socket");
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  listener_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  stop_.reset(::eventfd(0, EFD_CLOEXEC));
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      ::listen(listener_.get(), kBacklog) < 0) {
    throw std::runtime_error("listen at " + path_ + ": " + std::strerror(errno));
  }
  thread_ = std::thread([this] { serve(); });
}

FakeAgent::~FakeAgent() {
  (void)::eventfd_write(stop_.get(), 1);
  thread_.join();
  ::unlink(path_.c_str());
}

void FakeAgent::set_handler(Handler handler) {
  const std::lock_guard lock(mutex_);
  handler_ = std::move(handler);
}

void FakeAgent::answer_all(Answer answer) {
  set_handler([answer = std::move(answer)](const std::string&, const Fd&) { return answer; });
}

void FakeAgent::refuse_all(ErrorCode code, const std::string& message) {
  answer_all({Answer::Kind::kReply, encode(refusal(code, message))});
}

std::vector<std::string> FakeAgent::requests() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

std::map<cni::AttachmentKey, std::uint64_t> FakeAgent::registrations() const {
  const std::lock_guard lock(mutex_);
  return registrations_;
}

void FakeAgent::forget(const cni::AttachmentKey& key) {
  const std::lock_guard lock(mutex_);
  registrations_.erase(key);
}

void FakeAgent::serve() {
  while (true) {
    std::array<pollfd, 2> fds{pollfd{listener_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0 && errno != EINTR) return;
    if (fds[1].revents != 0) return;
    if (fds[0].revents == 0) continue;
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) continue;
    // A peer that says nothing must not hold the test.
    const timeval patience{5, 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    serve_one(socket.release());
  }
}

void FakeAgent::serve_one(int raw_socket) {
  Fd socket(raw_socket);
  auto packet = cni::receive_packet(socket.get());
  if (!packet) return;
  const Answer answer = this->answer(packet->text, packet->fd);
  if (answer.kind == Answer::Kind::kSilence) silent_.push_back(std::move(socket));
  if (answer.kind != Answer::Kind::kReply) return;
  // By hand: tests answer with packets that send_packet would refuse.
  (void)::send(socket.get(), answer.text.data(), answer.text.size(), MSG_NOSIGNAL);
}

FakeAgent::Answer FakeAgent::answer(const std::string& text, const Fd& fd) {
  const std::lock_guard lock(mutex_);
  requests_.push_back(text);
  if (handler_) return handler_(text, fd);
  auto request = cni::parse_request(text);
  cni::Reply reply = request ? carry_out(*request, fd) : refusal(request.error().code, request.error().message());
  return {Answer::Kind::kReply, encode(reply)};
}

cni::Reply FakeAgent::carry_out(const cni::Request& request, const Fd& fd) {
  cni::Reply reply;
  switch (request.verb) {
    case cni::Verb::kRegister:
      if (!fd) return refusal(ErrorCode::kInvalid, "no descriptor of a netns came along");
      registrations_[request.key] = inode_of(fd);
      reply.enrolled = true;
      return reply;
    case cni::Verb::kUnregister:
      registrations_.erase(request.key);
      return reply;
    case cni::Verb::kCheck: {
      const auto found = registrations_.find(request.key);
      if (found == registrations_.end()) return refusal(ErrorCode::kNotFound, "not registered");
      if (found->second != request.netns_inode) return refusal(ErrorCode::kInvalid, "registered with another netns");
      return reply;
    }
    case cni::Verb::kGc:
      std::erase_if(registrations_, [&](const auto& entry) {
        return std::ranges::find(request.valid, entry.first) == request.valid.end();
      });
      return reply;
    default:
      return reply;
  }
}

}  // namespace weft::test
