// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "test/support/netns.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::test {

/// Handshakes of a peer, many at once; each tunnel is closed when it is open.
struct TunnelBurst {
  Endpoint gateway;  ///< podIP:15008
  int at_once = 100;
  int tunnels = 400;  ///< in all, those that fail included
};
struct TunnelBurstResult {
  int opened = 0, failed = 0;
  std::string first_failure;
};
/// Runs in the namespace, at most half a minute, with the lowest priority, so that it takes no CPU from the agent that
/// it attacks.
TunnelBurstResult run_burst(const Netns& from, const hbone::CertificateBundle& bundle,
                            const std::string& server_identity, const TunnelBurst& burst);

}  // namespace weft::test
