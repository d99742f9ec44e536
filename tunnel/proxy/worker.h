// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/loop/event_loop.h"
#include "tunnel/state/egress.h"
#include "tunnel/state/names.h"
#include "tunnel/state/state.h"
#include "tunnel/telemetry/dns_metrics.h"
#include "tunnel/telemetry/metrics.h"

namespace weft::proxy {

class Limits;

/// What the proxy asks of the node it runs on. The agent implements it over BPF; tests of the proxy alone do nothing.
/// Called from the worker threads.
class Node {
 public:
  virtual ~Node() = default;
  /// Marks a socket as the agent's own before it connects, so that capture lets it pass. A failure fails the
  /// connection.
  virtual Result<void> tag_socket(int fd) = 0;
  /// Asks for a certificate; called again and again while connections of `identity` wait. Returns at once.
  virtual void want_certificate(const state::Identity& identity) = 0;
  /// What is known of a name's addresses; where they are pending, names_changed() of the workers follows. Returns at
  /// once.
  virtual state::NameAnswer resolve(const std::string& hostname) = 0;
  /// Whether the snapshot has what the control plane says of all these names (state::names_to_ask) now. Where it has
  /// not, the control plane is asked, and a snapshot that has it follows. Returns at once.
  virtual bool is_told(const std::vector<std::string>& names, const state::State& snapshot) = 0;
  /// Asks for those of the names that were never asked for; nobody waits. Returns at once.
  virtual void ask_ahead(const std::vector<std::string>& names) = 0;
};

/// An enrolled pod of this node. Immutable.
struct PodContext {
  std::uint32_t slot = 0;  ///< unique on the node
  std::string namespace_name, name;
  std::string workload_uid;  ///< the workload that it is enrolled as
  std::vector<IpAddress> addresses;
  std::shared_ptr<const Fd> netns;  ///< null: the thread's own netns (tests)
  bool dns = false;                 ///< its DNS is captured: what it sends to port 53
};

/// A pod's listeners of one worker, all in the pod's netns.
struct PodListeners {
  Fd outbound, inbound_hbone, inbound_plaintext;
  /// UDP sockets that DNS questions come to, transparent and with IP_RECVORIGDSTADDR; -1 where the pod's DNS is not
  /// captured, or the kernel does not have the family.
  Fd dns_v4 = {}, dns_v6 = {};
};

/// All that one worker accepts of one pod from: several sets where it goes on with those of other workers.
struct HeldListeners {
  std::uint32_t slot = 0;
  std::vector<PodListeners> sets;
};

/// How much a worker has to do still before it can end.
struct WorkerLoad {
  std::size_t connections = 0, tunnels = 0;  ///< DNS questions that are forwarded count as connections
};

struct WorkerConfig {
  std::uint32_t index = 0;
  std::string cluster_id = "Kubernetes";
  std::string network;
  milliseconds connect_timeout{10'000};
  milliseconds own_workload_timeout{5'000};  ///< how long a first connection waits for its workload and certificate
  milliseconds idle_tunnel_timeout{300'000};
  std::uint16_t hbone_port = state::kHbonePort;
  std::size_t window_budget_bytes = 24U << 20;   ///< how much stream windows may grow beyond their start, together
  std::size_t kept_budget_bytes = 64U << 20;     ///< what may be kept for slow readers before their senders are stopped
  std::shared_ptr<Limits> limits;                ///< of all workers together; null: none
  std::string cluster_domain = "cluster.local";  ///< of Kubernetes' own names
  milliseconds dns_timeout{5'000};               ///< how long a forwarded question may take
  std::size_t dns_forwards_max = 256;            ///< under way at one time, of each pod
  std::shared_ptr<telemetry::DnsMetrics> dns_metrics;  ///< of all workers together; null: none
  state::EgressPolicy egress;
  bool on_demand = false;  ///< the control plane tells what it is asked for, and of this node's own workloads
};

/// What is true of a live connection, for the admin API.
struct ConnectionInfo {
  std::string pod;        ///< namespace/name
  std::string direction;  ///< "outbound", "inbound", "inbound-plaintext", "passthrough"
  Endpoint source, destination, hbone;
  std::string source_identity, destination_identity, service;
  std::string peer_serial;  ///< of the certificate that the tunnel's far end showed, in hex; empty without a tunnel
  WallTime peer_valid_until;
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  double age_seconds = 0;
  std::uint32_t generation = 0;  ///< of the agent that carries it, where it is not the one that is asked
};

/// One data thread: an event loop, the connections and the HBONE pool of its own. Workers share nothing but immutable
/// snapshots, the certificate store and the metrics. Methods are called from control threads and are posted to the
/// loop.
class Worker {
 public:
  static Result<std::unique_ptr<Worker>> create(WorkerConfig config, Node& node, hbone::CertStore& certificates,
                                                telemetry::ConnectionMetrics& metrics);
  /// Stops the thread and closes what lives.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();

  /// The new snapshot: later connections use it, live inbound connections are checked against it, waiting ones wake.
  void set_state(std::shared_ptr<const state::State> state);
  /// Certificates arrived: connections that wait for one go on, and tunnels whose peer no root of theirs vouches for
  /// any more drain.
  void certificates_changed();
  /// What is revoked from now on: peers are refused by it, and live tunnels that it names are cut, with what is in
  /// them.
  void set_revocations(hbone::RevocationsPtr revocations);
  /// A name was looked up: connections that wait for one ask again.
  void names_changed();
  /// Takes the listeners; they accept from the next turn on. Another pod, or another workload, in the
  /// same slot is removed first.
  void add_pod(std::shared_ptr<const PodContext> pod, std::vector<PodListeners> sets);
  /// Takes no more connections of the pod; those that live go on, and its inbound tunnels say GOAWAY.
  void retire_pod(std::uint32_t slot);
  /// Closes the pod's listeners, connections and tunnels, then calls `done` on the worker's thread.
  void remove_pod(std::uint32_t slot, std::function<void()> done);
  /// Calls back on the worker's thread with its live connections.
  void list_connections(std::function<void(std::vector<ConnectionInfo>)> done);
  /// Accepts nothing until go_on(), and calls back on the worker's thread with duplicates of all its listeners: what
  /// waits in their queues waits for whoever accepts next. A descriptor that could not be duplicated is -1.
  void hold(std::function<void(std::vector<HeldListeners>)> done);
  void go_on();
  /// Calls back on the worker's thread.
  void count_load(std::function<void(WorkerLoad)> done);
  /// Stops accepting and says GOAWAY on inbound tunnels; connections live on, and tunnels end with their last one.
  void drain();

 private:
  class Impl;
  explicit Worker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::proxy
