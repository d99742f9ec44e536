// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/enrolment_rules.h"

#include <algorithm>

#include "cni-plugin/registration.h"

namespace weft::kube {

bool is_excluded(const std::string& namespace_name, const std::vector<std::string>& excluded) {
  return std::ranges::find(excluded, namespace_name) != excluded.end();
}

Ruling rule(const Pod& pod, const Namespace& of, const std::vector<std::string>& excluded) {
  const std::string label = std::string(kDataplaneMode) + "=";
  if (is_excluded(pod.namespace_name, excluded)) return {false, "namespace " + pod.namespace_name + " is excluded"};
  if (pod.host_network) return {false, "the pod is in the host's network"};
  if (pod.finished()) return {false, "the pod has finished (" + pod.phase + ")"};
  if (pod.sidecar) return {false, "the pod has a sidecar (" + std::string(kSidecarStatus) + ")"};
  if (pod.meta.dataplane_mode == "ambient") return {true, "the pod has the label " + label + "ambient"};
  if (pod.meta.dataplane_mode == "none") return {false, "the pod has the label " + label + "none"};
  if (of.meta.dataplane_mode == "ambient")
    return {true, "namespace " + of.meta.name + " has the label " + label + "ambient"};
  return {false, "neither the pod nor namespace " + of.meta.name + " has the label " + label + "ambient"};
}

std::vector<std::string> unmet_wishes(const Pod& pod) {
  std::vector<std::string> unmet;
  for (const auto name : {cni::kRerouteInterfaces, cni::kKubevirtInterfaces}) {
    if (pod.annotations.contains(std::string(name))) {
      unmet.push_back(std::string(name) +
                      ": not supported: what a virtual machine behind this pod sends into the mesh is dropped");
    }
  }
  for (const auto name : {cni::kBypassInbound, cni::kDnsCapture}) {
    const auto found = pod.annotations.find(std::string(name));
    if (found != pod.annotations.end() && found->second != "true" && found->second != "false") {
      unmet.push_back(std::string(name) + ": " + in_quotes(found->second) + ": expected true or false");
    }
  }
  return unmet;
}

}  // namespace weft::kube
