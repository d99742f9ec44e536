// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cni-plugin/registration.h"
#include "cni-plugin/result.h"
#include "cni-plugin/veth.h"

/// Wiring one interface of a pod: netns prepared, registered with the agent, recorded, programs attached. ADD and CHECK
/// do it for the runtime; the agent does it for pods that are older than Weft, and mends what it finds broken.
namespace weft::cni {

/// One interface of a pod. Borrows the descriptor of its netns.
struct Wire {
  std::string bpf_root;
  std::string network;  ///< name of the network configuration list
  AttachmentKey key;
  int netns_fd = -1;
  PodInterface interface;
  std::vector<IpAddress> addresses;  ///< that the pod is found by
};

/// The agent, from the plugin's side or its own.
struct Registrar {
  std::function<CniResult<Reply>()> register_pod;
  std::function<void()> unregister_pod;
};

/// The addresses that the pod is found by: what prevResult gives to its interface, or else what the interface has.
/// Logs where the two differ; `who` names the pod there.
[[nodiscard]] std::vector<IpAddress> choose_addresses(std::vector<IpAddress> given, const PodInterface& interface,
                                                      const std::string& who);

/// All of it in the order that keeps the pod closed; on failure what this call did is undone, last first. The calling
/// thread is in the host's netns before and after. Errors: kWiring, kAttach, and those of register_pod. Gives the
/// agent's reply.
CniResult<Reply> wire(const Wire& wire, const Registrar& registrar);

/// Brings everything but the registration into place again, without undoing anything: what works stays. Errors as
/// above.
CniResult<void> rewire(const Wire& wire);

/// Takes programs, pins and the record off. The record goes last: as long as it is there GC tries again.
Result<void> unwire(const std::string& bpf_root, const AttachmentKey& key);

/// What is wrong with the pod as the kernel shows it, one text each: rules, routes, programs. Empty: all is well.
Result<std::vector<std::string>> wiring_findings(const Wire& wire);

}  // namespace weft::cni
