// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/enrolment.h"
#include "tunnel/state/egress.h"
#include "tunnel/state/state.h"

namespace weft::agent {

/// What an explanation is made from: the snapshot and the pods of this node, as they are now.
struct ExplainView {
  const state::State& state;
  std::span<const PodStatus> pods;
  std::string node;
  std::string network;
  state::EgressPolicy egress = {};
  bool captures_all = false;  ///< also what is no mesh destination goes through the agent (Enrolment::captures_all)
  bool on_demand = false;     ///< the snapshot has only what the control plane was asked for
};

/// One place where the connection may end, with what would become of it there.
struct ExplainedEndpoint {
  std::string workload_uid;  ///< empty where the mesh does not know whose address it is
  std::string workload;      ///< namespace/name of it
  Endpoint target;           ///< the application's address and port
  Endpoint hbone;            ///< where the tunnel goes; unset where there is none
  std::string waypoint;      ///< that the workload belongs to; then `target` is what it is asked for. Empty otherwise
  std::uint64_t weight = 1;  ///< among the endpoints
  bool encrypted = false;
  bool allowed = true;
  std::string inbound;                ///< "pass", "check", "drop": what a pod in the mesh does with this plaintext
  std::string policy;                 ///< "namespace/name" of the policy that decided, empty where none did
  std::string reason;                 ///< why it is allowed or not
  std::vector<std::string> dry_runs;  ///< policies marked dryRun that would have decided otherwise
};

enum class ExplainedOutcome : std::uint8_t { kAllowed, kRefused, kMixed };

/// What would become of a connection, and why.
struct Explanation {
  std::string source;           ///< "namespace/name", or the address that was asked for
  std::string source_uid;       ///< workload; empty where there is none
  std::string source_identity;  ///< that it would prove; empty where it is not in the mesh
  std::string source_state;     ///< in words: in the mesh or not, and since what says so
  IpAddress source_address;     ///< of the destination's family; unset where it has none
  std::string destination;      ///< as it was asked for
  Endpoint original;            ///< what the application connects to
  std::string service;          ///< "namespace/hostname" of the service that the address stands for, or empty
  bool captured = false;
  std::string capture;                       ///< why it is captured or not
  std::vector<ExplainedEndpoint> endpoints;  ///< none where `refusal` is set
  std::string refusal;                       ///< why it is refused before an endpoint was chosen
  std::vector<std::string> notes;            ///< what the reader should know besides

  [[nodiscard]] ExplainedOutcome outcome() const;
  /// All of its endpoints are reached through a tunnel.
  [[nodiscard]] bool encrypted() const;
};

[[nodiscard]] const char* to_string(ExplainedOutcome outcome);

/// Says what would become of a connection. `from` is NAMESPACE/POD or an address; `to` is ADDRESS:PORT,
/// NAMESPACE/POD:PORT, or a service's HOSTNAME:PORT, NAME.NAMESPACE:PORT, or NAME:PORT in the source's namespace. Where
/// a name has several addresses, one of a family that the source has is taken, IPv4 first. Decides by what decides for
/// real: State::mesh_addresses and route, evaluate, enrolment's decide. What happens on other nodes follows from the
/// configuration, as if they were in order. Pure. Errors: kInvalid (cannot be understood), kNotFound (no such pod or
/// service).
[[nodiscard]] Result<Explanation> explain(const ExplainView& view, std::string_view from, std::string_view to);

}  // namespace weft::agent
