// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tunnel/base/error.h"

namespace weft::bpf {

/// One attachment: a pod's interface and its peer on the host. Names and ifindexes are as seen in their own netns.
struct Target {
  std::string root;                ///< Settings::root
  std::string attachment;          ///< attachment_id(): the folder of the pins below root/links
  int pod_netns = -1;              ///< borrowed descriptor of the pod's netns
  std::uint32_t ifindex = 0;       ///< eth0 in the pod
  std::uint32_t host_ifindex = 0;  ///< the host side, in the calling thread's netns; 0: the pod stays unguarded
  /// New hooks become clsact filters although the kernel has TCX: a link waits for a grace period of RCU (4 to 15 ms),
  /// a filter does not. For ADD, which promote() follows. Where another qdisc is in the way it is a link all the same.
  bool as_filters = false;
};

/// The name of an attachment's pins, from the CNI container ID and interface name: unique, stable, and made of
/// characters that bpffs takes (it refuses dots).
[[nodiscard]] std::string attachment_id(const std::string& container_id, const std::string& if_name);

/// Attaches the pinned programs: from_pod and to_pod to the pod's interface, deliver to its lo, to_pod_host and guard
/// to the host side, each first in line; TCX links pinned under root/links/ATTACHMENT, or clsact filters where the
/// kernel has no TCX. Idempotent: an attachment of the current programs is left, an older one updated in place, a
/// defunct one replaced. On failure what this call attached is taken off again. The calling thread's netns is the same
/// afterwards. A clsact filter has no pin: a symbolic link in its place, to nowhere, keeps where it sits (clsact.h).
/// The attachments of one container share what sits on the pod's lo. A lock on the folder of the pins keeps calls for
/// one attachment apart, also those of other processes.
Result<void> attach(const Target& target);

/// Puts TCX links in the place of filters, without a moment without either. False: nothing was left to do, or the
/// kernel has no TCX. Errors: kNotFound where nothing is attached.
Result<bool> promote(const Target& target);

/// Takes off what attach put on, as far as it still exists. Never fails because something is already gone.
Result<void> detach(const std::string& root, const std::string& attachment);

/// Verifies against the kernel that every program is attached, is the pinned one and sits on the right interface. The
/// texts name each hook that is wrong; empty means all is well.
Result<std::vector<std::string>> verify(const Target& target);

/// Moves every attachment to the programs that are pinned now; takes away pins whose device is gone. For the agent
/// after it replaced the programs. The texts name each hook that could not be moved and why: it keeps its old program.
Result<std::vector<std::string>> refresh(const std::string& root);

/// Whether any program of the attachment still sits on a device.
Result<bool> is_alive(const std::string& root, const std::string& attachment);

/// The attachments that have pins now.
Result<std::vector<std::string>> attachments(const std::string& root);

}  // namespace weft::bpf
