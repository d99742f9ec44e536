// SPDX-License-Identifier: Apache-2.0
#include "test/istio/istio_envoy.h"

#include <sstream>
#include <utility>

namespace weft::test {
namespace {

using nlohmann::json;

constexpr milliseconds kPatience{20'000};
constexpr std::uint16_t kHbonePort = 15008;
/// A release that istiod makes all of its present configuration for.
constexpr const char* kIstioVersion = "1.32.0";
const Endpoint kAdmin = *Endpoint::parse("127.0.0.1:19000");

std::string type(const char* name) { return std::string("type.googleapis.com/envoy.extensions.") + name; }

/// A cluster of one address that speaks HTTP/2.
json grpc_cluster(const std::string& name, const json& address) {
  const json options = {{"@type", type("upstreams.http.v3.HttpProtocolOptions")},
                        {"explicit_http_config", {{"http2_protocol_options", json::object()}}}};
  const json endpoint = {{"endpoint", {{"address", address}}}};
  return {{"name", name},
          {"type", "STATIC"},
          {"connect_timeout", "1s"},
          {"typed_extension_protocol_options", {{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions", options}}},
          {"load_assignment",
           {{"cluster_name", name}, {"endpoints", json::array({{{"lb_endpoints", json::array({endpoint})}}})}}}};
}

json socket_address(const Endpoint& at) {
  return {{"socket_address", {{"address", at.address.to_string()}, {"port_value", at.port}}}};
}

/// TLS to istiod, who must prove to be it.
json tls_to_istiod(const std::string& root_file) {
  const json name = {{"san_type", "DNS"}, {"matcher", {{"exact", "istiod.istio-system.svc"}}}};
  const json context = {{"trusted_ca", {{"filename", root_file}}},
                        {"match_typed_subject_alt_names", json::array({name})}};
  return {{"name", "tls"},
          {"typed_config",
           {{"@type", type("transport_sockets.tls.v3.UpstreamTlsContext")},
            {"sni", "istiod.istio-system.svc"},
            {"common_tls_context", {{"alpn_protocols", {"h2"}}, {"validation_context", context}}}}}};
}

json aggregated() {
  // Without a limit: what istiod has not told yet is not served.
  return {{"ads", json::object()}, {"initial_fetch_timeout", "0s"}, {"resource_api_version", "V3"}};
}

}  // namespace

std::string IstioEnvoy::missing() {
  return Envoy::executable().empty() ? "there is no Envoy (scripts/envoy gets it, WEFT_ENVOY names one)" : "";
}

IstioEnvoy::IstioEnvoy(Cluster& cluster, const Pod& pod, IstioEnvoyOptions options)
    : cluster_(&cluster),
      pod_(&pod),
      options_(std::move(options)),
      account_(pod.identity().substr(pod.identity().rfind('/') + 1)),
      socket_(cluster.folder().path() + "/sds-" + pod.name() + ".sock") {
  const std::string token = cluster.token(pod.namespace_name(), pod.name(), account_);
  std::vector<std::string> sds = options_.launcher;
  for (const std::string& part : {program("weft-test-sds"), std::string("--istiod"), cluster.istiod().xds_address(),
                                  std::string("--root"), cluster.root_file(), std::string("--token"), token,
                                  std::string("--identity"), pod.identity(), std::string("--listen"), socket_})
    sds.push_back(part);
  sds_ = std::make_unique<Process>(pod.start(sds));
  if (!sds_->wait_for_output("serving", kPatience)) throw TestError("no certificate for Envoy: " + sds_->err());
  const std::string file = cluster.folder().write("envoy-" + pod.name() + ".json", bootstrap(token).dump(1));
  envoy_ = std::make_unique<Envoy>(pod, file, options_.launcher);
}

json IstioEnvoy::bootstrap(const std::string& token_file) const {
  const std::string v4 = pod_->address_v4().to_string(), v6 = pod_->address_v6().to_string();
  json metadata = {{"NAMESPACE", pod_->namespace_name()}, {"NAME", pod_->name()},
                   {"SERVICE_ACCOUNT", account_},         {"CLUSTER_ID", "Kubernetes"},
                   {"INSTANCE_IPS", v4 + "," + v6},       {"ISTIO_VERSION", kIstioVersion},
                   {"MESH_ID", "cluster.local"},          {"WORKLOAD_NAME", pod_->name()},
                   {"NODE_NAME", pod_->node().name()},    {"LABELS", options_.labels}};
  metadata.update(options_.metadata);
  const json node = {{"id", options_.role + "~" + v4 + "~" + pod_->name() + "." + pod_->namespace_name() + "~" +
                                pod_->namespace_name() + ".svc.cluster.local"},
                     {"cluster", pod_->name() + "." + pod_->namespace_name()},
                     {"metadata", metadata}};
  std::string token = read_file(token_file);
  token.erase(token.find_last_not_of("\r\n ") + 1);
  const json grpc = {{"envoy_grpc", {{"cluster_name", "xds-grpc"}}},
                     {"initial_metadata", json::array({{{"key", "authorization"}, {"value", "Bearer " + token}},
                                                       {{"key", "clusterid"}, {"value", "Kubernetes"}}})}};
  json istiod = grpc_cluster("xds-grpc", socket_address(*Endpoint::parse(cluster_->istiod().xds_address())));
  istiod["transport_socket"] = tls_to_istiod(cluster_->root_file());
  const json extension = {
      {"name", "envoy.bootstrap.internal_listener"},
      {"typed_config", {{"@type", type("bootstrap.internal_listener.v3.InternalListener")}, {"buffer_size_kb", 64}}}};
  return {{"node", node},
          {"bootstrap_extensions", json::array({extension})},
          {"admin", {{"address", socket_address(kAdmin)}}},
          {"dynamic_resources",
           {{"lds_config", aggregated()},
            {"cds_config", aggregated()},
            {"ads_config",
             {{"api_type", "DELTA_GRPC"},
              {"set_node_on_first_message_only", true},
              {"transport_api_version", "V3"},
              {"grpc_services", json::array({grpc})}}}}},
          {"static_resources",
           {{"clusters", json::array({istiod, grpc_cluster("sds-grpc", {{"pipe", {{"path", socket_}}}})})}}}};
}

std::string IstioEnvoy::admin(const std::string& path) const {
  const auto answer = http_get(pod_->netns(), kAdmin, path);
  if (!answer) throw TestError("Envoy of " + pod_->name() + " does not answer " + path + ": " + trouble());
  return *answer;
}

double IstioEnvoy::stat(const std::string& begin, const std::string& end) const {
  double sum = 0;
  std::istringstream lines(admin("/stats?type=Counters") + admin("/stats?type=Gauges"));
  for (std::string line; std::getline(lines, line);) {
    const auto colon = line.rfind(": ");
    if (colon == std::string::npos) continue;
    const std::string name = line.substr(0, colon);
    if (name.starts_with(begin) && name.ends_with(end)) sum += std::stod(line.substr(colon + 2));
  }
  return sum;
}

std::string IstioEnvoy::trouble() const {
  std::string all = sds_->err();
  std::istringstream lines(envoy_ ? envoy_->trouble() : "");
  for (std::string line; std::getline(lines, line);) {
    // Fields that are old or new, which are istiod's matter.
    if (line.find("[warning][misc]") == std::string::npos) all += line + "\n";
  }
  return all;
}

std::string IstioEnvoy::configuration() const {
  json dump = json::parse(admin("/config_dump?include_eds"));
  // What is for connections that were there before.
  for (auto& part : dump.at("configs")) {
    part.erase("static_route_configs");
    if (!part.contains("dynamic_listeners")) continue;
    for (auto& listener : part["dynamic_listeners"]) listener.erase("draining_state");
  }
  return dump.dump();
}

void IstioEnvoy::wait_for_configuration(const std::string& text, bool there) const {
  const bool came = eventually(kPatience, [&] { return (configuration().find(text) != std::string::npos) == there; });
  const double refused = stat("", ".update_rejected");
  if (came && refused == 0) return;
  throw TestError("Envoy of " + pod_->name() + (came == there ? " has " : " has not ") + text + ", and refused " +
                  std::to_string(static_cast<int>(refused)) + " updates: " + trouble());
}

HeldBack::HeldBack(Cluster& cluster, std::vector<const Netns*> from)
    : istiod_(*Endpoint::parse(cluster.istiod().xds_address())), from_(std::move(from)) {
  set("-I");
}

HeldBack::~HeldBack() { set("-D"); }

void HeldBack::set(const char* verb) const {
  for (const Netns* netns : from_) {
    const Finished done = run({"iptables", "--wait", verb, "INPUT", "-s", istiod_.address.to_string(), "-p", "tcp",
                               "--sport", std::to_string(istiod_.port), "-j", "DROP"},
                              {.netns = netns, .environment = {}, .input = {}});
    EXPECT_TRUE(done.ok()) << done.err;
  }
}

WaypointPod add_istio_waypoint(Cluster& cluster, int node, const std::string& namespace_name, const std::string& name) {
  std::string objects = read_file(WEFT_SOURCES "/test/istio/waypoint.yaml");
  for (const auto& [from, to] : {std::pair{"NAMESPACE", namespace_name}, std::pair{"WAYPOINT", name}}) {
    const std::string key = from;
    for (auto at = objects.find(key); at != std::string::npos; at = objects.find(key, at + to.size()))
      objects.replace(at, key.size(), to);
  }
  cluster.apply(objects);
  ClusterPod pod;
  pod.labels = {{"app", name},
                {"gateway.networking.k8s.io/gateway-name", name},
                {"gateway.networking.k8s.io/gateway-class-name", "istio-waypoint"},
                {"gateway.istio.io/managed", "istio.io-mesh-controller"},
                {"istio.io/dataplane-mode", "none"}};
  pod.weft_cni = false;
  pod.serve = false;
  WaypointPod made{.pod = &cluster.add_pod(node, namespace_name, name, pod)};
  cluster.add_service(
      namespace_name, name, name, {made.pod},
      {.name = "mesh", .port = kHbonePort, .target = kHbonePort, .app_protocol = "hbone"},
      {{"gateway.istio.io/managed", "istio.io-mesh-controller"}, {"gateway.networking.k8s.io/gateway-name", name}});
  made.envoy = std::make_unique<IstioEnvoy>(cluster, *made.pod, IstioEnvoyOptions{.labels = pod.labels});
  made.envoy->wait_for_configuration("connect_terminate");
  return made;
}

}  // namespace weft::test
