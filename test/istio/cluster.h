// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "test/interop/kube_api.h"
#include "test/netns/mesh_fixture.h"

/// A real istiod and a real API server drive the agents of two nodes, whose pods the chain wires. There is no kubelet
/// and no controller: the test makes Pod objects with their status, and EndpointSlices. Main thread only; failures of
/// the machinery throw TestError.
namespace weft::test {

/// istiod, from WEFT_ISTIOD, on a node's address. It reads the API as its administrator.
class Istiod {
 public:
  static constexpr int kXdsPort = 15012;    ///< xDS and CA, with TLS, named istiod.istio-system.svc
  static constexpr int kPlainPort = 15010;  ///< the same without
  static constexpr int kDebugPort = 18080;

  Istiod(const KubeApi& api, const Netns& netns, IpAddress address, const ScratchDir& folder,
         const std::vector<std::string>& environment = {});
  /// Starts it and waits until it is ready.
  void start();
  /// SIGKILL.
  void kill();
  [[nodiscard]] std::string xds_address() const { return Endpoint{address_, kXdsPort}.to_string(); }
  /// The answer of its debug port, whatever the path gives: `/debug/syncz`.
  [[nodiscard]] std::string debug(const std::string& path) const;
  /// What it said, those that were killed included.
  [[nodiscard]] std::string log() const;

 private:
  const Netns* netns_;
  IpAddress address_;
  std::string folder_, ended_logs_;
  std::vector<std::string> command_;
  std::unique_ptr<Process> process_;
};

struct ClusterPod {
  std::string service_account = {};  ///< empty: one of the pod's own name
  std::map<std::string, std::string> labels = {};
  std::map<std::string, std::string> annotations = {};
  bool weft_cni = true;  ///< as in PodOptions
  bool serve = true;     ///< serves on Pod::kPort
  bool ready = true;
};

struct ClusterPort {
  std::string name = "http";
  std::uint16_t port = 80, target = Pod::kPort;
  std::string app_protocol = {};
};

struct ClusterOptions {
  std::vector<std::string> agent_arguments = {};
  /// Where istiod has more in its environment.
  std::vector<std::string> istiod_environment = {};
  /// Agents ask istiod for what their pods connect to. What waits for both of them to have something then waits for
  /// nothing.
  bool on_demand = false;
};

class Cluster {
 public:
  /// Why there is none here; empty where all programs are.
  [[nodiscard]] static std::string missing();
  /// Two nodes with their agents, ready, under istiod.
  explicit Cluster(ClusterOptions options = {});

  Mesh& mesh() { return *mesh_; }
  Node& node(int index) { return mesh_->node(index); }
  KubeApi& api() { return *api_; }
  Istiod& istiod() { return *istiod_; }
  /// The file with istiod's root certificate.
  [[nodiscard]] std::string root_file() const { return folder_.path() + "/istio-root.pem"; }
  [[nodiscard]] const ScratchDir& folder() const { return folder_; }

  /// Namespace with labels; it has a service account `default`.
  void add_namespace(const std::string& name, const std::map<std::string, std::string>& labels = {});
  /// Sets a label of a namespace; "" takes it away.
  void label_namespace(const std::string& name, const std::string& key, const std::string& value);
  /// The mode of Istio's data plane there: label_namespace("istio.io/dataplane-mode", "ambient" or "").
  void set_ambient(const std::string& name, bool ambient);

  /// A pod: its object, the chain's ADD, and the status that a kubelet would give it. It serves and, where it is
  /// selected, is captured when this returns, but its peers may not know yet (see wait_for_hbone).
  Pod& add_pod(int node, const std::string& namespace_name, const std::string& name, const ClusterPod& options = {});
  /// DEL of the chain, and the object's end.
  void remove_pod(Pod& pod);
  void set_ready(const Pod& pod, bool ready);
  /// A token of the pod's service account, bound to it, in a file whose path this gives.
  std::string token(const std::string& namespace_name, const std::string& pod, const std::string& account,
                    const std::string& audience = "istio-ca");
  /// Waits until both agents have the pods as workloads with this protocol ("HBONE" or "TCP").
  void wait_for_protocol(const std::vector<const Pod*>& pods, const std::string& protocol = "HBONE");

  /// A service over those pods, by a label `app` that they must have, with both families and an EndpointSlice each.
  /// Gives its addresses, IPv4 first, when both agents have it.
  std::pair<IpAddress, IpAddress> add_service(const std::string& namespace_name, const std::string& name,
                                              const std::string& app, const std::vector<const Pod*>& pods,
                                              const ClusterPort& port = {},
                                              const std::map<std::string, std::string>& labels = {});
  /// The EndpointSlices of a service: these pods, and no others.
  void set_endpoints(const std::string& namespace_name, const std::string& service, const std::vector<const Pod*>& pods,
                     const ClusterPort& port = {});

  /// Server-side apply of documents in YAML of block style (kind, metadata.name and metadata.namespace on lines of
  /// their own). Takes kinds of Kubernetes, of the Gateway API and of Istio. Throws what the API says where it refuses
  /// one.
  void apply(const std::string& yaml);
  /// Takes away what `apply` of this document made.
  void remove(const std::string& yaml);
  /// What it has in a merge patch.
  void patch(const std::string& path, const kube::Json& patch);

  /// Waits until `/config_dump` of both agents says so of its JSON; throws with `what` and the dump where it does not.
  void wait_for_dump(const std::string& what, const std::function<bool(const nlohmann::json&)>& holds,
                     milliseconds deadline = milliseconds(10'000));

 private:
  void install_crds();
  void make_node(int index);
  /// The object of the agent's own pod, and its token for istiod.
  void make_agent_pod(int index);
  std::vector<std::string> agent_arguments(int index);
  void post(const std::string& collection, const kube::Json& object);

  ClusterOptions options_;
  ScratchDir folder_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<KubeApi> api_;
  std::unique_ptr<Istiod> istiod_;
  std::map<int, std::string> istiod_tokens_;  ///< files, by node
  std::string api_token_;
};

}  // namespace weft::test
