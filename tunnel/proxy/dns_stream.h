// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "tunnel/dns/server_message.h"
#include "tunnel/proxy/app_socket.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/dns_question.h"

namespace weft::proxy {

/// A connection of a pod to a DNS server (RFC 7766), with as many questions as its client likes. Those that are the
/// server's go there by one connection, made when the first of them comes: it is an Outbound as any other connection of
/// the pod, which dials the server, or goes through a tunnel where that is in the mesh, and ends in a socket pair here.
/// Answers come in the order in which they are known. A question that nothing comes of is answered with SERVFAIL, since
/// nobody asks again by TCP. One thread.
class DnsStream final : public loop::Deferred {
 public:
  /// Questions that may be under way; who has more is not read from meanwhile.
  static constexpr std::size_t kPendingMax = 64;
  /// How long a client may be silent while nothing is under way.
  static constexpr milliseconds kIdle{30'000};

  using Ended = std::function<void(DnsStream& self)>;
  /// `ended` is called once; what destroys this then is the loop's defer_delete.
  DnsStream(WorkerContext& worker, std::shared_ptr<const PodContext> pod, std::shared_ptr<PodState> state,
            const Endpoint& client, const Endpoint& server, Charge charge, Ended ended);
  ~DnsStream() override;
  void start(Fd accepted);
  /// There is a snapshot: what waited for the first one goes on.
  void on_snapshot();

 private:
  /// One of the two sides, telling them apart.
  struct Side final : AppSocketEvents {
    using Handler = void (DnsStream::*)();
    Side(DnsStream& stream, Handler readable, Handler flushed, Handler broken)
        : stream_(stream), readable_(readable), flushed_(flushed), broken_(broken) {}
    void on_connected(const Error* /*error*/) override {}
    void on_readable() override { (stream_.*readable_)(); }
    void on_flushed(std::size_t /*bytes*/) override { (stream_.*flushed_)(); }
    void on_broken(const Error& /*error*/) override { (stream_.*broken_)(); }
    /// Puts the next whole message into `message`, without the two bytes that say how long it is. False where there is
    /// none.
    bool next(std::vector<std::byte>& message);
    std::unique_ptr<AppSocket> socket = std::make_unique<AppSocket>();
    std::vector<std::byte> received;
    std::size_t taken = 0;  ///< of received

   private:
    DnsStream& stream_;
    Handler readable_, flushed_, broken_;
  };
  struct Pending {
    dns::Inquiry inquiry;
    telemetry::DnsMetrics::Handle* metrics;
    SteadyTime started;
    bool transfer;  ///< of a zone: its answer is as many messages as it likes
    bool answered;
  };
  enum class Input : std::uint8_t { kNone, kSome, kEnd };

  static Input fill(Side& side, std::span<std::byte> scratch);
  void read_client();
  bool read_some();
  void read_server();
  void on_server_flushed();
  void on_server_lost();
  [[nodiscard]] bool may_take_more() const;
  void on_message(std::span<const std::byte> message);
  void forward(DnsVerdict verdict, std::span<const std::byte> message);
  Result<void> open_server();
  void on_answer(std::span<const std::byte> message);
  void fail_pending(const std::function<bool(const Pending&)>& which);
  void answer(std::span<const std::byte> message);
  void on_timer();
  void end_if_done();
  void end();

  WorkerContext& worker_;
  const std::shared_ptr<const PodContext> pod_;
  const std::shared_ptr<PodState> state_;
  const Endpoint client_end_, server_end_;
  Charge charge_;
  Ended ended_call_;
  telemetry::OpenSocket counted_;
  Side client_, server_;
  std::deque<Pending> pending_;
  SteadyTime last_;  ///< when something was said
  loop::Timer timer_;
  loop::BulkTask go_on_;
  bool client_ended_ = false;
  bool ended_ = false;
};

}  // namespace weft::proxy
