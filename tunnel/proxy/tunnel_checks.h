// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound.h"

/// Live tunnels are looked at again when what their handshake relied on has changed. On the worker's thread.
namespace weft::proxy {

/// Cuts the tunnels of which either end's chain is revoked now, first the connections in them, which end as
/// CERT_REVOKED.
void cut_revoked(WorkerContext& worker, InboundTunnels& inbound);

/// Drains the tunnels whose peer hangs on a root that this side's identity does not have any more: what is in them
/// lives on, and whoever comes next proves himself to the roots of today.
void drain_untrusted(WorkerContext& worker, InboundTunnels& inbound);

}  // namespace weft::proxy
