// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "agent/handover/messages.h"

namespace weft::agent {

/// What an agent does when another one takes over. Called from the server's thread.
class HandoverOwner {
 public:
  virtual ~HandoverOwner() = default;
  [[nodiscard]] virtual Welcome welcome() = 0;
  /// Stops accepting and changing anything. Errors: it could not, and goes on as before.
  virtual Result<Estate> hold() = 0;
  /// After hold(): the other agent did not take over after all.
  virtual void go_on() = 0;
  /// After hold(): the other agent has everything; from now on this one has its connections only.
  virtual void retire() = 0;
  /// Of a retired agent: the answer to status, connections, metrics or forget.
  [[nodiscard]] virtual nlohmann::json answer(const nlohmann::json& ask) = 0;
};

/// Waits on RUN/handover.sock for the agent that takes over. Owner: the agent; one thread of its own.
class HandoverServer {
 public:
  /// `owner` outlives it. Errors: those of HandoverChannel::listen.
  static Result<std::unique_ptr<HandoverServer>> start(std::string path, HandoverOwner& owner);
  ~HandoverServer() { stop(); }
  HandoverServer(const HandoverServer&) = delete;
  HandoverServer& operator=(const HandoverServer&) = delete;
  /// Ends the thread; a takeover that is under way fails. `farewell`, unless it is null, is what a retired agent has
  /// counted in its life, for its successor.
  void stop(nlohmann::json farewell = nullptr);

 private:
  HandoverServer(std::string path, Fd listener, Fd wake, HandoverOwner& owner)
      : path_(std::move(path)), listener_(std::move(listener)), wake_(std::move(wake)), owner_(owner) {}
  void run();
  void serve(const HandoverChannel& successor);
  Result<void> offer(const HandoverChannel& successor);
  void accompany(const HandoverChannel& successor);
  [[nodiscard]] bool wait_for(int fd, milliseconds timeout) const;
  Result<HandoverMessage> expect(const HandoverChannel& from, const char* ask, milliseconds timeout) const;

  const std::string path_;
  Fd listener_;
  const Fd wake_;
  HandoverOwner& owner_;
  bool retired_ = false;
  nlohmann::json farewell_;            ///< set before `stopping_`
  std::atomic<bool> stopping_{false};  ///< set before wake_ is readable
  std::thread thread_;
};

}  // namespace weft::agent
