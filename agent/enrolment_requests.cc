// SPDX-License-Identifier: Apache-2.0
// The requests of weft-cni: what each verb of cni-plugin/registration.h does.
#include <algorithm>
#include <set>

#include "agent/enrolment.h"
#include "bpf/shared.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

cni::Reply refusal(Error error) {
  cni::Reply reply;
  reply.error = std::move(error);
  return reply;
}

std::string name_of(const cni::AttachmentKey& key) { return key.container_id + "/" + key.if_name; }

bool same_registration(const Registration& a, const Registration& b) {
  return a.netns_id.same(b.netns_id) && a.pod_namespace == b.pod_namespace && a.pod_name == b.pod_name &&
         a.addresses == b.addresses && a.ifindex == b.ifindex && a.host_ifindex == b.host_ifindex;
}

Result<void> validate(const cni::Request& request) {
  const auto missing = [&](const char* field) {
    return fail(ErrorCode::kInvalid, std::string("register ") + name_of(request.key) + ": " + field + " is missing");
  };
  if (request.key.container_id.empty()) return missing("containerId");
  if (request.key.if_name.empty()) return missing("ifName");
  if (request.pod_namespace.empty()) return missing("podNamespace");
  if (request.pod_name.empty()) return missing("podName");
  if (request.addresses.empty()) return missing("addresses");
  if (request.ifindex == 0) return missing("ifindex");
  if (!request.netns_fd) return missing("the netns descriptor");
  return {};
}

}  // namespace

cni::Reply Enrolment::handle(cni::Request request) {
  const std::lock_guard lock(mutex_);
  if (mode_ != Mode::kActive)
    return refusal({ErrorCode::kUnavailable, 0, "this agent hands over to another one; ask again"});
  switch (request.verb) {
    case cni::Verb::kRegister:
      return register_pod(std::move(request));
    case cni::Verb::kUnregister:
      return unregister_pod(request.key);
    case cni::Verb::kCheck:
      return check(request);
    case cni::Verb::kGc:
      return gc(request.valid);
    case cni::Verb::kStatus:
      return status();
  }
  return refusal({ErrorCode::kInvalid, 0, "registration: unknown verb"});
}

Result<Registration> Enrolment::registration_of(const cni::Request& request) {
  if (auto valid = validate(request); !valid) return Failure(valid.error());
  auto id = netns_.identify(request.netns_fd.get());
  if (!id) {
    Error error = id.error();
    error.context = "register pod " + request.pod_namespace + "/" + request.pod_name + ": " + error.context;
    return Failure(std::move(error));
  }
  Registration registration;
  registration.key = request.key;
  registration.netns_path = request.netns;
  registration.netns_id = *id;
  registration.pod_namespace = request.pod_namespace;
  registration.pod_name = request.pod_name;
  registration.pod_uid = request.pod_uid;
  // Sorted, as the capture maps give them back.
  registration.addresses = request.addresses;
  std::ranges::sort(registration.addresses);
  registration.annotations = request.annotations;
  registration.ifindex = request.ifindex;
  registration.host_ifindex = request.host_ifindex;
  registration.registered_at = Clock::real().wall_now();
  return registration;
}

cni::Reply Enrolment::register_pod(cni::Request request) {
  auto registration = registration_of(request);
  if (!registration) return refusal(registration.error());
  if (auto placed = place_in_netns(*registration); !placed) return refusal(placed.error());
  if (const auto selection = selection_of(*registration); selection && selection->kind == Selection::Kind::kUnsaid) {
    return refusal(
        {ErrorCode::kUnavailable, 0, "pod " + registration->pod() + " could be the mesh's: " + selection->reason});
  }
  const Decision decision = decide(*registration);
  if (decision.kind == Decision::Kind::kRefused) return refusal({ErrorCode::kInvalid, 0, decision.reason});

  cni::Reply reply;
  auto existing = attachments_.find(request.key);
  if (existing != attachments_.end()) {
    if (same_registration(existing->second.registration, *registration)) {
      reply.enrolled = existing->second.registration.enrolled;
      reply.notes.push_back("already registered");
      return reply;
    }
    reply.notes.push_back("replaced an earlier registration of " + name_of(request.key));
    forget(existing);
  }
  replace_overlapping(*registration);
  auto slot = free_slot();
  if (!slot) return refusal(slot.error());
  registration->slot = *slot;

  Attachment attachment;
  attachment.registration = std::move(*registration);
  attachment.netns = std::make_shared<const Fd>(std::move(request.netns_fd));
  attachment.path_watched = !gone(attachment);
  attachment.registered = Clock::real().now();
  if (!attachment.path_watched) {
    reply.notes.push_back("netns path \"" + attachment.registration.netns_path +
                          "\" does not lead to the pod's netns from where the agent runs; the pod cannot be taken up "
                          "again after a restart of the agent (is /var/run/netns mounted into it?)");
  }
  auto added = add(std::move(attachment), decision);
  if (!added) return refusal(added.error());
  reply.created = true;
  reply.enrolled = decision.kind != Decision::Kind::kPlain;
  reply.notes.push_back(decision.reason);
  return reply;
}

/// Whether it is the first interface of its pod; a netns belongs to one pod.
Result<void> Enrolment::place_in_netns(Registration& registration) const {
  for (const auto& [key, attachment] : attachments_) {
    const Registration& other = attachment.registration;
    if (key == registration.key || !other.netns_id.same(registration.netns_id)) continue;
    if (other.pod() != registration.pod()) {
      return fail(ErrorCode::kInvalid, "register pod " + registration.pod() + ": its netns (inode " +
                                           std::to_string(registration.netns_id.inode) + ") is registered as pod " +
                                           other.pod() + " by " + name_of(key) +
                                           " (was that one not deleted, or the netns given to two pods?)");
    }
    if (!other.secondary) registration.secondary = true;
  }
  return {};
}

Result<void> Enrolment::add(Attachment attachment, const Decision& decision) {
  const Registration& r = attachment.registration;
  attachment.kind = decision.kind;
  attachment.reason = decision.reason;
  const bool mesh = decision.kind != Decision::Kind::kPlain;
  auto made = mesh ? enrol(attachment, decision.workload_uid, decision.inbound) : wire(attachment);
  if (made) made = records_.save(r);
  if (!made) {
    data_plane_.remove_pod(r.slot, config_.remove_timeout);
    if (auto undone = capture_.remove_pod(r.slot); !undone) {
      log::error("undo a registration failed pod={} slot={} error={}", r.pod(), r.slot,
                 log::quote(undone.error().message()));
    }
    Error error = made.error();
    error.context = "register pod " + r.pod() + ": " + error.context;
    return Failure(std::move(error));
  }
  log::info("pod registered pod={} slot={} enrolled={} reason={}", r.pod(), r.slot, r.enrolled,
            log::quote(attachment.reason));
  const cni::AttachmentKey key = r.key;
  attachments_.insert_or_assign(key, std::move(attachment));
  update_wanted();
  return {};
}

/// A pod that is gone without DEL may still hold the address that the CNI gave to this one.
void Enrolment::replace_overlapping(const Registration& registration) {
  for (auto it = attachments_.begin(); it != attachments_.end();) {
    const auto current = it++;
    const auto& theirs = current->second.registration.addresses;
    const bool overlaps = std::any_of(theirs.begin(), theirs.end(), [&](const IpAddress& address) {
      return std::find(registration.addresses.begin(), registration.addresses.end(), address) !=
             registration.addresses.end();
    });
    if (overlaps && current->second.path_watched && gone(current->second)) forget(current);
  }
}

Result<std::uint32_t> Enrolment::free_slot() const {
  std::set<std::uint32_t> taken;
  for (const auto& [key, attachment] : attachments_) taken.insert(attachment.registration.slot);
  std::uint32_t slot = 0;
  while (taken.contains(slot)) ++slot;
  if (slot < config_.max_pods) return slot;
  return fail(ErrorCode::kUnavailable,
              "all " + std::to_string(config_.max_pods) + " pod slots of this node are in use");
}

cni::Reply Enrolment::unregister_pod(const cni::AttachmentKey& key) {
  cni::Reply reply;
  const auto existing = attachments_.find(key);
  if (existing == attachments_.end()) {
    reply.notes.push_back(name_of(key) + " is not registered");
    return reply;
  }
  reply.notes = forget(existing);
  update_wanted();
  return reply;
}

cni::Reply Enrolment::check(const cni::Request& request) {
  const auto existing = attachments_.find(request.key);
  if (existing == attachments_.end()) {
    return refusal(
        {ErrorCode::kNotFound, 0, "check " + name_of(request.key) + ": it is not registered with the agent"});
  }
  const Registration& r = existing->second.registration;
  if (request.netns_inode != 0 && request.netns_inode != r.netns_id.inode) {
    return refusal({ErrorCode::kInvalid, 0,
                    "check pod " + r.pod() + ": its netns is inode " + std::to_string(request.netns_inode) +
                        ", registered was " + std::to_string(r.netns_id.inode)});
  }
  auto pods = capture_.pods();
  if (!pods) return refusal(pods.error());
  const auto in_map = std::find_if(pods->begin(), pods->end(), [&](const bpf::Pod& p) { return p.slot == r.slot; });
  if (in_map == pods->end() || in_map->enrolled != r.enrolled) {
    return refusal(
        {ErrorCode::kInternal, 0, "check pod " + r.pod() + ": its entry in the capture map is missing or wrong"});
  }
  if (r.enrolled) {
    auto listening = capture_.listening(r.slot);
    if (!listening) return refusal(listening.error());
    const std::uint32_t wanted = WEFT_LISTENER_KINDS * data_plane_.workers();
    if (*listening != wanted) {
      return refusal(
          {ErrorCode::kInternal, 0,
           "check pod " + r.pod() + ": " + std::to_string(*listening) + " of its " + std::to_string(wanted) +
               " listeners are in place, its connections into the mesh are dropped: " + existing->second.reason});
    }
  }
  cni::Reply reply;
  reply.enrolled = r.enrolled;
  if (!existing->second.reason.empty()) reply.notes.push_back(existing->second.reason);
  return reply;
}

cni::Reply Enrolment::gc(const std::vector<cni::AttachmentKey>& valid) {
  const std::set<cni::AttachmentKey> keep(valid.begin(), valid.end());
  cni::Reply reply;
  for (auto it = attachments_.begin(); it != attachments_.end();) {
    const auto current = it++;
    if (keep.contains(current->first)) continue;
    reply.notes.push_back("removed " + name_of(current->first));
    for (auto& note : forget(current)) reply.notes.push_back(std::move(note));
  }
  update_wanted();
  return reply;
}

cni::Reply Enrolment::status() const {
  cni::Reply reply;
  if (!state_) reply.notes.push_back("the control plane has said nothing yet");
  return reply;
}

}  // namespace weft::agent
