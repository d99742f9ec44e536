// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::agent {

/// A connection in plaintext that reached a pod's application past the agent and was cut, with the rule that denies it.
struct CutConnection {
  Endpoint application, client;
  std::string rule;
};

/// The rule that denies a connection now, empty where none does.
using DeniedBy = std::function<std::string(const Endpoint& application, const Endpoint& client)>;

/// Resets the live connections of a pod's netns that `denied_by` has a rule for: TCP to a port that something listens
/// on there, from outside of the pod. Left alone are the agent's own sockets, what they carry to the application, and
/// what comes from a process of the calling thread's netns (the node's own, which no policy is asked about). Errors:
/// the kernel does not list sockets or does not end them (kUnsupported: CONFIG_INET_DIAG_DESTROY).
Result<std::vector<CutConnection>> cut_live_plaintext(int netns_fd, const DeniedBy& denied_by);

/// A connection between a pod's application and the mesh that no agent carries: older than the pod's enrolment, or let
/// in because no policy had anything to say of it.
struct PlainConnection {
  bool inbound = false;
  Endpoint application, peer;
};

/// Whether the mesh captures connections to the address.
using IsMesh = std::function<bool(const IpAddress&)>;

/// Those of a pod's netns that are live; `end` resets them, too. Errors: as above.
Result<std::vector<PlainConnection>> plain_connections(int netns_fd, const IsMesh& is_mesh, bool end);

}  // namespace weft::agent
