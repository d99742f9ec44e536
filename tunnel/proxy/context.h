// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <random>

#include "tunnel/hbone/pool.h"
#include "tunnel/loop/start_queue.h"
#include "tunnel/proxy/connections.h"
#include "tunnel/proxy/limits.h"
#include "tunnel/proxy/refusal_log.h"
#include "tunnel/proxy/source_ports.h"
#include "tunnel/proxy/worker.h"

namespace weft::proxy {

/// Moves the worker's thread between network namespaces, as lazily as possible: a thread stays where its last socket
/// was made, so that a pod that makes many costs one system call only. One thread.
class NetnsSwitch {
 public:
  /// Remembers the thread's own netns; call it on the worker's thread. Without /proc it can only stay.
  Result<void> init();
  /// Null means the thread's own.
  Result<void> enter(const std::shared_ptr<const Fd>& netns);
  /// Back to its own, if it is in `netns`: a thread keeps the netns it is in alive.
  void leave(const std::shared_ptr<const Fd>& netns);

 private:
  Fd home_;
  const Fd* current_ = nullptr;  ///< identifies the netns by its pod's descriptor; null: home
  bool lost_ = false;            ///< in one that no pod has any more: whatever is asked for is another
};

/// What one worker has of a pod beside its listeners; tunnels hold it until they are gone. One thread, but for `use`.
struct PodState {
  PodState(loop::EventLoop& loop, std::shared_ptr<PodUse> pod_use) : starts(loop), use(std::move(pod_use)) {}
  loop::StartQueue starts;
  std::shared_ptr<PodUse> use;
};

/// What the parts of one worker share. One thread.
struct WorkerContext {
  WorkerContext(WorkerConfig worker_config, Node& the_node, hbone::CertStore& store,
                telemetry::ConnectionMetrics& connection_metrics, loop::EventLoop& event_loop)
      : config(std::move(worker_config)),
        node(the_node),
        certificates(store),
        metrics(connection_metrics),
        loop(event_loop),
        limits(config.limits ? config.limits : std::make_shared<Limits>()),
        dns_metrics(config.dns_metrics
                        ? config.dns_metrics
                        : std::make_shared<telemetry::DnsMetrics>(std::make_shared<prometheus::Registry>())),
        budget(config.window_budget_bytes),
        kept(config.kept_budget_bytes),
        pool(tunnel_context(), config.connect_timeout, config.idle_tunnel_timeout, {},
             [this](std::uint32_t slot, bool refused) { count_handshake_over_budget(slot, refused); }),
        connections(event_loop),
        refusals(connection_metrics) {}

  [[nodiscard]] hbone::TunnelContext tunnel_context() {
    return {loop, scratch, budget, kept, Clock::real(), &revocations};
  }
  void count_handshake_over_budget(std::uint32_t slot, bool refused) {
    const auto found = pods.find(slot);
    if (found == pods.end()) return;
    if (refused) return found->second->use->count_shed(Shed::kHandshakes);
    found->second->use->count_delayed_handshake();
  }

  WorkerConfig config;
  Node& node;
  hbone::CertStore& certificates;
  telemetry::ConnectionMetrics& metrics;
  loop::EventLoop& loop;
  std::shared_ptr<Limits> limits;
  std::shared_ptr<telemetry::DnsMetrics> dns_metrics;
  hbone::Scratch scratch;
  hbone::WindowBudget budget;
  hbone::KeptBudget kept;
  hbone::RevocationsPtr revocations;  ///< in force
  hbone::Pool pool;
  Connections connections;
  RefusalLog refusals;
  NetnsSwitch netns;
  PodPorts ports;
  std::map<std::uint32_t, std::shared_ptr<PodState>> pods;  ///< those that have listeners, by slot
  std::shared_ptr<const state::State> state;                ///< null until the first snapshot
  std::mt19937_64 random{std::random_device{}()};
};

/// TCP_NODELAY and keepalive, which accepted sockets inherit from their listener.
Result<void> set_stream_options(int fd);

/// A connecting socket in the pod's netns, marked as the agent's own, from the pod's own address.
Result<Fd> dial_from_pod(WorkerContext& worker, const PodContext& pod, const Endpoint& destination);

/// The same for a tunnel, in the books of the pod as long as that lives. Errors: kOverLimit when the pod may have no
/// more.
Result<hbone::Dialled> dial_tunnel(WorkerContext& worker, const PodContext& pod, const Endpoint& gateway);

/// A UDP socket in the pod's netns, marked as the agent's own, from one of the pod's addresses and a port of the
/// kernel's choice, that hears of `destination` alone.
Result<Fd> udp_from_pod(WorkerContext& worker, const PodContext& pod, const IpAddress& source,
                        const Endpoint& destination);

/// A connecting socket to the pod's application that carries the client's address, from one of the pod's source ports,
/// so that it cannot meet the outer connection's tuple. Connections share a port where their tuples differ. Errors:
/// kUnavailable when none of the ports is free for this client and application.
Result<Fd> dial_application(WorkerContext& worker, const PodContext& pod, const IpAddress& client,
                            const Endpoint& application);

}  // namespace weft::proxy
