// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <tl/expected.hpp>

#include "tunnel/hbone/headers.h"
#include "tunnel/proxy/worker.h"
#include "tunnel/state/state.h"

namespace weft::proxy {

/// Where a CONNECT into a pod leads.
struct InboundTarget {
  Endpoint asked;             ///< what the peer wants to reach; a VIP of the service that it named
  Endpoint application;       ///< the pod's own address and port that the connection is for: what policies see
  Endpoint dialled;           ///< where the application listens for it
  bool proxy_header = false;  ///< it wants to be told of `asked` by the PROXY protocol
  state::ServicePtr service;  ///< that the pod is a waypoint of and that was asked for; null otherwise
};

struct InboundRefusal {
  int status = 400;
  std::string why;
  /// It is asked for what is behind a waypoint, which it may be by another snapshot: the nodes do not hear of changes
  /// at the same time.
  bool may_change = false;
};

/// A pod may be asked for its own addresses; a waypoint also for what it is the waypoint of, services by VIP or
/// hostname and workloads by address. With an application tunnel all of it goes to that tunnel's port, without one to
/// the port that was asked for. Those that speak the PROXY protocol are dialled on loopback, as ztunnel does: what
/// listens there alone cannot be told lies by others. `at` is the pod's address that the tunnel came to. `own` and
/// `state` may be null: then the pod's addresses alone are right. Pure.
[[nodiscard]] tl::expected<InboundTarget, InboundRefusal> inbound_target(const state::State* state,
                                                                         const state::Workload* own,
                                                                         const PodContext& pod, const IpAddress& at,
                                                                         const std::string& authority);

}  // namespace weft::proxy
