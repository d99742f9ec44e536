// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/base/ip.h"
#include "tunnel/state/identity.h"
#include "tunnel/state/service.h"
#include "tunnel/state/workload.h"

namespace weft::telemetry {

enum class Reporter : std::uint8_t { kSource, kDestination };

/// Why a connection ended badly, as Istio's response_flags label spells it (kNone is "-").
enum class ResponseFlag : std::uint8_t {
  kNone,
  kDeny,                ///< DENY
  kConnect,             ///< CONNECT: the next hop refused or timed out
  kTlsFailure,          ///< TLS_FAILURE
  kH2HandshakeFailure,  ///< H2_HANDSHAKE_FAILURE
  kNetworkPolicy,       ///< NETWORK_POLICY: the connect to 15008 timed out, probably blocked
  kIdentityError,       ///< IDENTITY_ERROR: no certificate for the workload, or the peer's is not acceptable
  kCertRevoked,         ///< CERT_REVOKED
  kOverflow,            ///< UO, as Envoy calls it: a limit of the agent's own
  kUnregistered,        ///< UH, as Envoy says of Istio's BlackHoleCluster: only the registry is allowed
};
[[nodiscard]] const char* to_string(ResponseFlag flag);

/// One end of a connection, as far as it is known.
struct Party {
  Endpoint endpoint;
  std::shared_ptr<const state::Workload> workload;  ///< null where unknown
  std::optional<state::Identity> identity;          ///< proven by TLS, never guessed
};

/// What policy said of a connection.
struct PolicyDecision {
  bool allowed = true;
  /// The policy that decided ("namespace/name"), or a word without "/" where it was none: "none" (nothing had anything
  /// against it), "no_allow_matched", "unknown_workload".
  std::string rule;
  std::vector<std::string> dry_run_hits;  ///< policies marked dryRun that would have decided otherwise
};

/// Everything about one connection that is logged and counted; made when the connection is accepted, recorded exactly
/// once when it ends. Owner: the connection.
struct ConnectionResult {
  Reporter reporter = Reporter::kSource;
  Party source, destination;
  std::shared_ptr<const state::Service> service;  ///< the service dialled, null where none
  Endpoint hbone;                                 ///< the tunnel's far end, unset where none
  bool mutual_tls = false;           ///< carried by TLS with both certificates, or failed on the way to that
  std::uint64_t bytes_sent = 0;      ///< from the source to the destination
  std::uint64_t bytes_received = 0;  ///< from the destination to the source
  SteadyTime started;
  SteadyTime ended;
  ResponseFlag flag = ResponseFlag::kNone;
  std::string error;                       ///< the reason in words, empty where it ended well
  std::optional<PolicyDecision> decision;  ///< the last one; none at the source, which asks no policies
  std::string traceparent;                 ///< as the CONNECT carried it
};

}  // namespace weft::telemetry
