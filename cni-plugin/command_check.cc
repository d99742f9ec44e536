// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "bpf/attach.h"
#include "cni-plugin/call.h"
#include "cni-plugin/pod_routing.h"
#include "cni-plugin/veth.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

/// What is wrong with the pod as the kernel shows it, one text each.
Result<std::vector<std::string>> kernel_findings(const Call& call, const Netns& netns, const PodInterface& interface,
                                                 bool needs_v6) {
  auto findings = verify_netns(netns.fd.get(), needs_v6);
  if (!findings) return findings;
  auto programs =
      bpf::verify({.root = call.conf.bpf_root,
                   .attachment = bpf::attachment_id(call.environment.container_id, call.environment.if_name),
                   .pod_netns = netns.fd.get(),
                   .ifindex = interface.ifindex,
                   .host_ifindex = interface.host_ifindex});
  if (!programs) return programs;
  findings->insert(findings->end(), programs->begin(), programs->end());
  return findings;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : "; ") + text;
  return out;
}

}  // namespace

CniResult<std::string> check(const Call& call) {
  if (call.conf.excludes(call.pod.pod_namespace)) return std::string();
  auto netns = pod_netns(call);
  if (!netns) return tl::unexpected<CniError>(std::move(netns.error()));
  auto given = pod_addresses(*call.conf.prev_result, call.environment.if_name);
  if (!given) return tl::unexpected<CniError>(std::move(given.error()));
  auto interface = find_pod_interface(netns->fd.get(), call.environment.if_name);
  if (!interface) {
    const bool unsupported = interface.error().code == ErrorCode::kUnsupported;
    if (unsupported && call.conf.unsupported_interface == UnsupportedInterface::kPass) return std::string();
    return refuse(Code::kCheckFailed, interface.error().message());
  }
  const auto& addresses = given->empty() ? interface->addresses : *given;
  const bool unaddressed = addresses.empty() && call.conf.unsupported_interface == UnsupportedInterface::kPass;
  if (unaddressed) return std::string();
  auto findings = kernel_findings(call, *netns, *interface, std::ranges::any_of(addresses, &IpAddress::is_v6));
  if (!findings) return refuse(Code::kCheckFailed, "check the pod: " + findings.error().message());
  if (!findings->empty()) {
    return refuse(Code::kCheckFailed, "the pod is not captured as it should be: " + findings->front(),
                  joined(*findings));
  }
  Request request = request_for(call, Verb::kCheck);
  request.netns_inode = netns->inode;
  auto reply = ask_agent(call, request);
  if (!reply) return tl::unexpected<CniError>(std::move(reply.error()));
  return std::string();
}

CniResult<std::string> status(const Call& call) {
  auto attachments = bpf::attachments(call.conf.bpf_root);
  auto reply = ask_agent(call, request_for(call, Verb::kStatus));
  if (!reply) {
    if (call.conf.failure_policy == FailurePolicy::kOpen && reply.error().code == Code::kTryAgainLater) {
      log::warn("agent away: pods start outside the mesh (failurePolicy open) reason={}",
                log::quote(reply.error().msg));
      return std::string();
    }
    // Pods that are wired already wait for the agent with new connections.
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
