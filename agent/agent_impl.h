// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/admin/admin_api.h"
#include "agent/agent.h"
#include "agent/capture_maps.h"
#include "agent/control/demand.h"
#include "agent/control/source.h"
#include "agent/data_plane.h"
#include "agent/enrolment.h"
#include "agent/events.h"
#include "agent/handover/giver.h"
#include "agent/handover/takeover.h"
#include "agent/identity/ca_client.h"
#include "agent/identity/cert_manager.h"
#include "agent/identity/local_ca.h"
#include "agent/kube/enroller.h"
#include "agent/reconcile/reconciler.h"
#include "agent/registration_server.h"
#include "agent/resource_watch.h"
#include "tunnel/dns/resolver.h"

/// The inside of Agent: agent.cc builds and stops it, agent_handover.cc is its part in handovers, agent_kube.cc
/// in enrolment by the Kubernetes API.
namespace weft::agent {

inline constexpr milliseconds kListTimeout{1'000};

/// What the workers ask of the node.
class CaptureNode final : public proxy::Node {
 public:
  /// `demand`: null where the whole mesh is told.
  CaptureNode(bpf::Capture& capture, dns::Resolver& resolver, control::Demand* demand)
      : capture_(capture), resolver_(resolver), demand_(demand) {}
  Result<void> tag_socket(int fd) override { return capture_.tag_socket(fd); }
  /// Enrolment has asked already: it wants the identity of every enrolled pod, and only those. Asking from here could
  /// bring one back that enrolment has just let go.
  void want_certificate(const state::Identity& /*identity*/) override {}
  state::NameAnswer resolve(const std::string& hostname) override { return resolver_.find(hostname); }
  bool is_told(const std::vector<std::string>& names, const state::State& snapshot) override {
    return demand_ == nullptr || demand_->is_told(names, snapshot.told());
  }
  void ask_ahead(const std::vector<std::string>& names) override {
    if (demand_ != nullptr) demand_->ask_ahead(names);
  }

 private:
  bpf::Capture& capture_;
  dns::Resolver& resolver_;
  control::Demand* demand_;
};

/// Turns the list of wanted identities into the manager's want and forget. Called under enrolment's lock.
class WantedIdentities {
 public:
  explicit WantedIdentities(CertManager& manager) : manager_(manager) {}
  void set(const std::vector<state::Identity>& wanted) {
    std::set<state::Identity> now(wanted.begin(), wanted.end());
    for (const auto& identity : now) manager_.want(identity);
    for (const auto& identity : current_) {
      if (!now.contains(identity)) manager_.forget(identity);
    }
    current_ = std::move(now);
  }

 private:
  CertManager& manager_;
  std::set<state::Identity> current_;
};

/// In the order of building, so that destruction is the reverse: servers before what they read, enrolment before the
/// workers, workers before capture.
struct Agent::Impl {
  Config config;
  Fd signals;
  Fd quit;                              ///< readable when the admin API asked to stop
  std::unique_ptr<LocalCa> ca;          ///< null: istiod's
  std::unique_ptr<CaClient> istiod_ca;  ///< null: the mesh's own
  std::unique_ptr<bpf::Capture> capture;
  std::unique_ptr<BpfCaptureMaps> maps;
  std::unique_ptr<dns::Resolver> resolver;
  std::shared_ptr<control::Demand> demand;  ///< null where the whole mesh is told
  std::unique_ptr<CaptureNode> node;
  hbone::CertStore certificates;
  std::shared_ptr<prometheus::Registry> registry;
  std::unique_ptr<telemetry::ConnectionMetrics> metrics;
  std::shared_ptr<proxy::Limits> limits = std::make_shared<proxy::Limits>();
  std::unique_ptr<ResourceWatch> resources;
  std::unique_ptr<WorkerSet> workers;
  std::unique_ptr<CertManager> cert_manager;
  std::unique_ptr<WantedIdentities> wanted;
  KernelNetns netns;
  Predecessors predecessors;
  std::unique_ptr<kube::Enroller> enroller;  ///< null where the mesh's configuration enrols
  std::unique_ptr<Enrolment> enrolment;
  std::unique_ptr<Reconciler> reconciler;
  std::unique_ptr<RegistrationServer> registration;
  std::unique_ptr<control::Source> source;
  std::unique_ptr<EventLog> events;
  std::vector<std::unique_ptr<admin::HttpServer>> servers;
  std::atomic<bool> taken_over{false};  ///< another agent has everything
  Fd retired;                           ///< readable from then on
  std::unique_ptr<HandoverGiver> giver;
  std::unique_ptr<HandoverServer> handover;
  // While this one takes over.
  Generation self;
  std::optional<Takeover> takeover;
  Estate estate;

  /// The resolver, the CA and the enroller call what goes before them.
  ~Impl() {
    if (enroller) enroller->stop();
    if (resolver) resolver->stop();
    if (ca) ca->stop();
    if (istiod_ca) istiod_ca->stop();
  }
  Result<void> build();
  Result<void> open_ca();
  [[nodiscard]] CertificateSource& certificate_source() const;
  [[nodiscard]] CaStatus ca_status() const;
  [[nodiscard]] std::unique_ptr<control::Source> make_source() const;
  Result<void> load_capture();
  Result<void> make_workers();
  Result<void> watch_ca();
  Result<void> make_enrolment();
  void make_enroller(EnrolmentConfig& settings);
  void start_enroller();
  [[nodiscard]] std::string not_in_place(const kube::WiredState& asked) const;
  cni::Reply handle_registration(cni::Request request);
  void add_uncaptured(std::vector<PodStatus>& pods) const;
  Result<void> start_source();
  Result<void> start_enrolment();
  Result<void> serve();
  Result<void> meet_predecessor();
  Result<void> take_over();
  Result<void> start_handover();
  [[nodiscard]] Fd inherited(const std::string& name);
  [[nodiscard]] Fd inherited(const std::string& name, const Endpoint& address);
  [[nodiscard]] std::string handover_path() const { return config.run_dir + "/handover.sock"; }
  [[nodiscard]] std::shared_ptr<const admin::AdminSources> admin_sources();
  [[nodiscard]] std::vector<std::string> not_ready() const;
  [[nodiscard]] std::vector<PodStatus> pods() const;
  [[nodiscard]] std::map<std::string, std::uint64_t> reconciled() const;
  /// False when another agent has taken over.
  [[nodiscard]] bool wait_for_end() const;
  void log_signal() const;
  void stop();
  void drain();
  void outlive();
};

}  // namespace weft::agent
