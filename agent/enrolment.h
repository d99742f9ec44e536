// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/attachment.h"
#include "agent/capture_maps.h"
#include "agent/data_plane.h"
#include "agent/netns.h"
#include "agent/registration_records.h"
#include "cni-plugin/registration.h"
#include "tunnel/state/egress.h"
#include "tunnel/state/state.h"

namespace weft::agent {

struct EnrolmentConfig {
  std::string node;
  std::uint32_t max_pods = 512;        ///< slots
  milliseconds remove_timeout{3'000};  ///< for the workers to let a pod go
  milliseconds sweep_interval{5'000};  ///< between looks at whether the netns are still there
  milliseconds leave_time{60'000};     ///< how long a pod that left the mesh is still reached by HBONE
  bool dns_capture = false;            ///< of pods whose annotations do not say
  state::EgressPolicy egress;
  bool capture_all = false;     ///< also what is no mesh destination yet: it is asked for when it is connected to
  std::string cluster_id = {};  ///< the first part of the UIDs of this cluster's workloads
  /// Who selects the pods of the mesh; where it is empty the mesh's configuration does. Called under the lock, must not
  /// call back.
  std::function<Selection(const std::string& namespace_name, const std::string& pod, const std::string& uid)> select =
      {};
};

/// What another agent of this node hands over.
struct Inheritance {
  HeldByWorker listeners;  ///< of its workers
};

/// One wired pod, for people and metrics.
struct PodStatus {
  Registration registration;
  std::string state;  ///< "enrolled", "wired", "leaving", "pending", "refused", "failed"
  std::string identity;
  std::string inbound;  ///< "pass", "check", "drop"
  bool dns = false;     ///< its DNS is captured now
  std::string reason;
  Observation observation;
  std::optional<bpf::PodTraffic> traffic;  ///< empty where the pod is not wired, or its counters cannot be read
};

/// A registered pod as reconciliation needs it.
struct WiredPod {
  Registration registration;
  std::shared_ptr<const Fd> netns;
  SteadyTime registered;
  Observation observation;  ///< the last one
  bool captured = false;    ///< it is in the mesh, and the workers have its listeners
  std::string reason;       ///< of the last decision
};

/// The wired pods of this node: takes registrations, decides which pods are in the mesh, and keeps the capture maps,
/// the workers and the records on disk in step. Thread-safe; one lock, held while the workers let a pod go (bounded by
/// remove_timeout). Fails closed: a pod that should be in the mesh and cannot be given its listeners is marked enrolled
/// all the same, so that its mesh traffic is dropped, and tried again at the next sweep.
class Enrolment {
 public:
  /// Told the identities of the enrolled pods whenever they change; called under the lock, must not call back.
  using WantIdentities = std::function<void(const std::vector<state::Identity>&)>;

  /// Borrows the first three, which outlive it.
  Enrolment(EnrolmentConfig config, CaptureMaps& capture, DataPlane& data_plane, NetnsAccess& netns,
            RegistrationRecords records, WantIdentities want);
  ~Enrolment();
  Enrolment(const Enrolment&) = delete;
  Enrolment& operator=(const Enrolment&) = delete;

  /// Takes up the pods that an earlier agent registered, each verified against its netns, and starts the sweeps.
  /// Without an inheritance everything is captured until the first snapshot; with one the pods go on with the listeners
  /// that another agent had, and a snapshot that apply() was given before takes effect. Errors: the maps or the records
  /// cannot be read or written.
  Result<void> start(std::optional<Inheritance> inheritance = {});
  /// Ends the sweeps. Pods stay as they are, so that capture stays closed.
  void stop();

  /// Changes nothing of the node any more until go_on(): snapshots reach the workers alone. Requests must have ended.
  void hold();
  void go_on();
  /// For good: another agent has taken over. Only connections are left, and are cut when their pod has gone.
  void retire();
  /// The pod in the slot has gone, says the agent that took over.
  void forget_slot(std::uint32_t slot);
  /// The identities of the enrolled pods.
  [[nodiscard]] std::vector<state::Identity> identities() const;
  /// Called, under the lock, before the slot of a pod that has gone may be given to another.
  void on_forget(std::function<void(std::uint32_t slot)> told) { on_forget_ = std::move(told); }

  /// Carries out one request of weft-cni.
  cni::Reply handle(cni::Request request);

  /// The new snapshot: makes new mesh destinations captured, posts it to the workers, enrols and un-enrols, and only
  /// then lets old destinations go.
  void apply(std::shared_ptr<const state::State> state);

  /// Those who select the pods say otherwise of some than before: enrols and un-enrols.
  void reselect();

  /// Drops pods whose netns is gone, and tries again what failed. Called by the timer, and by tests.
  void sweep();

  /// Removes what is in the capture maps and belongs to no registered pod; a pod behind it, if there is any, is cut off
  /// then, not let out. Gives their number.
  Result<std::size_t> drop_strangers();
  /// What was seen of a pod; nothing happens where it is no longer registered.
  void observe(const cni::AttachmentKey& key, Observation observation);

  /// The connections of enrolled pods with the mesh that no agent carries, by pod; `pod` limits it to one,
  /// "namespace/name". `end` resets them. Errors: kNotFound for a pod that is not enrolled here, those of
  /// plain_connections.
  Result<std::vector<std::pair<std::string, PlainConnection>>> plaintext(const std::string& pod, bool end) const;

  [[nodiscard]] std::vector<PodStatus> pods() const;
  [[nodiscard]] std::vector<WiredPod> wired() const;
  [[nodiscard]] bool registered(const cni::AttachmentKey& key) const;
  /// Pods that were dropped because their netns was gone, since the start.
  [[nodiscard]] std::uint64_t dropped() const { return dropped_; }
  [[nodiscard]] std::shared_ptr<const state::State> state() const;
  /// Connections to what is no mesh destination are captured too: before the first snapshot, and while the list of
  /// destinations cannot be written or is too long.
  [[nodiscard]] bool captures_all() const;

 private:
  using Attachments = std::map<cni::AttachmentKey, Attachment>;
  /// What one snapshot makes of each.
  using Decisions = std::vector<std::pair<Attachment*, Decision>>;

  // Requests; under the lock.
  cni::Reply register_pod(cni::Request request);
  cni::Reply unregister_pod(const cni::AttachmentKey& key);
  cni::Reply check(const cni::Request& request);
  cni::Reply gc(const std::vector<cni::AttachmentKey>& valid);
  cni::Reply status() const;
  Result<Registration> registration_of(const cni::Request& request);
  Result<void> add(Attachment attachment, const Decision& decision);
  Result<void> place_in_netns(Registration& registration) const;
  [[nodiscard]] Decision decide(const Registration& registration) const;
  [[nodiscard]] std::optional<Selection> selection_of(const Registration& registration) const;
  void replace_overlapping(const Registration& registration);
  [[nodiscard]] Result<std::uint32_t> free_slot() const;

  // One pod; under the lock.
  Result<void> enrol(Attachment& attachment, const std::string& workload_uid, bpf::InboundPlaintext inbound);
  Result<void> listen(Attachment& attachment);
  std::uint32_t inherit_listeners(std::uint32_t slot, std::vector<ListenerSets>& sets);
  Result<std::vector<ListenerSets>> listeners_for(const Attachment& attachment);
  Result<void> open_listeners(const Attachment& attachment, std::uint32_t inherited, std::vector<ListenerSets>& sets);
  Result<void> add_dns_sockets(const Attachment& attachment, std::vector<ListenerSets>& sets);
  Result<void> wire(Attachment& attachment);
  Result<void> write_pod(const Attachment& attachment);
  void reconcile(Attachment& attachment, const Decision& decision);
  void enrol_live(Attachment& attachment, const Decision& decision);
  void unenrol_live(Attachment& attachment);
  void end_leaving(Attachment& attachment);
  void set_inbound(Attachment& attachment, bpf::InboundPlaintext inbound);
  void save(const Attachment& attachment);
  /// Takes the pod from the workers, the maps and the disk.
  std::vector<std::string> forget(Attachments::iterator position);
  [[nodiscard]] bool gone(const Attachment& attachment);

  // Everything; under the lock.
  Result<void> adopt();
  Result<void> take_up(Attachment& attachment);
  Result<std::optional<Attachment>> adopt_one(Registration registration);
  Result<std::size_t> remove_strangers();
  void follow(const state::State* before);
  void sweep_retired();
  void raise_checks(const Decisions& decisions);
  void cut_newly_denied(const state::State& before);
  void set_destinations(const state::State::AddressesPtr& wanted);
  void set_registry(const state::State::Addresses& wanted);
  void update_wanted();

  void run_sweeps();

  const EnrolmentConfig config_;
  CaptureMaps& capture_;
  DataPlane& data_plane_;
  NetnsAccess& netns_;
  const RegistrationRecords records_;
  const WantIdentities want_;

  mutable std::mutex mutex_;
  Attachments attachments_;
  std::shared_ptr<const state::State> state_;  ///< null before the first
  state::State::Addresses registry_;           ///< what pods of the mesh may reach by state_
  /// What the maps have of it, as far as it fits; empty where that is not known.
  std::optional<state::State::Addresses> registry_in_maps_;
  state::State::AddressesPtr destinations_in_maps_;  ///< whole; null where that is not known
  bool overflow_ = false;                            ///< too many destinations: Capture itself captures everything
  /// Before the first snapshot, while the destinations cannot be written, and where that is the way of it.
  bool capture_all_ = true;
  std::vector<state::Identity> wanted_;
  enum class Mode : std::uint8_t { kNotStarted, kActive, kHeld, kRetired } mode_ = Mode::kNotStarted;
  std::shared_ptr<const state::State> state_at_hold_;  ///< what the node was brought in step with last
  std::optional<Inheritance> inheritance_;             ///< while it is being taken up
  std::function<void(std::uint32_t)> on_forget_;

  std::mutex sweep_mutex_;
  std::condition_variable sweep_wake_;
  bool stopping_ = false;
  std::thread sweeper_;
  std::atomic<std::uint64_t> dropped_{0};
};

}  // namespace weft::agent
