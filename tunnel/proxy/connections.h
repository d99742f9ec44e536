// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tunnel/loop/event_loop.h"
#include "tunnel/proxy/limits.h"
#include "tunnel/proxy/worker.h"
#include "tunnel/telemetry/connection_result.h"
#include "tunnel/telemetry/metrics.h"

namespace weft::hbone {
class Tunnel;
}

namespace weft::proxy {

struct WorkerContext;

/// One proxied connection, from accept (or CONNECT) to its end: owned by the worker's Connections, deleted at the end
/// of the turn in which finish() was called, recorded there exactly once. One thread.
class Connection : public loop::Deferred {
 public:
  Connection(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Charge charge = {});

  [[nodiscard]] const PodContext& pod() const { return *pod_; }
  /// There is a new snapshot: what waited for it goes on, and what it no longer allows ends.
  virtual void on_snapshot() = 0;
  /// There are new certificates: what waited for one goes on.
  virtual void on_certificates() {}
  /// A name was resolved, or could not be: what waited for one goes on.
  virtual void on_names() {}
  /// The tunnel that carries it, null where there is none.
  [[nodiscard]] virtual const hbone::Tunnel* tunnel() const { return nullptr; }
  /// Ends it now, from outside: both sides are reset.
  virtual void cut(telemetry::ResponseFlag flag, const std::string& why) = 0;
  [[nodiscard]] ConnectionInfo info() const;
  /// Brings the byte counters of the metrics up to what was carried so far.
  void count_bytes();
  /// Counts the socket that capture brought as open while this lives.
  void count_socket();

 protected:
  /// Counts it as opened: source, destination and service are known.
  void opened();
  /// The last call: `why` empty where it ended well. Records the result and gives the object to the loop for deletion.
  void finish(telemetry::ResponseFlag flag, const std::string& why);
  [[nodiscard]] bool finished() const { return finished_; }
  /// What was carried so far, from the source and to it.
  struct Bytes {
    std::uint64_t sent = 0, received = 0;
  };
  [[nodiscard]] virtual Bytes bytes() const = 0;
  /// As ConnectionInfo names it.
  [[nodiscard]] virtual const char* direction() const = 0;
  /// The pod's own workload in the current snapshot, null where it is not known yet.
  [[nodiscard]] state::WorkloadPtr own_workload() const;

  WorkerContext& worker_;
  std::shared_ptr<const PodContext> pod_;
  telemetry::ConnectionResult result_;
  Charge charge_;

 private:
  /// Counts what policy decided when it takes effect: once when the connection is let in or refused, and again where a
  /// later decision cuts it.
  void count_decision();

  std::shared_ptr<telemetry::ConnectionMetrics::Handle> metrics_;
  telemetry::OpenSocket socket_;
  Bytes counted_;  ///< in the metrics
  std::optional<bool> counted_decision_;
  bool finished_ = false;
};

/// The live connections of one worker. While there are any, their bytes are counted at every interval. One thread.
class Connections {
 public:
  static constexpr milliseconds kCountInterval{5'000};

  explicit Connections(loop::EventLoop& loop) : loop_(loop), count_timer_(loop) {}
  Connection& add(std::unique_ptr<Connection> connection);
  /// Takes it out and deletes it at the end of the turn.
  void remove(Connection& connection);
  /// Calls for each that lives now; those that end or come meanwhile are no matter.
  void for_each(const std::function<void(Connection&)>& visit);
  [[nodiscard]] std::size_t size() const { return live_.size(); }

 private:
  void count();

  loop::EventLoop& loop_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> live_;
  loop::Timer count_timer_;
};

}  // namespace weft::proxy
