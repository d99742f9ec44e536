// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/enrolment_policy.h"
#include "agent/netns.h"
#include "bpf/loader.h"
#include "cni-plugin/registration.h"
#include "tunnel/base/ip.h"

namespace weft::agent {

/// What a registration said, and what a restarted agent needs to take the pod up again: the content of a record.
struct Registration {
  cni::AttachmentKey key;
  std::string netns_path;
  NetnsId netns_id;
  std::string pod_namespace, pod_name, pod_uid;
  std::vector<IpAddress> addresses;
  std::uint32_t ifindex = 0;       ///< in the pod
  std::uint32_t host_ifindex = 0;  ///< of the peer on the host, 0 where there is none
  std::uint32_t slot = 0;
  std::string workload_uid;  ///< what it is enrolled as; empty where it is not
  bool enrolled = false;

  [[nodiscard]] std::string pod() const { return pod_namespace + "/" + pod_name; }
  [[nodiscard]] PodFacts facts() const { return {pod_namespace, pod_name, addresses}; }
};

/// A wired pod of this node, as enrolment keeps it.
struct Attachment {
  Registration registration;
  std::shared_ptr<const Fd> netns;
  /// Whether netns_path led to the netns when it was registered: only then does its going mean that the pod has gone.
  bool path_watched = false;
  bool listening = false;  ///< the workers have its listeners
  bpf::InboundPlaintext inbound = bpf::InboundPlaintext::kPass;
  Decision::Kind kind = Decision::Kind::kPlain;  ///< of the last decision
  std::string reason;                            ///< of the last decision
};

}  // namespace weft::agent
