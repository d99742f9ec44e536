// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bpf/attach.h"
#include "cni-plugin/call.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

std::string joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : "; ") + text;
  return out;
}

}  // namespace

CniResult<std::string> check(const Call& call) {
  if (call.conf.excludes(call.pod.pod_namespace)) return std::string();
  auto pod = look_at_pod(call);
  if (!pod) return tl::unexpected<CniError>(std::move(pod.error()));
  const bool may_pass = call.conf.unsupported_interface == UnsupportedInterface::kPass;
  if (!pod->interface) {
    if (may_pass && pod->interface.error().code == ErrorCode::kUnsupported) return std::string();
    return refuse(Code::kCheckFailed, pod->interface.error().message());
  }
  auto addresses = pod->given.empty() ? pod->interface->addresses : pod->given;
  if (may_pass && addresses.empty()) return std::string();
  auto findings = wiring_findings(wire_of(call, *pod, std::move(addresses)));
  if (!findings) return refuse(Code::kCheckFailed, "check the pod: " + findings.error().message());
  if (!findings->empty()) {
    return refuse(Code::kCheckFailed, "the pod is not captured as it should be: " + findings->front(),
                  joined(*findings));
  }
  Request request = request_for(call, Verb::kCheck);
  request.netns_inode = pod->netns.inode;
  auto reply = ask_agent(call, request);
  if (!reply) return tl::unexpected<CniError>(std::move(reply.error()));
  return std::string();
}

CniResult<std::string> status(const Call& call) {
  auto reply = ask_agent(call, request_for(call, Verb::kStatus));
  if (!reply) {
    if (call.conf.failure_policy == FailurePolicy::kOpen && reply.error().code == Code::kTryAgainLater) {
      log::warn("agent away: pods start outside the mesh (failurePolicy open) reason={}",
                log::quote(reply.error().msg));
      return std::string();
    }
    // Pods that are wired already wait for the agent with new connections.
    auto attachments = bpf::attachments(call.conf.bpf_root);
    const bool wired = attachments && !attachments->empty();
    return refuse(wired ? Code::kLimitedConnectivity : Code::kNotAvailable, reply.error().msg,
                  wired ? "pods of the mesh on this node cannot open new connections until the agent is back" : "");
  }
  const std::string programs = call.conf.bpf_root + "/programs";
  if (::access(programs.c_str(), F_OK) != 0) {
    return refuse(Code::kNotAvailable,
                  "the capture programs are not pinned: " + programs + ": " + ::strerrordesc_np(errno),
                  "is bpfRoot the same as the agent's?");
  }
  return std::string();
}

}  // namespace weft::cni
