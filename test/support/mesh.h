// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "test/support/capture.h"
#include "test/support/mesh_felix.h"
#include "test/support/netns.h"
#include "test/support/process.h"
#include "tunnel/base/ip.h"

/// A mesh on one machine: nodes are network namespaces joined by one veth wire, each with the real weft-agent; pods are
/// namespaces added by a real chain that ends in weft-cni, ptp + host-local unless told otherwise. A test reads
///
///     Mesh mesh;
///     Pod& client = mesh.add_pod(1, "shop", "client");
///     Pod& server = mesh.add_pod(2, "shop", "server");
///     server.serve();
///     EXPECT_TRUE(client.get(server.v4(8080)).ok());
///
/// Needs root and the binaries weft-agent, weftctl, weft-cni, weft-chain and weft-testapp beside each other. Everything
/// is for the test's main thread. Failures of the machinery throw TestError.
namespace weft::test {

class Mesh;
class Node;

/// What stands before weft-cni in the chain. All of them take addresses from host-local.
enum class Primary : std::uint8_t {
  kPtp,                     ///< as kindnet
  kBridge,                  ///< bridge as flannel calls it: hairpin on, version 0.3.1
  kBridgePortmapBandwidth,  ///< the bridge with host ports and shaped rates
  kCalico,                  ///< weft-fakecalico; Felix is a matter of MeshOptions
  kMacvlan,                 ///< on the wire, without a node's side
};

struct PodOptions {
  std::string service_account = "default";
  bool enrolled = true;  ///< listed in the configuration as a workload with HBONE; otherwise wired but outside the mesh
  bool weft_cni = true;  ///< the chain ends in weft-cni; otherwise the pod is wired plainly, whatever its node runs
  std::vector<std::pair<std::string, std::string>> sysctls = {};  ///< set in the pod before its ADD
  std::optional<Primary> primary = {};                            ///< another than the mesh's
  int number = 0;               ///< the last part of its addresses; 0: one that no pod of the node has had
  std::string uid = {};         ///< of the pod, as its runtime says it; empty: the container's ID
  std::uint16_t host_port = 0;  ///< a port of the node that leads to Pod::kPort, where the chain has portmap
  nlohmann::json weft_conf = nlohmann::json::object();    ///< further keys for the entry of weft-cni
  nlohmann::json workload = nlohmann::json::object();     ///< further keys for its workload in the configuration
  nlohmann::json annotations = nlohmann::json::object();  ///< of the pod, as a runtime hands them to the chain
};

/// A pod: a namespace with eth0 from the chain. Owned by its Mesh.
class Pod {
 public:
  static constexpr std::uint16_t kPort = 8080;  ///< what serve() listens on unless told otherwise

  [[nodiscard]] const Netns& netns() const { return netns_; }
  [[nodiscard]] Node& node() const { return *node_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& namespace_name() const { return namespace_; }
  [[nodiscard]] std::string identity() const;
  [[nodiscard]] const std::string& container_id() const { return container_id_; }
  [[nodiscard]] const IpAddress& address_v4() const { return v4_; }
  [[nodiscard]] const IpAddress& address_v6() const { return v6_; }
  [[nodiscard]] Endpoint v4(std::uint16_t port = kPort) const { return {v4_, port}; }
  [[nodiscard]] Endpoint v6(std::uint16_t port = kPort) const { return {v6_, port}; }
  /// The name of the node's end of its veth.
  [[nodiscard]] const std::string& host_interface() const { return host_interface_; }

  /// Starts weft-testapp serve, named as the pod, and waits until it listens.
  Process& serve(std::uint16_t port = kPort, const std::vector<std::string>& arguments = {});
  /// weft-testapp get / bulk to their end (see its --help for the arguments).
  Finished get(const Endpoint& to, const std::vector<std::string>& arguments = {}) const;
  Finished bulk(const Endpoint& to, const std::vector<std::string>& arguments = {},
                milliseconds deadline = milliseconds(60'000)) const;
  /// weft-testapp hold, after its first heartbeat was answered. Throws when none is.
  Process hold(const Endpoint& to, const std::vector<std::string>& arguments = {}) const;
  /// Starts any program inside.
  Process start(const std::vector<std::string>& arguments) const;

 private:
  friend class Mesh;
  friend class Node;
  Pod(Node& node, std::string namespace_name, std::string name, PodOptions options, const std::string& netns_name);

  Node* node_;
  std::string namespace_, name_;
  PodOptions options_;
  Netns netns_;
  std::string container_id_, conflist_, host_interface_;
  IpAddress v4_, v6_;
  std::vector<std::unique_ptr<Process>> servers_;
};

/// A node: a namespace with an agent. Owned by its Mesh.
class Node {
 public:
  static constexpr const char* kWire = "wire";  ///< the interface to the other node

  [[nodiscard]] const Netns& netns() const { return netns_; }
  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] std::string name() const { return "node" + std::to_string(index_); }
  [[nodiscard]] IpAddress address_v4() const;
  [[nodiscard]] IpAddress address_v6() const;
  [[nodiscard]] std::string bpf_root() const { return bpffs_ + "/weft"; }
  [[nodiscard]] std::string socket() const { return folder_ + "/agent.sock"; }
  [[nodiscard]] std::string run_dir() const { return folder_ + "/run"; }

  /// Starts the agent and waits until it says that it is ready.
  void start_agent();
  /// Starts another agent, which takes over from the one that runs, and waits until it has; `arguments` come last on
  /// its command line. The one before is among retired_agents() from then on.
  void hand_over_agent(const std::vector<std::string>& arguments = {});
  /// The agents that others have taken over from, the oldest first, those that have ended included.
  [[nodiscard]] std::vector<std::unique_ptr<Process>>& retired_agents() { return retired_; }
  /// SIGKILL, and nothing that it could do about it.
  void kill_agent();
  /// SIGTERM, and waits for its end; throws when it ends badly (a sanitizer's report counts as that).
  void stop_agent();
  [[nodiscard]] bool has_agent() const { return agent_ != nullptr; }
  [[nodiscard]] Process& agent();
  /// What all agents of this node have logged, those that ended included.
  [[nodiscard]] std::string log() const;
  /// GET http://127.0.0.1:15000PATH, and the metrics of :15020. Throws when there is no answer.
  [[nodiscard]] std::string admin(const std::string& path) const;
  [[nodiscard]] std::string metrics() const;
  /// Resident memory of the agent in bytes.
  [[nodiscard]] std::size_t agent_memory_bytes();
  /// The most that it has had.
  [[nodiscard]] std::size_t agent_peak_memory_bytes();
  /// Felix' rules on this node; null where the mesh has none.
  [[nodiscard]] const FakeFelix* felix() const { return felix_.get(); }

 private:
  friend class Mesh;
  Node(Mesh& mesh, int index);
  [[nodiscard]] IpAddress next_pod_address(bool v6, int number) const;
  /// The name of the node's end of the pod's eth0; empty where that is no veth.
  [[nodiscard]] std::string host_side(const Pod& pod) const;
  /// Runs weft-chain VERB for the pod in this node's namespace.
  [[nodiscard]] Finished chain(const std::string& verb, const Pod& pod) const;

  Mesh* mesh_;
  int index_;
  Netns netns_;
  std::string folder_, bpffs_, ended_logs_;
  int pods_made_ = 0;
  std::unique_ptr<FakeFelix> felix_;
  [[nodiscard]] std::vector<std::string> agent_command() const;
  /// A line of the agent's /proc/PID/status, in bytes.
  [[nodiscard]] std::size_t agent_status(const std::string& key);
  std::unique_ptr<Process> agent_;
  std::vector<std::unique_ptr<Process>> retired_;
};

struct MeshOptions {
  int nodes = 2;  ///< 1 or 2
  bool start_agents = true;
  /// A file says what the mesh is, and a directory is its CA; otherwise node_arguments say where both come from.
  bool local = true;
  std::vector<std::string> agent_arguments = {};  ///< added to each agent's command line
  std::vector<std::string> agent_launcher = {};   ///< a program and its arguments, before each agent's command line
  /// Further arguments for the agent of a node, by its index; called when it starts.
  std::function<std::vector<std::string>(const Mesh&, int)> node_arguments = {};
  Primary primary = Primary::kPtp;
  int mtu = 0;                                      ///< of the wire and of the pods' interfaces; 0: the kernel's
  std::optional<FakeFelix::HostAction> felix = {};  ///< Felix' rules on every node, and every pod an endpoint of them
};

class Mesh {
 public:
  explicit Mesh(MeshOptions options = {});
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;
  ~Mesh();

  [[nodiscard]] Node& node(int index) { return *nodes_.at(static_cast<std::size_t>(index) - 1); }
  /// Adds the pod to the configuration (where it is enrolled), waits until the agents have it, and runs the chain's
  /// ADD.
  Pod& add_pod(int node, const std::string& namespace_name, const std::string& name, PodOptions options = {});
  /// The same without the ADD, for tests of ADD itself.
  Pod& plan_pod(int node, const std::string& namespace_name, const std::string& name, PodOptions options = {});
  /// Runs ADD or DEL of the chain for the pod (or any other verb of weft-chain).
  Finished chain(const std::string& verb, Pod& pod);
  /// Lists the pod in the configuration or takes it out, and waits until the agents have it.
  void set_enrolled(Pod& pod, bool enrolled);
  /// DEL, and the pod's namespace goes with its programs.
  void remove_pod(Pod& pod);

  /// Makes a service over pods; `port` leads to their `target_port`. Gives its VIPs, IPv4 first. `more` are further
  /// keys for its entry in the configuration.
  std::pair<IpAddress, IpAddress> add_service(const std::string& namespace_name, const std::string& name,
                                              std::uint16_t port, std::uint16_t target_port,
                                              const std::vector<Pod*>& backends,
                                              const nlohmann::json& more = nlohmann::json::object());
  /// Other further keys for a service's entry, in the place of those that it has.
  void change_service(const std::string& namespace_name, const std::string& name, const nlohmann::json& more,
                      const std::vector<int>& order = {});
  /// The same for a pod's workload; `order` as for apply().
  void change_workload(Pod& pod, const nlohmann::json& more, const std::vector<int>& order = {});
  /// Adds a workload that is no pod of this mesh, in ztunnel's local format, or replaces the one of this uid.
  void set_workload(const nlohmann::json& workload);
  /// The same for many, at once.
  void set_workloads(const std::vector<nlohmann::json>& workloads);
  /// Adds a policy in ztunnel's local format, or replaces the one of this namespace and name.
  void set_policy(const nlohmann::json& policy);
  void remove_policy(const std::string& namespace_name, const std::string& name);
  /// These instead of all that there were, at once.
  void set_policies(const std::vector<nlohmann::json>& policies);

  [[nodiscard]] const MeshOptions& options() const { return options_; }
  [[nodiscard]] const ScratchDir& folder() const { return folder_; }
  /// Each node has a file of its own; they say the same but while apply() goes from one to the other.
  [[nodiscard]] std::string config_path(int node = 1) const {
    return folder_.path() + "/mesh" + std::to_string(node) + ".yaml";
  }
  [[nodiscard]] std::string ca_dir() const { return folder_.path() + "/ca"; }
  /// Writes the configuration and waits until every running agent has it, one node after the other. Nothing to do where
  /// the mesh is not local.
  void apply(const std::vector<int>& order = {});
  /// Lists the pods as workloads with HBONE or without it, in one change: a control plane tells the pods' own agents
  /// first when they join, and those of their peers first when they leave, as `order` says.
  void set_protocol(const std::vector<Pod*>& pods, bool hbone, const std::vector<int>& order);

 private:
  friend class Node;
  [[nodiscard]] nlohmann::json configuration() const;
  [[nodiscard]] nlohmann::json workload(const Pod& pod) const;
  void wire_nodes();
  void write_conflist(Pod& pod);

  struct Service {
    std::string namespace_name, name;
    std::uint16_t port, target_port;
    std::vector<Pod*> backends;
    IpAddress v4, v6;
    nlohmann::json more;
    [[nodiscard]] std::string hostname() const;
  };

  MeshOptions options_;
  ScratchDir folder_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<Pod>> pods_;
  std::vector<Service> services_;
  std::map<std::string, nlohmann::json> workloads_;  ///< those that are no pods, by uid
  std::map<std::string, nlohmann::json> policies_;
  int version_ = 0;  ///< of the configuration, told by the name of a policy that applies to nothing
  int pods_planned_ = 0;
};

/// True for a segment between the two pods, in either direction, that is not of their tunnel.
bool is_clear_between(const Segment& segment, const Pod& a, const Pod& b);
/// The path of a program of the build: WEFT_BIN in the environment, or where the tests were built.
std::string program(const std::string& name);
/// The body of GET http://ADDRESS:PORT/PATH from inside `netns`; nothing when there is no answer 200.
std::optional<std::string> http_get(const Netns& netns, const Endpoint& server, const std::string& path);

}  // namespace weft::test
