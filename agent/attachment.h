// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/enrolment_policy.h"
#include "agent/netns.h"
#include "bpf/loader.h"
#include "cni-plugin/registration.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/ip.h"

namespace weft::agent {

/// What a registration said, and what a restarted agent needs to take the pod up again: the content of a record.
struct Registration {
  cni::AttachmentKey key;
  std::string netns_path;
  NetnsId netns_id;
  std::string pod_namespace, pod_name, pod_uid;
  std::vector<IpAddress> addresses;
  std::map<std::string, std::string> annotations;  ///< of the pod, those that Weft understands
  std::uint32_t ifindex = 0;                       ///< in the pod
  std::uint32_t host_ifindex = 0;                  ///< of the peer on the host, 0 where there is none
  std::uint32_t slot = 0;
  std::string workload_uid;  ///< what it is enrolled as; empty where it is not
  WallTime registered_at{};  ///< by weft-cni, or taken up; the epoch in records of 0.1, which do not say
  bool enrolled = false;
  /// Another interface of a pod that was registered by its first one: what that one is decides for it too.
  bool secondary = false;

  [[nodiscard]] std::string pod() const { return pod_namespace + "/" + pod_name; }
  [[nodiscard]] bool inbound_bypass() const {
    const auto found = annotations.find(std::string(cni::kBypassInbound));
    return found != annotations.end() && found->second == "true";
  }
  /// Whether its DNS is captured while it is in the mesh; `otherwise` where it does not say.
  [[nodiscard]] bool dns_capture(bool otherwise) const {
    const auto found = annotations.find(std::string(cni::kDnsCapture));
    if (found == annotations.end() || (found->second != "true" && found->second != "false")) return otherwise;
    return found->second == "true";
  }
  [[nodiscard]] PodFacts facts() const { return {pod_namespace, pod_name, addresses, {}, inbound_bypass()}; }
};

/// What was last seen of a pod from outside.
struct Observation {
  WallTime at{};                      ///< of the look; the epoch: there was none yet
  std::string by = {};                ///< what looked, and at what
  std::vector<std::string> problems;  ///< what is wrong with its wiring and could not be mended, one text each
  /// Its other interfaces with routes, which are not wired: what leaves by them is outside the mesh.
  std::vector<std::string> uncaptured;
  /// Those of them that the pod's annotation names as ways in for a virtual machine.
  std::vector<std::string> rerouted;
};

/// A wired pod of this node, as enrolment keeps it.
struct Attachment {
  Registration registration;
  std::shared_ptr<const Fd> netns;
  /// Whether netns_path led to the netns when it was registered: only then does its going mean that the pod has gone.
  bool path_watched = false;
  bool listening = false;  ///< the workers have its listeners
  /// The workload that they speak for: what lives of it goes on when the pod leaves the mesh.
  std::string listening_as;
  /// When it left the mesh, while peers that do not know yet still reach its HBONE listener.
  std::optional<SteadyTime> leaving_since;
  SteadyTime registered;  ///< or taken up
  bpf::InboundPlaintext inbound = bpf::InboundPlaintext::kPass;
  std::optional<bpf::Pod> in_map;                ///< what the map says, while it is taken up from a running agent
  Decision::Kind kind = Decision::Kind::kPlain;  ///< of the last decision
  std::string reason;                            ///< of the last decision
  Observation observation;                       ///< of the last reconciliation
};

}  // namespace weft::agent
