// SPDX-License-Identifier: Apache-2.0
// Plaintext that came past the agent while no policy had anything to say of it, and that one denies now.
#include <algorithm>

#include "agent/enrolment.h"
#include "tunnel/base/log.h"
#include "tunnel/state/policy.h"

namespace weft::agent {
namespace {

state::PolicyVerdict verdict_of(const state::State& state, const state::Workload& workload, const Endpoint& application,
                                const Endpoint& client) {
  return state::evaluate(state, workload,
                         {.source_identity = {}, .source = client.address, .destination = application});
}

bool same_policies(const state::State& a, const state::State& b) {
  if (&a.policies() == &b.policies()) return true;
  return std::ranges::equal(a.policies(), b.policies(), [](const auto& x, const auto& y) { return *x == *y; });
}

}  // namespace

/// The capture map has the new outcome already, so that nothing comes in between. What was denied before stays: it is
/// older than the pod's enrolment.
void Enrolment::cut_newly_denied(const state::State& before) {
  const bool same = same_policies(before, *state_);
  for (const auto& [key, attachment] : attachments_) {
    const Registration& r = attachment.registration;
    if (!r.enrolled || r.inbound_bypass()) continue;
    const auto then = before.workload_by_uid(r.workload_uid), now = state_->workload_by_uid(r.workload_uid);
    if (!then || !now || (same && then->authorization_policies == now->authorization_policies)) continue;
    if (state::plaintext_outcome(*state_, *now, r.addresses) == state::PlaintextOutcome::kPass) continue;
    if (state::plaintext_outcome(before, *then, r.addresses) == state::PlaintextOutcome::kDrop) continue;
    const auto denied_by = [&](const Endpoint& application, const Endpoint& client) -> std::string {
      const auto verdict = verdict_of(*state_, *now, application, client);
      if (verdict.allowed || !verdict_of(before, *then, application, client).allowed) return "";
      return verdict.rule();
    };
    const auto cut = netns_.cut_plaintext(attachment.netns->get(), denied_by);
    if (!cut) {
      log::warn("live plaintext connections of the pod cannot be checked against its policies pod={} error={}", r.pod(),
                log::quote(cut.error().message()));
      continue;
    }
    for (const auto& c : *cut) {
      log::warn("plaintext connection cut pod={} src.addr={} dst.addr={} response_flags=DENY policy={}", r.pod(),
                c.client.to_string(), c.application.to_string(), c.rule);
    }
  }
}

Result<std::vector<std::pair<std::string, PlainConnection>>> Enrolment::plaintext(const std::string& pod,
                                                                                  bool end) const {
  std::vector<std::pair<std::string, std::shared_ptr<const Fd>>> looked_at;
  state::State::AddressesPtr mesh;
  {
    const std::lock_guard lock(mutex_);
    mesh = (state_ ? state_ : state::State::empty())->mesh_addresses();
    for (const auto& [key, attachment] : attachments_) {
      const Registration& r = attachment.registration;
      if (r.enrolled && (pod.empty() || r.pod() == pod)) looked_at.emplace_back(r.pod(), attachment.netns);
    }
  }
  if (looked_at.empty() && !pod.empty())
    return fail(ErrorCode::kNotFound, "no pod " + excerpt(pod) + " of this node is in the mesh");
  const auto is_mesh = [&mesh](const IpAddress& address) { return mesh->contains(address); };
  std::vector<std::pair<std::string, PlainConnection>> all;
  for (const auto& [name, netns] : looked_at) {
    auto found = netns_.plain_connections(netns->get(), is_mesh, end);
    if (!found) return Failure(found.error());
    for (const auto& connection : *found) {
      if (end) {
        log::info("plaintext connection expired pod={} application={} peer={}", name,
                  connection.application.to_string(), connection.peer.to_string());
      }
      all.emplace_back(name, connection);
    }
  }
  return all;
}

}  // namespace weft::agent
