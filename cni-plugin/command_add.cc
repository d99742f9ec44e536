// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "cni-plugin/call.h"
#include "tunnel/base/fault.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

/// A pod that will not be wired: the chain goes on as if we were not there, and the log says so.
std::string pass(const Call& call) { return result_document(*call.conf.prev_result, call.conf.cni_version); }

/// The registration request for the pod.
CniResult<Reply> register_pod(const Call& call, const PodLook& pod, const Wire& wire) {
  Request request = request_for(call, Verb::kRegister);
  request.netns = call.environment.netns;
  request.pod_namespace = call.pod.pod_namespace;
  request.pod_name = call.pod.name;
  request.pod_uid = call.pod.uid;
  request.addresses = wire.addresses;
  request.annotations = call.conf.annotations;
  request.ifindex = wire.interface.ifindex;
  request.host_ifindex = wire.interface.host_ifindex;
  request.netns_fd.reset(::fcntl(pod.netns.fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!request.netns_fd) return refuse(Code::kWiring, "duplicate the descriptor of CNI_NETNS: out of descriptors");
  return ask_agent(call, request);
}

CniResult<std::string> unsupported(const Call& call, const std::string& why) {
  if (call.conf.unsupported_interface == UnsupportedInterface::kPass) {
    log::warn("pod not in the mesh: interface unsupported {} reason={}", call.who(), log::quote(why));
    return pass(call);
  }
  return refuse(Code::kUnsupportedInterface, why,
                "set unsupportedInterface to pass to start such pods outside the mesh, or exclude their namespace");
}

/// What follows from an agent that is away, by the configured policy.
CniResult<std::string> agent_away(const Call& call, CniError error) {
  if (call.conf.failure_policy == FailurePolicy::kClosed) {
    error.details = "the pod is not started outside the mesh while failurePolicy is closed; the runtime tries again";
    return tl::unexpected<CniError>(std::move(error));
  }
  log::warn("pod not in the mesh: agent away and failurePolicy open {} reason={}", call.who(), log::quote(error.msg));
  // A log file must not be the only place that tells of a pod outside the mesh.
  if (!call.conf.log_file.empty()) {
    std::fprintf(stderr, "weft-cni: pod not in the mesh: agent away and failurePolicy open: %s\n", error.msg.c_str());
  }
  return pass(call);
}

}  // namespace

CniResult<std::string> add(const Call& call) {
  const auto start = std::chrono::steady_clock::now();
  // Before anything that can block or fail: the agent's own pod and what it depends on are in these namespaces.
  if (call.conf.excludes(call.pod.pod_namespace)) {
    log::info("pod not in the mesh: namespace excluded {}", call.who());
    return pass(call);
  }
  auto pod = look_at_pod(call);
  if (!pod) return tl::unexpected<CniError>(std::move(pod.error()));
  if (!pod->interface) {
    const Error& error = pod->interface.error();
    if (error.code == ErrorCode::kUnsupported) return unsupported(call, error.message());
    return refuse(Code::kWiring, "look at the pod's interface: " + error.message());
  }
  const PodInterface& interface = *pod->interface;
  auto addresses = choose_addresses(std::move(pod->given), interface, call.who());
  if (addresses.empty()) {
    return unsupported(
        call, "the pod's interface " + call.environment.if_name + " has no address, in prevResult and in the kernel");
  }
  const Wire wire = wire_of(call, *pod, std::move(addresses));
  auto reply =
      cni::wire(wire, {.register_pod = [&] { return register_pod(call, *pod, wire); },
                       .unregister_pod = [&] { (void)ask_agent(call, request_for(call, Verb::kUnregister)); }});
  if (!reply) {
    if (reply.error().code == Code::kTryAgainLater) return agent_away(call, std::move(reply.error()));
    return tl::unexpected<CniError>(std::move(reply.error()));
  }
  if (fault_at("result")) return refuse(Code::kIo, "write the result: made to fail");
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  log::info("pod wired {} host_interface={} enrolled={} duration_us={}", call.who(), interface.host_name,
            reply->enrolled, us.count());
  return pass(call);
}

}  // namespace weft::cni
