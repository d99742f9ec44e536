// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cni-plugin/registration.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::agent {

struct RegistrationServerConfig {
  std::string socket_path = "/run/weft/agent.sock";
  std::uint32_t threads = 4;           ///< requests served at the same time
  std::size_t max_waiting = 256;       ///< connections that wait for a thread; more are closed
  milliseconds io_timeout{2'000};      ///< for a client to send its request, and to take the reply
  std::vector<uid_t> allowed_uids{0};  ///< whose processes may ask
};

/// Serves cni-plugin/registration.h on a Unix SOCK_SEQPACKET socket of mode 0600. Requests of a process whose uid
/// (SO_PEERCRED) is not allowed are refused. Owner: the agent; threads of its own.
class RegistrationServer {
 public:
  /// Called from the server's threads, several at the same time.
  using Handler = std::function<cni::Reply(cni::Request)>;

  /// Makes the socket's directory and the socket, or goes on with the listener of another agent, and starts. A socket
  /// that nobody answers on is replaced. Errors: kUnavailable where another agent answers on the path, kInvalid where
  /// the path is too long or is no socket, errno.
  static Result<std::unique_ptr<RegistrationServer>> start(RegistrationServerConfig config, Handler handler,
                                                           Fd listener = {});
  ~RegistrationServer();
  RegistrationServer(const RegistrationServer&) = delete;
  RegistrationServer& operator=(const RegistrationServer&) = delete;

  /// Closes and unlinks the socket, lets requests under way end, and joins the threads.
  void stop();

  /// Lets requests under way end and takes no more until go_on(): they wait in the socket's queue.
  void hold();
  void go_on();
  /// A duplicate of the listener, for the agent that takes over; -1 where there is no descriptor left.
  [[nodiscard]] Fd listener() const;
  /// After hold(): leaves the socket to the other agent. stop() then only joins the threads.
  void abandon();

  /// Requests refused or failed since the start: packets that could not be read or understood, peers that may not ask,
  /// clients turned away, and error replies.
  [[nodiscard]] std::uint64_t errors() const { return errors_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }

 private:
  RegistrationServer(RegistrationServerConfig config, Handler handler)
      : config_(std::move(config)), handler_(std::move(handler)) {}
  Result<void> open();
  Result<void> use(Fd listener);
  void accept_loop();
  void serve_loop();
  void enqueue(Fd client);
  void serve(const Fd& client);
  /// `registered`: what a request put in, to be taken back if its reply cannot be delivered.
  cni::Reply answer(const Fd& client, std::optional<cni::AttachmentKey>& registered);
  void take_back(const cni::AttachmentKey& key);
  Result<void> check_peer(int client) const;

  const RegistrationServerConfig config_;
  const Handler handler_;
  Fd listener_;
  Fd wake_;  ///< readable when stop() was called
  ino_t socket_inode_ = 0;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<Fd> waiting_;
  bool stopping_ = false, held_ = false;
  std::size_t serving_ = 0;  ///< requests under way
  std::condition_variable idle_;
  std::atomic<std::uint64_t> errors_{0}, requests_{0};
  std::vector<std::thread> threads_;
};

}  // namespace weft::agent
