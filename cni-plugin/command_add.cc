// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <utility>

#include "bpf/attach.h"
#include "cni-plugin/call.h"
#include "cni-plugin/pod_routing.h"
#include "cni-plugin/records.h"
#include "cni-plugin/veth.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

/// Undoes the steps that were done, last first, unless all went well.
class Undo {
 public:
  Undo() = default;
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  ~Undo() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
  }
  void push(std::function<void()> step) { steps_.push_back(std::move(step)); }
  void keep() { steps_.clear(); }

 private:
  std::vector<std::function<void()>> steps_;
};

/// A pod that will not be wired: the chain goes on as if we were not there, and the log says so.
std::string pass(const Call& call) { return result_document(*call.conf.prev_result, call.conf.cni_version); }

/// The addresses that the pod is found by: what prevResult gives to its interface, or else what the interface has.
std::vector<IpAddress> choose_addresses(const Call& call, std::vector<IpAddress> given, const PodInterface& interface) {
  if (given.empty()) return interface.addresses;
  const auto warn_without = [&](const auto& some, const auto& others, const char* where) {
    for (const IpAddress& address : some) {
      if (std::ranges::find(others, address) != others.end()) continue;
      log::warn("address {} {} address={}", where, call.who(), address.to_string());
    }
  };
  warn_without(given, interface.addresses, "of prevResult is not on the interface");
  // TCP from it will be dropped: the pod does not own it as far as the mesh knows.
  warn_without(interface.addresses, given, "of the interface is not in prevResult");
  return given;
}

/// The steps of ADD behind the checks, in order; each is undone when a later one fails.
class Wiring {
 public:
  Wiring(const Call& call, const Netns& netns, const PodInterface& interface, std::vector<IpAddress> addresses)
      : call_(call), netns_(netns), interface_(interface), addresses_(std::move(addresses)) {}

  /// True when the agent has enrolled the pod.
  CniResult<bool> run() {
    if (auto prepared = prepare(); !prepared) return tl::unexpected<CniError>(std::move(prepared.error()));
    auto reply = register_pod();
    if (!reply) return tl::unexpected<CniError>(std::move(reply.error()));
    if (auto attached = attach(); !attached) return tl::unexpected<CniError>(std::move(attached.error()));
    undo_.keep();
    return reply->enrolled;
  }

 private:
  CniResult<void> prepare() {
    const int netns = netns_.fd.get();
    const bool needs_v6 = std::ranges::any_of(addresses_, &IpAddress::is_v6);
    const auto v4 = std::ranges::find_if(interface_.addresses, &IpAddress::is_v4);
    const auto source = v4 != interface_.addresses.end() ? std::optional(*v4) : std::nullopt;
    auto changes = prepare_netns(netns, needs_v6, source);
    if (!changes) return refuse(Code::kWiring, "prepare the pod's network namespace: " + changes.error().message());
    undo_.push([netns, made = *changes] { revert_netns(netns, made); });
    auto problems = verify_netns(netns, needs_v6);
    if (!problems) return refuse(Code::kWiring, "verify the pod's network namespace: " + problems.error().message());
    if (problems->empty()) return {};
    return refuse(Code::kWiring, "prepare the pod's network namespace: " + problems->front(),
                  "does another plugin of the chain set up rules or routes of its own?");
  }

  CniResult<Reply> register_pod() {
    Request request = request_for(call_, Verb::kRegister);
    request.netns = call_.environment.netns;
    request.pod_namespace = call_.pod.pod_namespace;
    request.pod_name = call_.pod.name;
    request.pod_uid = call_.pod.uid;
    request.addresses = addresses_;
    request.ifindex = interface_.ifindex;
    request.host_ifindex = interface_.host_ifindex;
    request.netns_fd.reset(::fcntl(netns_.fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!request.netns_fd) return refuse(Code::kWiring, "duplicate the descriptor of CNI_NETNS: out of descriptors");
    auto reply = ask_agent(call_, request);
    if (reply) {
      undo_.push([this] { (void)ask_agent(call_, request_for(call_, Verb::kUnregister)); });
    }
    return reply;
  }

  CniResult<void> attach() {
    const std::string& root = call_.conf.bpf_root;
    auto recorded = write_record(root, {call_.conf.name, call_.key()});
    if (!recorded) return refuse(Code::kAttach, recorded.error().message());
    if (*recorded) {
      undo_.push([this] { (void)remove_record(call_.conf.bpf_root, call_.key()); });
    }
    auto attached =
        bpf::attach({.root = root,
                     .attachment = bpf::attachment_id(call_.environment.container_id, call_.environment.if_name),
                     .pod_netns = netns_.fd.get(),
                     .ifindex = interface_.ifindex,
                     .host_ifindex = interface_.host_ifindex});
    if (!attached) return refuse(Code::kAttach, "attach the capture programs: " + attached.error().message());
    return {};
  }

  const Call& call_;
  const Netns& netns_;
  const PodInterface& interface_;
  std::vector<IpAddress> addresses_;
  Undo undo_;  // last: its steps use the members above
};

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
  auto netns = pod_netns(call);
  if (!netns) return tl::unexpected<CniError>(std::move(netns.error()));
  auto given = pod_addresses(*call.conf.prev_result, call.environment.if_name);
  if (!given) return tl::unexpected<CniError>(std::move(given.error()));
  auto interface = find_pod_interface(netns->fd.get(), call.environment.if_name);
  if (!interface) {
    if (interface.error().code == ErrorCode::kUnsupported) return unsupported(call, interface.error().message());
    return refuse(Code::kWiring, "look at the pod's interface: " + interface.error().message());
  }
  auto addresses = choose_addresses(call, std::move(*given), *interface);
  if (addresses.empty()) {
    return unsupported(
        call, "the pod's interface " + call.environment.if_name + " has no address, in prevResult and in the kernel");
  }
  auto enrolled = Wiring(call, *netns, *interface, std::move(addresses)).run();
  if (!enrolled) {
    if (enrolled.error().code == Code::kTryAgainLater) return agent_away(call, std::move(enrolled.error()));
    return tl::unexpected<CniError>(std::move(enrolled.error()));
  }
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  log::info("pod wired {} host_interface={} enrolled={} duration_us={}", call.who(), interface->host_name, *enrolled,
            us.count());
  return pass(call);
}

}  // namespace weft::cni
