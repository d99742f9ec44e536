// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/dns/message.h"
#include "tunnel/loop/event_loop.h"

namespace weft::dns {

/// What looking up a name, or one type of its records, came to.
struct Outcome {
  std::vector<IpAddress> addresses;
  std::chrono::seconds ttl{0};  ///< with addresses
  /// Without addresses: a server has said that there are none, as opposed to nobody having given an answer.
  bool definite = false;
  std::string reason;  ///< without addresses
  /// With addresses: of one family alone, because nobody has given an answer for the other one.
  bool partial = false;
};

struct QuerySettings {
  milliseconds try_timeout{2'000};
  int tries = 2;  ///< of each server
};

/// One question, put to the servers in turn until one gives a definite answer: by UDP, and by TCP where that answer is
/// too long. Aliases that the server left open are followed. A silent server costs one try_timeout before the next is
/// asked; after the last one the first is asked again, `tries` times in all. Each question has a socket and a number of
/// its own, so that nobody can answer who has not seen it. One thread.
class Query {
 public:
  using Done = std::function<void(Outcome)>;

  /// `done` is called once, never from within start(); it must not destroy this.
  Query(loop::EventLoop& loop, const QuerySettings& settings, std::vector<Endpoint> servers, std::string name,
        RecordType type, Done done);
  void start();

 private:
  void ask();
  Result<void> send_datagram();
  void on_datagram();
  void start_stream();
  Result<void> open_stream();
  void on_stream(std::uint32_t events);
  Result<bool> read_stream();
  void close();
  void take(Reply reply);
  void follow(const Reply& reply);
  void try_failed(const std::string& why);
  void finish(Outcome outcome);
  [[nodiscard]] const Endpoint& server() const;
  [[nodiscard]] std::string failures() const;

  loop::EventLoop& loop_;
  QuerySettings settings_;
  std::vector<Endpoint> servers_;
  Question question_;
  Done done_;
  int tries_ = 0;    ///< made until now
  int aliases_ = 0;  ///< followed until now
  std::chrono::seconds ttl_ = std::chrono::seconds::max();
  std::vector<std::string> why_;  ///< what came of each server's last try
  bool garbage_ = false;          ///< this try got something that is no answer
  Fd fd_;
  loop::Watcher watcher_;
  loop::Timer timer_;
  std::vector<std::byte> out_;       ///< TCP: what is still to be sent
  std::vector<std::byte> received_;  ///< TCP
};

}  // namespace weft::dns
