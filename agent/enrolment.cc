// SPDX-License-Identifier: Apache-2.0
#include "agent/enrolment.h"

#include <algorithm>
#include <set>

#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

template <class T>
std::vector<T> union_of(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> both;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return both;
}

state::State::Addresses union_of(const state::State::Addresses& a, const state::State::Addresses& b) {
  return {union_of(a.addresses, b.addresses), union_of(a.cidrs, b.cidrs)};
}

state::State::AddressesPtr union_of(const state::State::AddressesPtr& a, const state::State::AddressesPtr& b) {
  return a == b ? a : std::make_shared<const state::State::Addresses>(union_of(*a, *b));
}

}  // namespace

Enrolment::Enrolment(EnrolmentConfig config, CaptureMaps& capture, DataPlane& data_plane, NetnsAccess& netns,
                     RegistrationRecords records, WantIdentities want)
    : config_(std::move(config)),
      capture_(capture),
      data_plane_(data_plane),
      netns_(netns),
      records_(std::move(records)),
      want_(std::move(want)) {}

Enrolment::~Enrolment() { stop(); }

Result<void> Enrolment::start(std::optional<Inheritance> inheritance) {
  {
    const std::lock_guard lock(mutex_);
    inheritance_ = std::move(inheritance);
    // With an inheritance the maps are as a running agent left them, a moment ago, by its own settings.
    if (!inheritance_ || config_.capture_all) {
      if (auto closed = capture_.set_capture_all(true); !closed) return closed;
    }
    if (auto adopted = adopt(); !adopted) return adopted;
    inheritance_.reset();
    if (auto used = capture_.use_workers(); !used) return used;
    mode_ = Mode::kActive;
    if (state_) follow(nullptr);
  }
  sweeper_ = std::thread([this] { run_sweeps(); });
  return {};
}

void Enrolment::stop() {
  {
    const std::lock_guard lock(sweep_mutex_);
    stopping_ = true;
  }
  sweep_wake_.notify_all();
  if (sweeper_.joinable()) sweeper_.join();
}

void Enrolment::run_sweeps() {
  std::unique_lock lock(sweep_mutex_);
  while (!sweep_wake_.wait_for(lock, config_.sweep_interval, [this] { return stopping_; })) {
    lock.unlock();
    sweep();
    lock.lock();
  }
}

Result<void> Enrolment::write_pod(const Attachment& attachment) {
  const Registration& r = attachment.registration;
  const bpf::Pod pod{.slot = r.slot,
                     .addresses = r.addresses,
                     .host_ifindex = r.host_ifindex,
                     .enrolled = r.enrolled,
                     .leaving = attachment.leaving_since.has_value(),
                     .inbound = attachment.inbound,
                     .dns = r.enrolled && r.dns_capture(config_.dns_capture)};
  if (attachment.in_map == pod) return {};
  return capture_.set_pod(pod);
}

Result<void> Enrolment::wire(Attachment& attachment) {
  attachment.registration.enrolled = false;
  attachment.registration.workload_uid.clear();
  attachment.inbound = bpf::InboundPlaintext::kPass;
  attachment.listening = false;
  attachment.leaving_since.reset();
  return write_pod(attachment);
}

/// Listeners first, so that a pod that becomes enrolled finds them. One that comes back before it has left keeps those
/// that it has.
Result<void> Enrolment::enrol(Attachment& attachment, const std::string& workload_uid, bpf::InboundPlaintext inbound) {
  Registration& r = attachment.registration;
  r.enrolled = true;
  r.workload_uid = workload_uid;
  attachment.inbound = inbound;
  attachment.leaving_since.reset();
  if (attachment.listening && attachment.listening_as == workload_uid) return write_pod(attachment);
  return listen(attachment);
}

/// The workers last, because what is in the accept queues by then waits for them.
Result<void> Enrolment::listen(Attachment& attachment) {
  const Registration& r = attachment.registration;
  attachment.listening = false;
  auto listeners = listeners_for(attachment);
  if (!listeners) return Failure(listeners.error());
  if (auto written = write_pod(attachment); !written) return written;
  auto pod = std::make_shared<proxy::PodContext>();
  pod->slot = r.slot;
  pod->namespace_name = r.pod_namespace;
  pod->name = r.pod_name;
  pod->workload_uid = r.workload_uid;
  pod->addresses = r.addresses;
  pod->netns = attachment.netns;
  pod->dns = r.dns_capture(config_.dns_capture);
  data_plane_.add_pod(std::move(pod), std::move(*listeners));
  attachment.listening = true;
  attachment.listening_as = r.workload_uid;
  return {};
}

/// Takes the inherited listeners of a slot; gives how many workers have their own of them, which are in the map
/// already.
std::uint32_t Enrolment::inherit_listeners(std::uint32_t slot, std::vector<ListenerSets>& sets) {
  if (!inheritance_) return 0;
  HeldByWorker& held = inheritance_->listeners;
  const auto has = [slot](const auto& of_worker) {
    const auto found = of_worker.find(slot);
    return found != of_worker.end() && !found->second.empty();
  };
  if (held.empty() || !std::ranges::all_of(held, has)) return 0;
  // Of an agent with more workers: ours go on with what waits in the queues of the others.
  for (std::size_t worker = 0; worker < held.size(); ++worker) {
    auto& target = sets[worker % sets.size()];
    std::ranges::move(held[worker][slot], std::back_inserter(target));
  }
  return static_cast<std::uint32_t>(std::min(held.size(), sets.size()));
}

/// Those of the agent before, and new ones where it had none or fewer workers.
Result<std::vector<ListenerSets>> Enrolment::listeners_for(const Attachment& attachment) {
  const std::uint32_t slot = attachment.registration.slot;
  std::vector<ListenerSets> sets(data_plane_.workers());
  const std::uint32_t inherited = inherit_listeners(slot, sets);
  const auto missing = static_cast<std::uint32_t>(sets.size()) - inherited;
  if (missing > 0) {
    if (auto opened = open_listeners(attachment, inherited, sets); !opened) return Failure(opened.error());
  }
  if (auto added = add_dns_sockets(attachment, sets); !added) return Failure(added.error());
  return sets;
}

/// For the workers from the first one on that inherited none.
Result<void> Enrolment::open_listeners(const Attachment& attachment, std::uint32_t inherited,
                                       std::vector<ListenerSets>& sets) {
  const std::uint32_t slot = attachment.registration.slot;
  const auto missing = static_cast<std::uint32_t>(sets.size()) - inherited;
  auto made = netns_.open_listeners(attachment.netns->get(), missing);
  if (!made) return Failure(made.error());
  for (std::uint32_t i = 0; i < missing; ++i) {
    proxy::PodListeners& own = (*made)[i];
    for (const auto& [kind, fd] : {std::pair{bpf::Listener::kOutbound, own.outbound.get()},
                                   {bpf::Listener::kInboundHbone, own.inbound_hbone.get()},
                                   {bpf::Listener::kInboundPlaintext, own.inbound_plaintext.get()}}) {
      if (auto set = capture_.set_listener(slot, kind, inherited + i, fd); !set) return Failure(set.error());
    }
    sets[inherited + i].push_back(std::move(own));
  }
  return {};
}

/// Each worker that has none of its own in its first set, which is what the map leads to.
Result<void> Enrolment::add_dns_sockets(const Attachment& attachment, std::vector<ListenerSets>& sets) {
  const Registration& r = attachment.registration;
  if (!r.dns_capture(config_.dns_capture)) return {};
  const auto is_missing = [](const ListenerSets& of_worker) { return !of_worker.front().dns_v4; };
  const auto missing = std::ranges::count_if(sets, is_missing);
  if (missing == 0) return {};
  auto made = netns_.open_dns_sockets(attachment.netns->get(), static_cast<std::uint32_t>(missing));
  if (!made) return Failure(made.error());
  auto next = made->begin();
  for (std::uint32_t worker = 0; worker < sets.size(); ++worker) {
    if (!is_missing(sets[worker])) continue;
    proxy::PodListeners& own = sets[worker].front();
    own.dns_v4 = std::move(next->v4);
    own.dns_v6 = std::move(next->v6);
    ++next;
    for (const auto& [family, fd] :
         {std::pair{bpf::IpFamily::kV4, own.dns_v4.get()}, {bpf::IpFamily::kV6, own.dns_v6.get()}}) {
      if (fd < 0) continue;
      if (auto set = capture_.set_dns_socket(r.slot, family, worker, fd); !set) return set;
    }
  }
  return {};
}

void Enrolment::save(const Attachment& attachment) {
  if (auto saved = records_.save(attachment.registration); !saved) {
    log::error("registration record not written, after a restart the pod would not be found pod={} error={}",
               attachment.registration.pod(), log::quote(saved.error().message()));
  }
}

void Enrolment::enrol_live(Attachment& attachment, const Decision& decision) {
  const std::string pod = attachment.registration.pod();
  if (auto enrolled = enrol(attachment, decision.workload->uid, decision.inbound); !enrolled) {
    attachment.reason = enrolled.error().message();
    log::error("enrolment failed, the pod's mesh traffic is dropped until it works pod={} error={}", pod,
               log::quote(attachment.reason));
    if (auto closed = write_pod(attachment); !closed) {
      log::error("capture entry not written pod={} error={}", pod, log::quote(closed.error().message()));
    }
  } else {
    log::info("pod enrolled pod={} slot={} workload={}", pod, attachment.registration.slot, decision.workload->uid);
  }
  save(attachment);
}

/// One write to a map: new connections pass by, those that live go on, and for a while the pod takes HBONE from peers
/// that do not know yet.
void Enrolment::unenrol_live(Attachment& attachment) {
  Registration& r = attachment.registration;
  const bool was_something = attachment.listening && !attachment.listening_as.empty();
  if (was_something) {
    r.enrolled = false;
    attachment.inbound = bpf::InboundPlaintext::kPass;
    attachment.leaving_since = Clock::real().now();
  }
  if (auto written = was_something ? write_pod(attachment) : wire(attachment); !written) {
    log::error("capture entry not written pod={} error={}", r.pod(), log::quote(written.error().message()));
  }
  // It was captured because nobody had said what it is: what waits in the agent would wait for ever.
  if (!was_something && !data_plane_.remove_pod(r.slot, config_.remove_timeout)) {
    log::warn("workers slow to let a pod go pod={} timeout_ms={}", r.pod(), config_.remove_timeout.count());
  }
  log::info("pod no longer enrolled pod={} reason={}", r.pod(), log::quote(attachment.reason));
  save(attachment);
}

void Enrolment::end_leaving(Attachment& attachment) {
  const Registration& r = attachment.registration;
  if (auto wired = wire(attachment); !wired) {
    log::error("capture entry not written pod={} error={}", r.pod(), log::quote(wired.error().message()));
  }
  data_plane_.retire_pod(r.slot);
  log::info("pod has left the mesh, HBONE into it ends pod={} slot={}", r.pod(), r.slot);
  save(attachment);
}

void Enrolment::set_inbound(Attachment& attachment, bpf::InboundPlaintext inbound) {
  if (attachment.inbound == inbound) return;
  attachment.inbound = inbound;
  if (auto written = write_pod(attachment); !written) {
    log::error("capture entry not written pod={} error={}", attachment.registration.pod(),
               log::quote(written.error().message()));
  }
}

/// Makes a live pod what the decision says. A pod whose workload now has other addresses stays what it is: neither
/// taken out of the mesh nor given an identity that may not be its own.
void Enrolment::reconcile(Attachment& attachment, const Decision& decision) {
  const bool changed = attachment.kind != decision.kind;
  attachment.kind = decision.kind;
  attachment.reason = decision.reason;
  const Registration& r = attachment.registration;
  switch (decision.kind) {
    case Decision::Kind::kEnrol:
      if (r.enrolled && attachment.listening && r.workload_uid == decision.workload->uid) {
        set_inbound(attachment, decision.inbound);
      } else {
        enrol_live(attachment, decision);
      }
      break;
    case Decision::Kind::kPlain:
      if (r.enrolled) unenrol_live(attachment);
      break;
    case Decision::Kind::kRefused:
      // Its policies still are its policies.
      if (r.enrolled) set_inbound(attachment, decision.inbound);
      if (changed)
        log::warn("workload does not fit the pod pod={} enrolled={} reason={}", r.pod(), r.enrolled,
                  log::quote(decision.reason));
      break;
    case Decision::Kind::kPending:
      break;
  }
}

std::vector<std::string> Enrolment::forget(Attachments::iterator position) {
  std::vector<std::string> notes;
  const Registration& r = position->second.registration;
  if (!data_plane_.remove_pod(r.slot, config_.remove_timeout)) {
    notes.push_back("pod " + r.pod() + ": a worker did not let it go within " +
                    std::to_string(config_.remove_timeout.count()) + " ms");
  }
  if (on_forget_) on_forget_(r.slot);
  if (auto removed = capture_.remove_pod(r.slot); !removed) notes.push_back(removed.error().message());
  if (auto removed = records_.remove(r.key); !removed) notes.push_back(removed.error().message());
  log::info("pod removed pod={} slot={}", r.pod(), r.slot);
  for (const auto& note : notes) log::warn("pod removed with a problem pod={} problem={}", r.pod(), log::quote(note));
  attachments_.erase(position);
  return notes;
}

bool Enrolment::gone(const Attachment& attachment) {
  const Registration& r = attachment.registration;
  auto fd = netns_.open(r.netns_path);
  if (!fd) return fd.error().code == ErrorCode::kNotFound;
  auto inode = netns_.inode(fd->get());
  return inode ? *inode != r.netns_id.inode : inode.error().code == ErrorCode::kInvalid;
}

void Enrolment::sweep() {
  const std::lock_guard lock(mutex_);
  if (mode_ == Mode::kRetired) return sweep_retired();
  if (mode_ != Mode::kActive) return;
  for (auto it = attachments_.begin(); it != attachments_.end();) {
    const auto current = it++;
    if (current->second.path_watched && gone(current->second)) {
      log::info("netns is gone, dropping the pod pod={} netns={}", current->second.registration.pod(),
                current->second.registration.netns_path);
      forget(current);
      ++dropped_;
    }
  }
  for (auto& [key, attachment] : attachments_) {
    const auto since = attachment.leaving_since;
    if (since && Clock::real().now() - *since >= config_.leave_time) end_leaving(attachment);
  }
  if (!state_) return;
  if (capture_all_) set_destinations(state_->mesh_addresses());
  set_registry(registry_);
  for (auto& [key, attachment] : attachments_) {
    if (attachment.registration.enrolled && !attachment.listening) {
      reconcile(attachment, decide(attachment.registration));
    }
  }
  update_wanted();
}

/// What policies check from this snapshot on must be on its way to the agent before the workers learn of it. What they
/// no longer drop waits: the workers would refuse it by the snapshot before, where its sender would have tried again.
void Enrolment::raise_checks(const Decisions& decisions) {
  for (const auto& [attachment, decision] : decisions) {
    if (!attachment->registration.enrolled || decision.kind == Decision::Kind::kPlain) continue;
    if (decision.inbound > attachment->inbound) set_inbound(*attachment, decision.inbound);
  }
}

/// On success only these destinations are captured, unless everything is to be; otherwise everything is.
void Enrolment::set_destinations(const state::State::AddressesPtr& wanted) {
  // Most changes of a mesh are of no address, and the maps of a large one take a while to go through.
  const auto& there = destinations_in_maps_;
  if (capture_all_ == config_.capture_all && there && (there == wanted || *there == *wanted)) return;
  const auto present = std::exchange(destinations_in_maps_, nullptr);
  const auto list = [](const state::State::Addresses& of) { return bpf::AddressList{of.addresses, of.cidrs}; };
  auto written =
      present ? capture_.set_destinations(list(*present), list(*wanted)) : capture_.set_destinations(list(*wanted));
  // Too many: Capture itself captures everything then.
  overflow_ = !written && written.error().code == ErrorCode::kUnavailable;
  const bool closed = config_.capture_all || (!written && !overflow_);
  if (!written) log::warn("mesh destinations: everything is captured error={}", log::quote(written.error().message()));
  if (written) destinations_in_maps_ = wanted;
  if (closed == capture_all_) return;
  if (auto set = capture_.set_capture_all(closed); !set) {
    log::error("capture setting not written error={}", log::quote(set.error().message()));
    return;
  }
  capture_all_ = closed;
}

/// What does not get into the maps stays closed to what is not TCP; TCP is the workers' to decide.
void Enrolment::set_registry(const state::State::Addresses& wanted) {
  if (!config_.egress.registry_only || registry_in_maps_ == wanted) return;
  registry_in_maps_.reset();
  auto written = capture_.set_registry({wanted.addresses, wanted.cidrs});
  if (written || written.error().code == ErrorCode::kUnavailable) registry_in_maps_ = wanted;
  if (!written) {
    log::warn("registry of destinations: not all of it is open error={}", log::quote(written.error().message()));
  }
}

void Enrolment::apply(std::shared_ptr<const state::State> state) {
  const std::lock_guard lock(mutex_);
  const auto before = std::exchange(state_, std::move(state));
  if (mode_ == Mode::kActive) return follow(before.get());
  data_plane_.set_state(state_);
  // The agent that took over may have seen this change before it knew of the pods.
  if (mode_ == Mode::kRetired && before) cut_newly_denied(*before);
  update_wanted();
}

/// Brings the node in step with the snapshot; `before` is what it is in step with, null: nothing.
void Enrolment::follow(const state::State* before) {
  const auto& destinations = state_->mesh_addresses();
  const auto registry = std::exchange(registry_, state::registry(*state_, config_.egress));
  // What is new is in the maps before the workers know of it, and what is old until they do not.
  if (before != nullptr) set_destinations(union_of(before->mesh_addresses(), destinations));
  set_registry(union_of(registry, registry_));
  Decisions decisions;
  for (auto& [key, attachment] : attachments_) decisions.emplace_back(&attachment, decide(attachment.registration));
  raise_checks(decisions);
  // A pod that joins takes HBONE before the workers send any to it.
  for (const auto& [attachment, decision] : decisions) {
    if (decision.kind == Decision::Kind::kEnrol && !attachment->registration.enrolled) reconcile(*attachment, decision);
  }
  data_plane_.set_state(state_);
  for (const auto& [attachment, decision] : decisions) reconcile(*attachment, decision);
  if (before != nullptr) cut_newly_denied(*before);
  set_destinations(destinations);
  set_registry(registry_);
  update_wanted();
}

void Enrolment::update_wanted() {
  std::set<state::Identity> wanted;
  for (const auto& [key, attachment] : attachments_) {
    if (!state_ || (!attachment.registration.enrolled && !attachment.leaving_since)) continue;
    if (auto workload = state_->workload_by_uid(attachment.registration.workload_uid))
      wanted.insert(workload->identity());
  }
  std::vector<state::Identity> list(wanted.begin(), wanted.end());
  if (list == wanted_) return;
  wanted_ = std::move(list);
  want_(wanted_);
}

std::vector<PodStatus> Enrolment::pods() const {
  const std::lock_guard lock(mutex_);
  std::vector<PodStatus> all;
  for (const auto& [key, attachment] : attachments_) {
    const Registration& r = attachment.registration;
    PodStatus status{.registration = r,
                     .state = "wired",
                     .identity = "",
                     .inbound = "pass",
                     .dns = r.enrolled && r.dns_capture(config_.dns_capture),
                     .reason = attachment.reason,
                     .observation = attachment.observation,
                     .traffic = {}};
    if (auto traffic = capture_.traffic(r.slot)) status.traffic = std::move(*traffic);
    if (r.enrolled) status.state = attachment.listening ? "enrolled" : "failed";
    if (attachment.leaving_since) status.state = "leaving";
    if (attachment.kind == Decision::Kind::kPending) status.state = "pending";
    if (attachment.kind == Decision::Kind::kRefused) status.state = "refused";
    if (attachment.inbound == bpf::InboundPlaintext::kCheck) status.inbound = "check";
    if (attachment.inbound == bpf::InboundPlaintext::kDrop) status.inbound = "drop";
    if (auto workload = state_ ? state_->workload_by_uid(r.workload_uid) : nullptr) {
      status.identity = workload->identity().to_uri();
    }
    all.push_back(std::move(status));
  }
  return all;
}

std::vector<WiredPod> Enrolment::wired() const {
  const std::lock_guard lock(mutex_);
  std::vector<WiredPod> all;
  for (const auto& [key, attachment] : attachments_) {
    all.push_back({.registration = attachment.registration,
                   .netns = attachment.netns,
                   .registered = attachment.registered,
                   .observation = attachment.observation,
                   .captured = attachment.registration.enrolled && attachment.listening,
                   .reason = attachment.reason});
  }
  return all;
}

bool Enrolment::registered(const cni::AttachmentKey& key) const {
  const std::lock_guard lock(mutex_);
  return attachments_.contains(key);
}

void Enrolment::observe(const cni::AttachmentKey& key, Observation observation) {
  const std::lock_guard lock(mutex_);
  const auto existing = attachments_.find(key);
  if (existing != attachments_.end()) existing->second.observation = std::move(observation);
}

bool Enrolment::captures_all() const {
  const std::lock_guard lock(mutex_);
  return capture_all_ || overflow_;
}

std::shared_ptr<const state::State> Enrolment::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

}  // namespace weft::agent
