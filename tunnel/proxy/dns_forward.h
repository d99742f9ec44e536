// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tunnel/dns/server_message.h"
#include "tunnel/proxy/context.h"

namespace weft::proxy {

/// A question by UDP that is passed on to the server that the pod asked: the same bytes, under a number of our own and
/// from a port of its own in the pod's netns, so that nobody can answer who does not see it. One thread.
class DnsForward final : public loop::Deferred {
 public:
  enum class Outcome : std::uint8_t {
    kAnswered,
    kRefused,  ///< nobody listens there, or it cannot be reached
    kSilent,   ///< no answer in time
  };
  /// `answer` has the number of the question. What destroys this is the loop's defer_delete.
  using Done = std::function<void(DnsForward& self, Outcome outcome, std::span<const std::byte> answer)>;

  DnsForward(WorkerContext& worker, dns::Inquiry inquiry, Charge charge, Done done);
  /// Sends it; `done` is called once, later. Errors: it cannot be sent, and `done` will not be called.
  Result<void> start(const PodContext& pod, const IpAddress& source, const Endpoint& server,
                     std::span<const std::byte> message);
  [[nodiscard]] const dns::Inquiry& inquiry() const { return inquiry_; }
  [[nodiscard]] SteadyTime started() const { return started_; }

 private:
  void on_readable();
  void finish(Outcome outcome, std::span<const std::byte> answer);

  WorkerContext& worker_;
  dns::Inquiry inquiry_;
  Charge charge_;
  Done done_;
  SteadyTime started_;
  std::uint16_t id_ = 0;  ///< towards the server
  int garbage_ = 0;       ///< datagrams that were no answer
  Fd fd_;
  loop::Watcher watcher_;
  loop::Timer timer_;
};

}  // namespace weft::proxy
