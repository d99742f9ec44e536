// SPDX-License-Identifier: Apache-2.0
// What becomes of enrolment when another agent of the node takes over.
#include "agent/enrolment.h"
#include "tunnel/base/log.h"

namespace weft::agent {

void Enrolment::hold() {
  const std::lock_guard lock(mutex_);
  state_at_hold_ = state_;
  mode_ = Mode::kHeld;
  // The other agent writes them.
  destinations_in_maps_.reset();
  registry_in_maps_.reset();
}

void Enrolment::go_on() {
  const std::lock_guard lock(mutex_);
  mode_ = Mode::kActive;
  // The other agent may have other settings, and have said that more is spread, over more workers.
  if (config_.capture_all) {
    if (auto closed = capture_.set_capture_all(true); !closed)
      log::error("capture setting not written error={}", log::quote(closed.error().message()));
  }
  if (auto used = capture_.use_workers(); !used)
    log::error("capture setting not written error={}", log::quote(used.error().message()));
  const auto before = std::exchange(state_at_hold_, nullptr);
  if (!state_) return;
  if (state_ != before) return follow(before.get());
  set_destinations(state_->mesh_addresses());
  set_registry(registry_);
}

void Enrolment::retire() {
  const std::lock_guard lock(mutex_);
  mode_ = Mode::kRetired;
  const auto before = std::exchange(state_at_hold_, nullptr);
  if (before && state_ != before) cut_newly_denied(*before);
}

void Enrolment::forget_slot(std::uint32_t slot) {
  const std::lock_guard lock(mutex_);
  if (mode_ != Mode::kRetired) return;
  data_plane_.remove_pod(slot, config_.remove_timeout);
  std::erase_if(attachments_, [slot](const auto& entry) { return entry.second.registration.slot == slot; });
}

/// The other agent may never say, where it was killed.
void Enrolment::sweep_retired() {
  for (auto it = attachments_.begin(); it != attachments_.end();) {
    const auto current = it++;
    const Attachment& attachment = current->second;
    if (!attachment.path_watched || !gone(attachment)) continue;
    data_plane_.remove_pod(attachment.registration.slot, config_.remove_timeout);
    attachments_.erase(current);
  }
}

std::vector<state::Identity> Enrolment::identities() const {
  const std::lock_guard lock(mutex_);
  return wanted_;
}

}  // namespace weft::agent
