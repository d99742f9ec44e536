// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/query.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "tunnel/base/sys.h"

namespace weft::dns {
namespace {

constexpr std::size_t kDatagramMax = 4096;
constexpr std::size_t kLengthBytes = 2;  ///< in front of each message on TCP
/// Datagrams that are no answer, which one try puts up with.
constexpr int kGarbageMax = 64;

}  // namespace

Query::Query(loop::EventLoop& loop, const QuerySettings& settings, std::vector<Endpoint> servers, std::string name,
             RecordType type, Done done)
    : loop_(loop),
      settings_(settings),
      servers_(std::move(servers)),
      question_{std::move(name), type, 0},
      done_(std::move(done)),
      why_(servers_.size()),
      timer_(loop) {}

void Query::start() {
  timer_.arm(milliseconds(0), [this] { ask(); });
}

const Endpoint& Query::server() const { return servers_[static_cast<std::size_t>(tries_ - 1) % servers_.size()]; }

/// The next try.
void Query::ask() {
  close();
  if (tries_ >= settings_.tries * static_cast<int>(servers_.size())) return finish({{}, {}, false, failures()});
  ++tries_;
  garbage_ = false;
  question_.id = random_id();
  timer_.arm(settings_.try_timeout, [this] {
    try_failed("no answer in " + std::to_string(settings_.try_timeout.count()) + " ms" +
               (garbage_ ? " but what is no DNS answer" : ""));
  });
  if (auto sent = send_datagram(); !sent) try_failed(sent.error().message());
}

Result<void> Query::send_datagram() {
  auto message = encode(question_);
  if (!message) return Failure(message.error());
  auto fd = sys::socket(server().address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM);
  if (!fd) return Failure(fd.error());
  // Connected: the kernel passes on what comes from this server alone, and tells when nobody listens there.
  if (auto connected = sys::connect(fd->get(), server().to_sockaddr()); !connected) return Failure(connected.error());
  auto watcher = loop_.watch(fd->get(), EPOLLIN, [this](std::uint32_t) { on_datagram(); });
  if (!watcher) return Failure(watcher.error());
  if (auto sent = sys::send(fd->get(), *message); !sent) return Failure(sent.error());
  fd_ = std::move(*fd);
  watcher_ = std::move(*watcher);
  return {};
}

void Query::on_datagram() {
  std::array<std::byte, kDatagramMax> buffer;
  for (int i = 0; i < kGarbageMax; ++i) {
    auto got = sys::recv(fd_.get(), buffer);
    if (!got) return try_failed(got.error().message());
    if (!got->has_value()) return;
    auto reply = decode(std::span(buffer).first(**got), question_);
    if (reply) return take(std::move(*reply));
    garbage_ = true;  // from whoever guesses, perhaps: the answer may still come
  }
  try_failed("too much that is no DNS answer");
}

/// The same question by TCP (RFC 7766); the try's time starts again.
void Query::start_stream() {
  close();
  timer_.arm(settings_.try_timeout,
             [this] { try_failed("no answer by TCP in " + std::to_string(settings_.try_timeout.count()) + " ms"); });
  if (auto opened = open_stream(); !opened) try_failed("by TCP: " + opened.error().message());
}

Result<void> Query::open_stream() {
  auto message = encode(question_);
  if (!message) return Failure(message.error());
  out_ = {static_cast<std::byte>(message->size() >> 8), static_cast<std::byte>(message->size() & 0xffU)};
  out_.insert(out_.end(), message->begin(), message->end());
  received_.clear();
  auto fd = sys::socket(server().address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM);
  if (!fd) return Failure(fd.error());
  if (auto connecting = sys::connect(fd->get(), server().to_sockaddr()); !connecting)
    return Failure(connecting.error());
  auto watcher = loop_.watch(fd->get(), EPOLLIN | EPOLLOUT, [this](std::uint32_t events) { on_stream(events); });
  if (!watcher) return Failure(watcher.error());
  fd_ = std::move(*fd);
  watcher_ = std::move(*watcher);
  return {};
}

void Query::on_stream(std::uint32_t events) {
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) {
    if (const int error = sys::take_error(fd_.get()); error != 0) {
      return try_failed("by TCP: " + fail_errno(error, "connect").value().message());
    }
  }
  if ((events & EPOLLOUT) != 0 && !out_.empty()) {
    auto sent = sys::send(fd_.get(), out_);
    if (!sent) return try_failed("by TCP: " + sent.error().message());
    if (sent->has_value()) out_.erase(out_.begin(), out_.begin() + static_cast<std::ptrdiff_t>(**sent));
  }
  auto complete = read_stream();
  if (!complete) return try_failed("by TCP: " + complete.error().message());
  if (!*complete) return;
  auto reply = decode(std::span(received_).subspan(kLengthBytes), question_);
  if (!reply) return try_failed("by TCP: " + reply.error().message());
  if (reply->kind == Reply::Kind::kTruncated) return try_failed("truncated by TCP, too");
  take(std::move(*reply));
}

/// True when the whole message is there.
Result<bool> Query::read_stream() {
  std::array<std::byte, kDatagramMax> buffer;
  for (;;) {
    std::size_t wanted = kLengthBytes;
    if (received_.size() >= kLengthBytes) {
      wanted += (std::to_integer<std::size_t>(received_[0]) << 8) | std::to_integer<std::size_t>(received_[1]);
      if (received_.size() == wanted) return true;
    }
    auto got = sys::recv(fd_.get(), std::span(buffer).first(std::min(buffer.size(), wanted - received_.size())));
    if (!got) return Failure(got.error());
    if (!got->has_value()) return false;
    if (**got == 0) return fail(ErrorCode::kUnavailable, "the server closed before its answer was complete");
    received_.insert(received_.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(**got));
  }
}

void Query::close() {
  watcher_.reset();
  fd_.reset();
}

void Query::take(Reply reply) {
  const std::string who = server().address.to_string();
  switch (reply.kind) {
    case Reply::Kind::kAddresses:
      return finish({std::move(reply.addresses), std::min(ttl_, reply.ttl), true, {}});
    case Reply::Kind::kAlias:
      return follow(reply);
    case Reply::Kind::kNoName:
      return finish({{}, {}, true, who + " says that there is no such name (NXDOMAIN)"});
    case Reply::Kind::kNoAddress:
      return finish({{}, {}, true, who + " says that it has no address"});
    case Reply::Kind::kTruncated:
      return start_stream();
    case Reply::Kind::kFailure:
      return try_failed("answered " + reply.rcode);
  }
}

/// The server left the rest to us: the alias is a question of its own, with tries of its own.
void Query::follow(const Reply& reply) {
  aliases_ += reply.aliases;
  if (aliases_ > kAliasesMax) {
    return finish({{}, {}, true, "more than " + std::to_string(kAliasesMax) + " aliases in a row (do they go round?)"});
  }
  ttl_ = std::min(ttl_, reply.ttl);
  question_.name = reply.alias;
  tries_ = (tries_ - 1) % static_cast<int>(servers_.size());  // this server again: it has just answered
  close();
  start();
}

void Query::try_failed(const std::string& why) {
  why_[static_cast<std::size_t>(tries_ - 1) % servers_.size()] = why;
  close();
  start();
}

std::string Query::failures() const {
  std::string text;
  for (std::size_t i = 0; i < servers_.size(); ++i) {
    text += (text.empty() ? "" : "; ") + servers_[i].to_string() + ": " + why_[i];
  }
  return text;
}

void Query::finish(Outcome outcome) {
  close();
  timer_.cancel();
  done_(std::move(outcome));
}

}  // namespace weft::dns
