// SPDX-License-Identifier: Apache-2.0
// Which pods are in the mesh: what is asked for a decision, and what follows where the pods are selected otherwise.
#include <algorithm>

#include "agent/enrolment.h"

namespace weft::agent {

/// Another interface of a pod is what the pod's first one is: they share the netns, and the workload names the
/// addresses of the first one only.
Decision Enrolment::decide(const Registration& registration) const {
  PodFacts facts = registration.facts();
  facts.selection = selection_of(registration);
  if (registration.secondary) {
    const auto first = std::ranges::find_if(attachments_, [&](const auto& entry) {
      const Registration& other = entry.second.registration;
      return !other.secondary && other.netns_id.same(registration.netns_id);
    });
    if (first != attachments_.end()) {
      facts = first->second.registration.facts();
      facts.selection = selection_of(first->second.registration);
    }
    facts.interface_addresses = registration.addresses;
  }
  if (facts.selection) facts.expected_uid = config_.cluster_id + "//Pod/" + registration.pod();
  return agent::decide(state_.get(), facts, config_.node);
}

/// Nobody has a pod leave the mesh by saying nothing.
std::optional<Selection> Enrolment::selection_of(const Registration& registration) const {
  using Kind = Selection::Kind;
  if (!config_.select) return std::nullopt;
  Selection selection = config_.select(registration.pod_namespace, registration.pod_name, registration.pod_uid);
  if (registration.enrolled && (selection.kind == Kind::kUnsaid || selection.kind == Kind::kLeaving))
    selection.kind = Kind::kSelected;
  return selection;
}

void Enrolment::reselect() {
  const std::lock_guard lock(mutex_);
  if (mode_ != Mode::kActive) return;
  Decisions decisions;
  for (auto& [key, attachment] : attachments_) decisions.emplace_back(&attachment, decide(attachment.registration));
  raise_checks(decisions);
  for (const auto& [attachment, decision] : decisions) reconcile(*attachment, decision);
  update_wanted();
}

}  // namespace weft::agent
