// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "test/istio/istio_envoy.h"

namespace weft::test {

/// A pod with a sidecar of istiod's: upstream Envoy in the place of Istio's own, to which the pod's traffic is
/// redirected as Istio's init container does it. It is not of the ambient mesh.
struct SidecarPod {
  Pod* pod = nullptr;
  std::unique_ptr<IstioEnvoy> envoy = {};
};
/// Makes one that serves on Pod::kPort, in a namespace that has what apply_sidecar_filters makes. `hbone`: it takes
/// HBONE on port 15008 itself and is known for it, otherwise it speaks plaintext to who has no sidecar.
SidecarPod add_istio_sidecar(Cluster& cluster, int node, const std::string& namespace_name, const std::string& name,
                             bool hbone, ClusterPod pod = {});
/// What has to be changed of istiod's configuration of the namespace's sidecars so that upstream Envoy takes it.
void apply_sidecar_filters(Cluster& cluster, const std::string& namespace_name);

}  // namespace weft::test
