// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <unordered_map>
#include <vector>

#include "tunnel/proxy/context.h"
#include "tunnel/proxy/dns_forward.h"
#include "tunnel/proxy/dns_question.h"
#include "tunnel/proxy/dns_stream.h"
#include "tunnel/proxy/listener.h"

namespace weft::proxy {

/// The DNS of one pod at one worker, whatever server the pod asks: the mesh's names are answered here, the rest is
/// forwarded to that server. Datagrams are taken in the pod's turn; while there is no snapshot they wait in their
/// sockets. A question that the server leaves open gets no answer by UDP, as without us: who asked asks again, or asks
/// another server. One that cannot be forwarded (nobody listens there, too many are under way) is told so at once. One
/// thread.
class DnsServer {
 public:
  DnsServer(WorkerContext& worker, std::shared_ptr<const PodContext> pod, std::shared_ptr<PodState> state);
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;
  ~DnsServer();

  /// The sockets of one set of listeners; one that is -1 is none.
  void listen(Fd v4, Fd v6);
  /// A connection to a DNS server.
  void take(Captured captured, Charge charge);
  /// There is a snapshot: what waited for the first one goes on.
  void on_snapshot();

  /// Takes no datagram until go_on().
  void hold();
  void go_on();
  /// Duplicates of the sockets into the sets that listen() had them from.
  void copy_sockets(std::vector<PodListeners>& sets) const;
  /// Takes nothing new for good; what is under way gets its answer.
  void drain();
  [[nodiscard]] bool drained() const { return drained_; }
  /// Questions and connections under way.
  [[nodiscard]] std::size_t load() const { return forwards_.size() + streams_.size(); }

 private:
  struct Socket {
    Fd fd;
    loop::Watcher watcher;
    loop::StartTask turn;
    std::unique_ptr<loop::Timer> again;  ///< after an error
  };
  struct SocketSet {
    Socket v4, v6;
  };
  /// Whom an answer goes to, and by which socket.
  struct Asker {
    const Socket* socket = nullptr;
    Endpoint client, server;
  };

  template <class Visit>
  void each_socket(const Visit& visit) {
    for (auto& set : sets_) {
      if (set->v4.fd) visit(set->v4);
      if (set->v6.fd) visit(set->v6);
    }
  }
  void arm(Socket& socket);
  void rest(Socket& socket);
  void queue_turn(Socket& socket);
  bool take_some(Socket& socket);
  [[nodiscard]] bool is_from_pod(const Asker& asker) const;
  void on_message(const Asker& asker, std::span<const std::byte> message);
  void forward(const Asker& asker, DnsVerdict verdict, std::span<const std::byte> message);
  void on_forwarded(DnsForward& forward, const Asker& asker, telemetry::DnsMetrics::Handle& metrics,
                    DnsForward::Outcome outcome, std::span<const std::byte> answer);
  void answer(const Asker& asker, std::span<const std::byte> message) const;
  void close_when_done();

  WorkerContext& worker_;
  const std::shared_ptr<const PodContext> pod_;
  const std::shared_ptr<PodState> state_;
  std::vector<std::unique_ptr<SocketSet>> sets_;
  std::unordered_map<DnsForward*, std::unique_ptr<DnsForward>> forwards_;
  std::unordered_map<DnsStream*, std::unique_ptr<DnsStream>> streams_;
  bool held_ = false;
  bool drained_ = false;
};

}  // namespace weft::proxy
