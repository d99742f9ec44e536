// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/selection.h"
#include "bpf/loader.h"
#include "tunnel/base/ip.h"
#include "tunnel/state/state.h"

namespace weft::agent {

/// What is known of a wired pod.
struct PodFacts {
  std::string namespace_name, name;
  std::vector<IpAddress> addresses;
  /// Those of the interface in question where it is another than the pod's first one.
  std::vector<IpAddress> interface_addresses = {};
  bool inbound_bypass = false;  ///< asked for by annotation: its plaintext is let in without a look at policies
  /// Of whoever selects the pods; empty where the workloads alone say which are in the mesh.
  std::optional<Selection> selection = {};
  std::string expected_uid = {};  ///< of its workload, where it is selected
};

/// Whether a wired pod belongs to the mesh.
struct Decision {
  enum class Kind {
    kEnrol,    ///< it is `workload`
    kPlain,    ///< it is wired and left alone
    kRefused,  ///< it says it is a workload and cannot be: its addresses are others
    kPending,  ///< nothing was heard from the control plane yet, or not of it: captured, and its connections wait
  } kind = Kind::kPlain;
  state::WorkloadPtr workload;  ///< set for kEnrol and kRefused
  std::string workload_uid =
      {};  ///< what it is enrolled as; for kPending what it is expected to be, where that is known
  /// What policy makes of plaintext, as far as it can be said before it comes: for all but kPlain.
  bpf::InboundPlaintext inbound = bpf::InboundPlaintext::kPass;
  std::string reason;  ///< in words, for people
};

/// The policy of enrolment. Pure. A pod is enrolled when its namespace/name is a workload with protocol HBONE whose
/// node is `node` or empty; a workload that terminates HBONE itself, or that lives in the host's network, is not.
/// `state` is null before the first one. Where the pods are selected by somebody else a selected pod is enrolled as the
/// workload of its name and addresses, whatever protocol that has, and waits for it where it is not there yet.
[[nodiscard]] Decision decide(const state::State* state, const PodFacts& pod, std::string_view node);

}  // namespace weft::agent
