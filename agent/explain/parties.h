// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/explain/explain.h"

namespace weft::agent {

/// Who connects.
struct ExplainSource {
  enum class Capture : std::uint8_t {
    kNone,    ///< nothing of it is captured
    kMesh,    ///< what goes to the mesh is
    kClosed,  ///< what goes to the mesh is captured and ends there
  } capture = Capture::kNone;
  std::string name;                ///< "namespace/name", or an address
  std::string namespace_name;      ///< empty where it is not known
  std::string state;               ///< why `capture` is what it is
  const PodStatus* pod = nullptr;  ///< wired on this node
  state::WorkloadPtr workload;     ///< null where it is none
  std::vector<IpAddress> addresses;
  std::vector<std::string> notes;

  /// The first address of the family of `like`; unset where it has none.
  [[nodiscard]] IpAddress address_like(const IpAddress& like) const;
};
Result<ExplainSource> explain_source(const ExplainView& view, std::string_view from);

/// What is connected to. A service without a VIP is several, one for each endpoint: its name leads to their addresses.
struct ExplainTarget {
  std::vector<Endpoint> originals;
  std::string service;  ///< of a name without a VIP
  std::vector<std::string> notes;
};
Result<ExplainTarget> explain_target(const ExplainView& view, const ExplainSource& source, std::string_view to);

/// The wired pod of this node that has the address; null where there is none.
[[nodiscard]] const PodStatus* pod_at(const ExplainView& view, const IpAddress& address);

/// What enrolment on the workload's own node makes of it, if its pod there is as the configuration says.
[[nodiscard]] Decision decision_for(const ExplainView& view, const state::Workload& workload);

}  // namespace weft::agent
