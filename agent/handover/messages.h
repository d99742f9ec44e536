// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "agent/data_plane.h"
#include "agent/handover/channel.h"
#include "tunnel/base/clock.h"
#include "tunnel/state/identity.h"

/// What two agents of a node say to each other when one takes over from the other. The successor asks, the predecessor
/// answers:
///
///     handover {protocol, version, pid}   welcome: who it is, and what certificates its pods need; or refused
///     hold                                it stops accepting and changing anything, and gives its estate: listeners,
///                                         sockets, and the agents before it that still have connections
///     retire                              it lets go of the estate and keeps its connections
///     status, connections, metrics,       as long as it lives
///     forget {slot}
///
/// Until "retire" the predecessor goes on as if nothing had been when the successor ends or is silent.
namespace weft::agent {

inline constexpr int kHandoverProtocol = 1;

/// One of the agents that share a node: the one that runs it, or one before it that still has connections.
struct Generation {
  std::uint32_t number = 1;  ///< counts takeovers since the last start from nothing
  std::string version;
  std::int64_t pid = 0;
  WallTime started{};
  proxy::WorkerLoad load;
};

struct Welcome {
  Generation generation;
  std::vector<state::Identity> identities;  ///< of the enrolled pods
};

/// A descriptor that another agent is given, by what it is for.
struct NamedSocket {
  std::string name;
  Fd fd;
};
struct NamedPredecessor {
  Generation generation;
  Fd channel;
};
struct Estate {
  HeldByWorker listeners;
  std::vector<NamedSocket> sockets;
  std::vector<NamedPredecessor> predecessors;
  nlohmann::json ended_metrics;  ///< what agents that have ended had counted, see metrics_merge.h
};

[[nodiscard]] nlohmann::json to_json(const Generation& generation);
/// Errors of these: nlohmann::json::exception.
[[nodiscard]] Generation generation_from(const nlohmann::json& body);
[[nodiscard]] nlohmann::json to_json(const Welcome& welcome);
[[nodiscard]] Welcome welcome_from(const nlohmann::json& body);
[[nodiscard]] nlohmann::json to_json(const proxy::ConnectionInfo& connection);
[[nodiscard]] proxy::ConnectionInfo connection_from(const nlohmann::json& body);

/// Sends the estate in as many messages as it takes, and receives it. Errors: those of the channel, kInvalid.
Result<void> send_estate(const HandoverChannel& channel, const Estate& estate, milliseconds timeout);
Result<Estate> receive_estate(const HandoverChannel& channel, milliseconds timeout);

/// Calls `read`, which may throw what a message of another shape makes it throw; kInvalid then.
template <class Read>
auto understood(const char* what, Read read) -> Result<decltype(read())> {
  try {
    return read();
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorCode::kInvalid, std::string("handover: ") + what + ": " + e.what());
  }
}

}  // namespace weft::agent
