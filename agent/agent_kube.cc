// SPDX-License-Identifier: Apache-2.0
// The agent's part in enrolment by the Kubernetes API: what the enroller asks of it and tells it.
#include <algorithm>

#include "agent/agent_impl.h"
#include "cni-plugin/veth.h"
#include "cni-plugin/wiring.h"

namespace weft::agent {

void Agent::Impl::make_enroller(EnrolmentConfig& settings) {
  if (!config.kubernetes) return;
  kube::EnrollerConfig own;
  own.api = config.kubernetes->api;
  own.node = config.node;
  own.excluded_namespaces = config.kubernetes->exclude_namespaces;
  enroller = std::make_unique<kube::Enroller>(std::move(own));
  settings.cluster_id = config.cluster_id;
  settings.select = [this](const std::string& namespace_name, const std::string& pod, const std::string& uid) {
    return enroller->select(namespace_name, pod, uid);
  };
}

void Agent::Impl::start_enroller() {
  if (!enroller) return;
  enroller->start({.synced = [this] { reconciler->wake(); },
                   .reselect = [this] { enrolment->reselect(); },
                   .wired =
                       [this] {
                         std::vector<kube::WiredState> all;
                         for (const auto& pod : enrolment->wired()) {
                           const Registration& r = pod.registration;
                           all.push_back({.namespace_name = r.pod_namespace,
                                          .name = r.pod_name,
                                          .uid = r.pod_uid,
                                          .captured = pod.captured,
                                          .problem = pod.captured ? "" : pod.reason});
                         }
                         return all;
                       },
                   .not_in_place = [this](const kube::WiredState& pod) { return not_in_place(pod); },
                   .not_wired =
                       [this](const std::string& namespace_name, const std::string& name) {
                         const auto unwired = reconciler->unwired();
                         const auto found = std::ranges::find_if(unwired, [&](const UnwiredPod& one) {
                           return one.pod.pod_namespace == namespace_name && one.pod.name == name;
                         });
                         return found == unwired.end() ? std::string() : found->reason;
                       }});
}

/// Programs, rules and routes are the plugin's part, after the registration.
std::string Agent::Impl::not_in_place(const kube::WiredState& asked) const {
  for (const auto& pod : enrolment->wired()) {
    const Registration& r = pod.registration;
    if (r.pod_namespace != asked.namespace_name || r.pod_name != asked.name) continue;
    auto interface = cni::find_pod_interface(pod.netns->get(), r.key.if_name);
    if (!interface) return interface.error().message();
    const auto findings = cni::wiring_findings({config.bpf_root, "", r.key, pod.netns->get(), *interface, r.addresses});
    if (!findings) return findings.error().message();
    if (!findings->empty()) return findings->front();
  }
  return {};
}

cni::Reply Agent::Impl::handle_registration(cni::Request request) {
  if (enroller && request.verb == cni::Verb::kRegister) {
    if (auto admitted = enroller->admit(request); !admitted) {
      cni::Reply reply;
      reply.error = admitted.error();
      return reply;
    }
  }
  auto reply = enrolment->handle(std::move(request));
  if (reply.created) reconciler->pod_registered();
  return reply;
}

/// Those that the API wants in the mesh and that are not, whether they are wired or not.
void Agent::Impl::add_uncaptured(std::vector<PodStatus>& pods) const {
  if (!enroller) return;
  for (auto& missing : enroller->uncaptured()) {
    const auto known = std::ranges::find_if(pods, [&](const PodStatus& pod) {
      return pod.registration.pod_namespace == missing.namespace_name && pod.registration.pod_name == missing.name;
    });
    if (known != pods.end()) {
      if (known->state == "wired") known->state = "uncaptured";
      continue;
    }
    PodStatus status;
    status.registration.pod_namespace = std::move(missing.namespace_name);
    status.registration.pod_name = std::move(missing.name);
    status.registration.pod_uid = std::move(missing.uid);
    status.state = "uncaptured";
    status.inbound = "pass";
    status.reason = std::move(missing.reason);
    pods.push_back(std::move(status));
  }
}

}  // namespace weft::agent
