// SPDX-License-Identifier: Apache-2.0
#include "test/istio/istio_sidecar.h"

namespace weft::test {
namespace {

constexpr const char* kProxyGroup = "1337";

/// What the pod's programs send and what comes for them goes to Envoy; what Envoy sends does not.
constexpr const char* kRedirect = R"(table inet sidecar {
  chain output {
    type nat hook output priority -100;
    meta skgid 1337 return
    oifname "lo" return
    meta l4proto tcp redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    iifname "lo" return
    tcp dport { 15008, 15021 } return
    meta l4proto tcp redirect to :15006
  }
}
)";

}  // namespace

SidecarPod add_istio_sidecar(Cluster& cluster, int node, const std::string& namespace_name, const std::string& name,
                             bool hbone, ClusterPod pod) {
  pod.annotations["sidecar.istio.io/status"] = "{}";
  pod.labels["security.istio.io/tlsMode"] = "istio";
  if (hbone) pod.labels["networking.istio.io/tunnel"] = "http";
  SidecarPod made{.pod = &cluster.add_pod(node, namespace_name, name, pod)};
  const Netns& inside = made.pod->netns();
  // Envoy's own addresses towards the application.
  (void)inside.ip("addr add ::6/128 dev lo");
  must_run({"nft", "-f", "-"}, {.netns = &inside, .environment = {}, .input = kRedirect});
  IstioEnvoyOptions options{.role = "sidecar", .labels = pod.labels};
  // Who changes its group would outlive the test otherwise.
  options.launcher = {"setpriv", "--regid", kProxyGroup, "--clear-groups", "--pdeathsig", "KILL"};
  options.metadata = {{"INTERCEPTION_MODE", "REDIRECT"},
                      {"ENABLE_HBONE", hbone ? "true" : "false"},
                      {"DISABLE_HBONE_SEND", hbone ? "false" : "true"}};
  made.envoy = std::make_unique<IstioEnvoy>(cluster, *made.pod, options);
  made.envoy->wait_for_configuration("virtualInbound");
  return made;
}

void apply_sidecar_filters(Cluster& cluster, const std::string& namespace_name) {
  std::string objects = read_file(WEFT_SOURCES "/test/istio/sidecar.yaml");
  for (auto at = objects.find("NAMESPACE"); at != std::string::npos; at = objects.find("NAMESPACE"))
    objects.replace(at, std::string("NAMESPACE").size(), namespace_name);
  cluster.apply(objects);
}

}  // namespace weft::test
