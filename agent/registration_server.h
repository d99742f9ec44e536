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

  /// Makes the socket's directory and the socket, and starts. A socket that nobody answers on is replaced. Errors:
  /// kUnavailable where another agent answers on the path, kInvalid where the path is too long or is no socket, errno.
  static Result<std::unique_ptr<RegistrationServer>> start(RegistrationServerConfig config, Handler handler);
  ~RegistrationServer();
  RegistrationServer(const RegistrationServer&) = delete;
  RegistrationServer& operator=(const RegistrationServer&) = delete;

  /// Closes and unlinks the socket, lets requests under way end, and joins the threads.
  void stop();

  /// Requests refused or failed since the start: packets that could not be read or understood, peers that may not ask,
  /// clients turned away, and error replies.
  [[nodiscard]] std::uint64_t errors() const { return errors_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }

 private:
  RegistrationServer(RegistrationServerConfig config, Handler handler)
      : config_(std::move(config)), handler_(std::move(handler)) {}
  Result<void> open();
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
  bool stopping_ = false;
  std::atomic<std::uint64_t> errors_{0}, requests_{0};
  std::vector<std::thread> threads_;
};

}  // namespace weft::agent
