// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "agent/kube/objects.h"

namespace weft::kube {

struct Ruling {
  bool enrolled = false;
  std::string reason;  ///< a sentence, for people
};

/// What a pod is to be whatever its namespace says: in that namespace no pod is ever enrolled.
[[nodiscard]] bool is_excluded(const std::string& namespace_name, const std::vector<std::string>& excluded);

/// Which pods belong to the mesh, as Istio's ambient mode has it. Pure. A pod that is selected (its own label, or its
/// namespace's where its own does not say `none`) is enrolled, unless it is in the host's network, has a sidecar, is in
/// an excluded namespace or has finished.
[[nodiscard]] Ruling rule(const Pod& pod, const Namespace& of, const std::vector<std::string>& excluded);

/// What the pod's annotations ask for and Weft does not do; one sentence each.
[[nodiscard]] std::vector<std::string> unmet_wishes(const Pod& pod);

}  // namespace weft::kube
