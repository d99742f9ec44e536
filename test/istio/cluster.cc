// SPDX-License-Identifier: Apache-2.0
#include "test/istio/cluster.h"

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <sstream>

namespace weft::test {
namespace {

using kube::Json;
using nlohmann::json;

constexpr milliseconds kPatience{20'000};
constexpr const char* kRedirection = "ambient.istio.io/redirection";
constexpr const char* kMergePatch = "application/merge-patch+json";

Json object_of(const char* version, const char* kind, const std::string& namespace_name, const std::string& name) {
  Json object = {{"apiVersion", version}, {"kind", kind}, {"metadata", {{"name", name}}}};
  if (!namespace_name.empty()) object["metadata"]["namespace"] = namespace_name;
  return object;
}

std::string pods_path(const std::string& namespace_name) { return "/api/v1/namespaces/" + namespace_name + "/pods"; }

Json ready_condition(bool ready) {
  return {{{"type", "Ready"}, {"status", ready ? "True" : "False"}},
          {{"type", "PodReadyToStartContainers"}, {"status", "True"}}};
}

Json running(const IpAddress& v4, const IpAddress& v6, const Node& node, bool ready) {
  return {{"status",
           {{"phase", "Running"},
            {"hostIP", node.address_v4().to_string()},
            {"podIP", v4.to_string()},
            {"podIPs", {{{"ip", v4.to_string()}}, {{"ip", v6.to_string()}}}},
            {"conditions", ready_condition(ready)}}}};
}

}  // namespace

std::string Cluster::missing() {
  if (!is_root()) return "needs root: makes network namespaces";
  if (std::string why = KubeApi::missing(); !why.empty()) return why;
  for (const char* variable : {"WEFT_ISTIOD", "WEFT_ISTIO_CRDS"}) {
    if (std::getenv(variable) == nullptr) return std::string(variable) + " is not set (scripts/test istio builds all)";
  }
  return {};
}

Cluster::Cluster(ClusterOptions options) : options_(std::move(options)) {
  std::signal(SIGPIPE, SIG_IGN);
  MeshOptions mesh;
  mesh.start_agents = false;
  mesh.local = false;
  mesh.agent_arguments = options_.agent_arguments;
  if (options_.on_demand) mesh.agent_arguments.emplace_back("--xds-on-demand");
  mesh.node_arguments = [this](const Mesh&, int index) { return agent_arguments(index); };
  mesh_ = std::make_unique<Mesh>(mesh);
  const IpAddress address = node(1).address_v4();
  api_ = std::make_unique<KubeApi>(&node(1).netns(), address.to_string());
  install_crds();
  add_namespace("istio-system");
  api_->grant(WEFT_SOURCES "/manifests/weft.yaml");
  api_token_ = api_->token_of("istio-system", "ztunnel");
  for (const int index : {1, 2}) {
    make_node(index);
    make_agent_pod(index);
  }
  istiod_ = std::make_unique<Istiod>(*api_, node(1).netns(), address, folder_, options_.istiod_environment);
  istiod_->start();
  const std::string roots = "/api/v1/namespaces/istio-system/configmaps/istio-ca-root-cert";
  if (!eventually(kPatience, [&] { return api_->send({.path = roots}).ok(); }))
    throw TestError("istiod publishes no root certificate:\n" + istiod_->log());
  folder_.write("istio-root.pem", api_->ask({.path = roots}).at("data").at("root-cert.pem").get<std::string>());
  for (const int index : {1, 2}) node(index).start_agent();
}

void Cluster::install_crds() {
  std::istringstream files(std::getenv("WEFT_ISTIO_CRDS"));
  const std::string collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  for (std::string file; files >> file;) {
    for (const auto& document : manifest_documents(read_file(file))) {
      if (document.kind != "CustomResourceDefinition") continue;
      const auto made =
          api_->send({.method = "POST", .path = collection, .body = document.text, .content_type = "application/yaml"});
      if (!made.ok()) throw TestError("a definition of " + file + ": " + made.body.substr(0, 1000));
    }
  }
  const auto established = [](const Json& definition) {
    if (!definition.at("status").contains("conditions")) return false;
    return std::ranges::any_of(definition.at("status").at("conditions"), [](const Json& condition) {
      return condition.at("type") == "Established" && condition.at("status") == "True";
    });
  };
  const bool all = eventually(
      kPatience, [&] { return std::ranges::all_of(api_->ask({.path = collection}).at("items"), established); });
  if (!all) throw TestError("the definitions of Istio's kinds are not taken into use");
}

void Cluster::post(const std::string& collection, const Json& object) {
  api_->ask({.method = "POST", .path = collection, .body = object.dump()});
}

void Cluster::patch(const std::string& path, const Json& patch) {
  api_->ask({.method = "PATCH", .path = path, .body = patch.dump(), .content_type = kMergePatch});
}

void Cluster::make_node(int index) {
  const Node& of = node(index);
  Json object = object_of("v1", "Node", "", of.name());
  object["metadata"]["labels"] = {{"kubernetes.io/os", "linux"},
                                  {"topology.kubernetes.io/region", "region1"},
                                  {"topology.kubernetes.io/zone", "zone" + std::to_string(index)}};
  post("/api/v1/nodes", object);
  const Json addresses = {{{"type", "InternalIP"}, {"address", of.address_v4().to_string()}},
                          {{"type", "InternalIP"}, {"address", of.address_v6().to_string()}}};
  patch("/api/v1/nodes/" + of.name() + "/status",
        {{"status", {{"conditions", {{{"type", "Ready"}, {"status", "True"}}}}, {"addresses", addresses}}}});
}

void Cluster::make_agent_pod(int index) {
  const Node& of = node(index);
  const std::string name = "ztunnel-" + of.name();
  Json object = object_of("v1", "Pod", "istio-system", name);
  object["metadata"]["labels"] = {
      {"app", "ztunnel"}, {"k8s-app", "istio-cni-node"}, {"istio.io/dataplane-mode", "none"}};
  object["spec"] = {{"serviceAccountName", "ztunnel"},
                    {"nodeName", of.name()},
                    {"hostNetwork", true},
                    {"containers", {{{"name", "weft-agent"}, {"image", "none"}}}}};
  post(pods_path("istio-system"), object);
  patch(pods_path("istio-system") + "/" + name + "/status", running(of.address_v4(), of.address_v6(), of, true));
  istiod_tokens_[index] = token("istio-system", name, "ztunnel");
}

std::vector<std::string> Cluster::agent_arguments(int index) {
  const kube::ApiConfig api = api_->config(api_token_);
  return {"--xds-address",   istiod_->xds_address(),
          "--xds-root",      root_file(),
          "--xds-token",     istiod_tokens_[index],
          "--pod-name",      "ztunnel-" + node(index).name(),
          "--pod-namespace", "istio-system",
          "--instance-ip",   node(index).address_v4().to_string(),
          "--cluster-id",    "Kubernetes",
          "--enrolment",     "kubernetes",
          "--kube-api",      api.server,
          "--kube-token",    api.token_file,
          "--kube-root",     api.root_file};
}

std::string Cluster::token(const std::string& namespace_name, const std::string& pod, const std::string& account,
                           const std::string& audience) {
  const Json object = api_->ask({.path = pods_path(namespace_name) + "/" + pod});
  return api_->token_of(
      namespace_name, account,
      {{"audiences", {audience}},
       {"expirationSeconds", 43'200},
       {"boundObjectRef",
        {{"kind", "Pod"}, {"apiVersion", "v1"}, {"name", pod}, {"uid", object.at("metadata").at("uid")}}}});
}

void Cluster::add_namespace(const std::string& name, const std::map<std::string, std::string>& labels) {
  Json object = object_of("v1", "Namespace", "", name);
  object["metadata"]["labels"] = labels;
  post("/api/v1/namespaces", object);
  post("/api/v1/namespaces/" + name + "/serviceaccounts", object_of("v1", "ServiceAccount", name, "default"));
}

void Cluster::label_namespace(const std::string& name, const std::string& key, const std::string& value) {
  patch("/api/v1/namespaces/" + name,
        {{"metadata", {{"labels", {{key, value.empty() ? Json(nullptr) : Json(value)}}}}}});
}

void Cluster::set_ambient(const std::string& name, bool ambient) {
  label_namespace(name, "istio.io/dataplane-mode", ambient ? "ambient" : "");
}

Pod& Cluster::add_pod(int index, const std::string& namespace_name, const std::string& name,
                      const ClusterPod& options) {
  const std::string account = options.service_account.empty() ? name : options.service_account;
  const std::string accounts = "/api/v1/namespaces/" + namespace_name + "/serviceaccounts";
  if (!api_->send({.path = accounts + "/" + account}).ok())
    post(accounts, object_of("v1", "ServiceAccount", namespace_name, account));
  Json object = object_of("v1", "Pod", namespace_name, name);
  object["metadata"]["labels"] = options.labels;
  object["metadata"]["annotations"] = options.annotations;
  object["spec"] = {{"serviceAccountName", account},
                    {"automountServiceAccountToken", false},
                    {"nodeName", node(index).name()},
                    {"containers", {{{"name", "application"}, {"image", "none"}}}}};
  const Json made = api_->ask({.method = "POST", .path = pods_path(namespace_name), .body = object.dump()});
  PodOptions pod_options;
  pod_options.service_account = account;
  pod_options.uid = made.at("metadata").at("uid");
  pod_options.weft_cni = options.weft_cni;
  Pod& pod = mesh_->add_pod(index, namespace_name, name, pod_options);
  patch(pods_path(namespace_name) + "/" + name + "/status",
        running(pod.address_v4(), pod.address_v6(), pod.node(), options.ready));
  if (options.serve) pod.serve();
  return pod;
}

void Cluster::remove_pod(Pod& pod) {
  const std::string path = pods_path(pod.namespace_name()) + "/" + pod.name();
  mesh_->remove_pod(pod);
  // What a kubelet does when it is done with it.
  api_->ask({.method = "DELETE", .path = path + "?gracePeriodSeconds=0"});
}

void Cluster::set_ready(const Pod& pod, bool ready) {
  patch(pods_path(pod.namespace_name()) + "/" + pod.name() + "/status",
        {{"status", {{"conditions", ready_condition(ready)}}}});
}

void Cluster::wait_for_protocol(const std::vector<const Pod*>& pods, const std::string& protocol) {
  std::map<std::string, std::string> wanted;
  std::string names;
  for (const Pod* pod : pods) {
    wanted["Kubernetes//Pod/" + pod->namespace_name() + "/" + pod->name()] = protocol;
    names += " " + pod->name();
  }
  wait_for_dump(
      "protocol " + protocol + " of" + names,
      [&](const json& dump) {
        std::size_t found = 0;
        for (const auto& workload : dump.at("workloads")) {
          const auto want = wanted.find(workload.at("uid"));
          if (want != wanted.end() && workload.at("protocol") == want->second) ++found;
        }
        return found == wanted.size();
      },
      kPatience);
}

std::pair<IpAddress, IpAddress> Cluster::add_service(const std::string& namespace_name, const std::string& name,
                                                     const std::string& app, const std::vector<const Pod*>& pods,
                                                     const ClusterPort& port,
                                                     const std::map<std::string, std::string>& labels) {
  Json entry = {{"name", port.name}, {"port", port.port}, {"targetPort", port.target}};
  if (!port.app_protocol.empty()) entry["appProtocol"] = port.app_protocol;
  Json object = object_of("v1", "Service", namespace_name, name);
  object["metadata"]["labels"] = labels;
  object["spec"] = {{"selector", {{"app", app}}}, {"ipFamilyPolicy", "RequireDualStack"}, {"ports", {entry}}};
  const std::string collection = "/api/v1/namespaces/" + namespace_name + "/services";
  const Json made = api_->ask({.method = "POST", .path = collection, .body = object.dump()});
  set_endpoints(namespace_name, name, pods, port);
  const std::string hostname = name + "." + namespace_name + ".svc.cluster.local";
  wait_for_dump("service " + hostname, [&](const json& dump) {
    return std::ranges::any_of(dump.at("services"),
                               [&](const json& service) { return service.at("hostname") == hostname; });
  });
  const auto parsed = [](const Json& text) { return *IpAddress::parse(text.get<std::string>()); };
  const Json& addresses = made.at("spec").at("clusterIPs");
  return {parsed(addresses.at(0)), parsed(addresses.at(1))};
}

void Cluster::set_endpoints(const std::string& namespace_name, const std::string& service,
                            const std::vector<const Pod*>& pods, const ClusterPort& port) {
  for (const bool v6 : {false, true}) {
    const std::string name = service + (v6 ? "-v6" : "-v4");
    Json slice = object_of("discovery.k8s.io/v1", "EndpointSlice", namespace_name, name);
    slice["metadata"]["labels"] = {{"kubernetes.io/service-name", service}};
    slice["addressType"] = v6 ? "IPv6" : "IPv4";
    slice["ports"] = {{{"name", port.name}, {"port", port.target}, {"protocol", "TCP"}}};
    slice["endpoints"] = Json::array();
    for (const Pod* pod : pods) {
      const IpAddress& address = v6 ? pod->address_v6() : pod->address_v4();
      slice["endpoints"].push_back(
          {{"addresses", {address.to_string()}},
           {"conditions", {{"ready", true}, {"serving", true}}},
           {"nodeName", pod->node().name()},
           {"targetRef", {{"kind", "Pod"}, {"name", pod->name()}, {"namespace", namespace_name}}}});
    }
    const std::string path = "/apis/discovery.k8s.io/v1/namespaces/" + namespace_name + "/endpointslices/" + name;
    if (const auto applied = api_->apply(path, slice.dump(), false); !applied.ok())
      throw TestError(path + ": " + applied.body);
  }
}

void Cluster::apply(const std::string& yaml) {
  for (const auto& document : manifest_documents(yaml)) {
    const auto applied = api_->apply(document.path, document.text, false);
    if (!applied.ok()) throw TestError(document.path + ": " + applied.body);
  }
}

void Cluster::remove(const std::string& yaml) {
  for (const auto& document : manifest_documents(yaml)) api_->ask({.method = "DELETE", .path = document.path});
}

void Cluster::wait_for_dump(const std::string& what, const std::function<bool(const json&)>& holds,
                            milliseconds deadline) {
  if (options_.on_demand) return;
  for (const int index : {1, 2}) {
    const auto dump = [&] { return json::parse(node(index).admin("/config_dump")); };
    if (!eventually(deadline, [&] { return holds(dump()); }))
      throw TestError(node(index).name() + " does not come to this: " + what + "; it has " + dump().dump(1));
  }
}

}  // namespace weft::test
