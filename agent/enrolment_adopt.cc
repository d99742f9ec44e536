// SPDX-License-Identifier: Apache-2.0
// How a restarted agent takes up the pods of the one before: its records, each verified against the netns, and the
// capture maps, which live on in the kernel. The old listeners died with the old agent.
#include <algorithm>
#include <optional>
#include <set>

#include "agent/enrolment.h"
#include "tunnel/base/log.h"

namespace weft::agent {

/// Empty where the pod is gone; its record is removed then.
Result<std::optional<Attachment>> Enrolment::adopt_one(Registration registration) {
  auto fd = netns_.open(registration.netns_path);
  if (!fd && fd.error().code != ErrorCode::kNotFound) return Failure(fd.error());
  auto id = fd ? netns_.identify(fd->get()) : Result<NetnsId>(Failure(fd.error()));
  if (!id || !id->same(registration.netns_id)) {
    log::info("registered pod is gone pod={} netns={}", registration.pod(), registration.netns_path);
    if (auto removed = records_.remove(registration.key); !removed) return Failure(removed.error());
    return std::optional<Attachment>();
  }
  Attachment attachment;
  attachment.netns = std::make_shared<const Fd>(std::move(*fd));
  attachment.path_watched = true;
  attachment.registered = Clock::real().now();
  attachment.registration = std::move(registration);
  attachment.kind = Decision::Kind::kPending;
  attachment.reason = "taken up after a restart of the agent";
  return std::optional(std::move(attachment));
}

Result<std::size_t> Enrolment::drop_strangers() {
  const std::lock_guard lock(mutex_);
  return remove_strangers();
}

/// Map entries without a registration would never be removed otherwise.
Result<std::size_t> Enrolment::remove_strangers() {
  std::size_t removed = 0;
  auto in_maps = capture_.pods();
  if (!in_maps) return Failure(in_maps.error());
  for (const bpf::Pod& pod : *in_maps) {
    const auto owner = std::find_if(attachments_.begin(), attachments_.end(), [&](const auto& entry) {
      const Registration& r = entry.second.registration;
      return r.slot == pod.slot && r.addresses == pod.addresses;
    });
    if (owner != attachments_.end()) {
      // The map is written before the record is.
      owner->second.registration.enrolled = pod.enrolled;
      if (mode_ == Mode::kNotStarted) {
        owner->second.inbound = pod.inbound;
        // A killed agent may have written one map and not the other.
        if (inheritance_) owner->second.in_map = pod;
        if (pod.leaving) owner->second.leaving_since = Clock::real().now();
      }
      continue;
    }
    log::warn("capture entry without a registration removed slot={}", pod.slot);
    if (auto done = capture_.remove_pod(pod.slot); !done) return Failure(done.error());
    ++removed;
  }
  return removed;
}

Result<void> Enrolment::adopt() {
  auto loaded = records_.load();
  if (!loaded) return Failure(loaded.error());
  for (const auto& problem : loaded->problems) log::error("registration record {}", log::quote(problem));
  std::set<std::uint32_t> slots;
  for (auto& registration : loaded->registrations) {
    if (registration.slot >= config_.max_pods || !slots.insert(registration.slot).second) {
      return fail(ErrorCode::kInvalid, "take up pod " + registration.pod() + ": slot " +
                                           std::to_string(registration.slot) + " is above the limit or used twice");
    }
    auto attachment = adopt_one(std::move(registration));
    if (!attachment) return Failure(attachment.error());
    if (!*attachment) continue;
    const cni::AttachmentKey key = (*attachment)->registration.key;
    attachments_.insert_or_assign(key, std::move(**attachment));
  }
  if (auto removed = remove_strangers(); !removed) return Failure(removed.error());
  for (auto& [key, attachment] : attachments_) {
    const Registration& r = attachment.registration;
    auto made = take_up(attachment);
    attachment.in_map.reset();
    if (!made) {
      log::error("pod not taken up pod={} error={}", r.pod(), log::quote(made.error().message()));
      continue;
    }
    log::info("pod taken up again pod={} slot={} enrolled={}", r.pod(), r.slot, r.enrolled);
  }
  return {};
}

/// From a running agent it comes as it is. Otherwise its listeners are gone, and with them whoever might still have
/// called a pod that was leaving; nobody has said yet what its policies are.
Result<void> Enrolment::take_up(Attachment& attachment) {
  const Registration& r = attachment.registration;
  if (inheritance_ && attachment.leaving_since && !r.workload_uid.empty()) return listen(attachment);
  if (!r.enrolled) return wire(attachment);
  auto inbound = attachment.inbound;
  if (!inheritance_) inbound = r.inbound_bypass() ? bpf::InboundPlaintext::kPass : bpf::InboundPlaintext::kCheck;
  return enrol(attachment, std::string(r.workload_uid), inbound);
}

}  // namespace weft::agent
