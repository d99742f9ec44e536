// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cni-plugin/conf.h"
#include "cni-plugin/environment.h"
#include "cni-plugin/netns.h"
#include "cni-plugin/result.h"
#include "cni-plugin/wiring.h"

/// The verbs, one function each, and what they share. A verb gives what belongs on stdout.
namespace weft::cni {

/// One validated call.
struct Call {
  const Environment& environment;
  const Conf& conf;
  PodIdentity pod;

  [[nodiscard]] AttachmentKey key() const { return {environment.container_id, environment.if_name}; }
  /// `namespace=… pod=… container=… interface=…` for log lines.
  [[nodiscard]] std::string who() const;
};

CniResult<std::string> add(const Call& call);
CniResult<std::string> check(const Call& call);
CniResult<std::string> del(const Call& call);
CniResult<std::string> gc(const Call& call);
CniResult<std::string> status(const Call& call);

/// The pod's netns for ADD and CHECK. Errors: kInvalidConfig when it is missing or something else (not the
/// specification's code 3, on which a runtime may leave DEL out), kInvalidNetns when it is the plugin's own.
CniResult<Netns> pod_netns(const Call& call);

/// The pod as prevResult and the kernel show it, for ADD and CHECK.
struct PodLook {
  Netns netns;
  std::vector<IpAddress> given;    ///< what prevResult gives to the pod's interface
  Result<PodInterface> interface;  ///< or why there is none that can be wired
};
/// Errors: those of pod_netns, and kInvalidConfig for a malformed prevResult.
CniResult<PodLook> look_at_pod(const Call& call);

/// What ADD wires and CHECK verifies: a pod whose interface was found.
[[nodiscard]] Wire wire_of(const Call& call, const PodLook& pod, std::vector<IpAddress> addresses);

/// Asks the agent. Errors: kTryAgainLater when it is away, too slow or not ready; kAgentVersion; kRefused with the
/// agent's own words. Notes of the agent are logged.
CniResult<Reply> ask_agent(const Call& call, const Request& request);

/// The request that every verb starts from.
[[nodiscard]] Request request_for(const Call& call, Verb verb);

}  // namespace weft::cni
