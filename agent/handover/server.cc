// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

using nlohmann::json;

/// For a message of an agent that has nothing else to do at that point.
constexpr milliseconds kPrompt{5'000};
/// A successor gets its configuration and its certificates before it asks us to hold.
constexpr milliseconds kPreparation{120'000};
constexpr milliseconds kForever{-1};

}  // namespace

Result<std::unique_ptr<HandoverServer>> HandoverServer::start(std::string path, HandoverOwner& owner) {
  auto listener = HandoverChannel::listen(path);
  if (!listener) return Failure(listener.error());
  Fd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return fail_errno(errno, "make an eventfd");
  std::unique_ptr<HandoverServer> server(
      new HandoverServer(std::move(path), std::move(*listener), std::move(wake), owner));
  server->thread_ = std::thread([raw = server.get()] { raw->run(); });
  return server;
}

void HandoverServer::stop(json farewell) {
  if (!thread_.joinable()) return;
  farewell_ = std::move(farewell);
  stopping_ = true;
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
  // Of a retired agent the path is its successor's.
  if (!retired_) ::unlink(path_.c_str());
}

/// False when the server is to stop, or nothing came.
bool HandoverServer::wait_for(int fd, milliseconds timeout) const {
  pollfd watched[2] = {{fd, POLLIN, 0}, {wake_.get(), POLLIN, 0}};
  while (::poll(watched, 2, static_cast<int>(timeout.count())) < 0 && errno == EINTR) {
  }
  return watched[1].revents == 0 && watched[0].revents != 0;
}

Result<HandoverMessage> HandoverServer::expect(const HandoverChannel& from, const char* ask,
                                               milliseconds timeout) const {
  if (!wait_for(from.fd(), timeout)) return fail(ErrorCode::kTimeout, std::string("handover: nobody asked to ") + ask);
  auto message = from.receive(kPrompt);
  if (message && message->body.value("ask", "") != ask)
    return fail(ErrorCode::kInvalid, "handover: expected \"" + std::string(ask) + "\", got " + message->body.dump());
  return message;
}

void HandoverServer::run() {
  while (!retired_ && wait_for(listener_.get(), kForever)) {
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) continue;
    const HandoverChannel successor(std::move(client));
    if (auto peer = successor.check_peer(); !peer) {
      log::warn("handover refused error={}", log::quote(peer.error().message()));
      continue;
    }
    if (auto offered = offer(successor); !offered) {
      log::warn("handover did not come about, this agent goes on error={}", log::quote(offered.error().message()));
      continue;
    }
    accompany(successor);
  }
}

/// Until the successor says "retire" all can be taken back.
Result<void> HandoverServer::offer(const HandoverChannel& successor) {
  auto hello = expect(successor, "handover", kPrompt);
  if (!hello) return Failure(hello.error());
  const auto text = [&](const char* key) { return hello->body.value(key, json()).dump(); };
  if (hello->body.value("protocol", 0) != kHandoverProtocol) {
    const std::string why = "it speaks protocol " + std::to_string(kHandoverProtocol) + " of the handover, not " +
                            text("protocol") + "; stop it first (its connections end then)";
    if (auto sent = successor.send({{"refused", why}}, {}, kPrompt); !sent) return sent;
    return fail(ErrorCode::kUnsupported, "handover: the other agent speaks protocol " + text("protocol"));
  }
  log::info("another agent is about to take over version={} pid={}", text("version"), text("pid"));
  if (auto sent = successor.send(to_json(owner_.welcome()), {}, kPrompt); !sent) return sent;
  if (auto ready = expect(successor, "hold", kPreparation); !ready) return Failure(ready.error());

  auto estate = owner_.hold();
  if (!estate) {
    if (auto told = successor.send({{"refused", estate.error().message()}}, {}, kPrompt); !told) return told;
    return Failure(estate.error());
  }
  auto sent = send_estate(successor, *estate, kPrompt);
  auto taken = sent ? expect(successor, "retire", kPrompt) : Result<HandoverMessage>(Failure(sent.error()));
  if (!taken) {
    owner_.go_on();
    return Failure(taken.error());
  }
  retired_ = true;
  listener_.reset();
  *estate = {};
  owner_.retire();
  log::info("another agent has taken over version={} pid={}", text("version"), text("pid"));
  // Whoever took over goes on whether it hears this or not: it has everything.
  if (auto told = successor.send({{"retired", true}}, {}, kPrompt); !told)
    log::warn("handover error={}", log::quote(told.error().message()));
  return {};
}

/// The rest of a retired agent's life, as long as anybody asks.
void HandoverServer::accompany(const HandoverChannel& successor) {
  while (wait_for(successor.fd(), kForever)) {
    auto message = successor.receive(kPrompt);
    if (!message) return;
    if (auto sent = successor.send(owner_.answer(message->body), {}, kPrompt); !sent) return;
  }
  if (!stopping_ || farewell_.is_null()) return;
  if (auto sent = successor.send({{"farewell", farewell_}}, {}, kPrompt); !sent)
    log::info("nobody is left to take what this agent has counted");
}

}  // namespace weft::agent
