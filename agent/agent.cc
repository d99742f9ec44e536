// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>

#include "agent/agent_impl.h"
#include "agent/hardening/hardening.h"
#include "agent/version.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

/// Longer than any ADD takes from its registration to its end.
constexpr milliseconds kSettleTime{5'000};
constexpr milliseconds kDrainPoll{50};

/// SIGTERM and SIGINT come through the descriptor; SIGPIPE not at all.
Result<Fd> take_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0)
    return fail_errno(error, "block signals");
  std::signal(SIGPIPE, SIG_IGN);
  Fd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return fail_errno(errno, "make a signalfd");
  return fd;
}

}  // namespace

Result<void> Agent::Impl::build() {
  auto taken = take_signals();
  if (!taken) return Failure(taken.error());
  signals = std::move(*taken);
  quit.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!quit) return fail_errno(errno, "make an eventfd");
  raise_fd_limit();
  if (auto hardened = hardening::harden({.seccomp = config.seccomp,
                                         .run_dir = config.run_dir,
                                         .bpf_root = config.bpf_root,
                                         .socket = config.socket,
                                         .local_config = config.local_config});
      !hardened) {
    return hardened;
  }

  if (auto opened = open_ca(); !opened) return opened;
  for (auto step :
       {&Impl::meet_predecessor, &Impl::load_capture, &Impl::make_workers, &Impl::make_enrolment, &Impl::start_source,
        &Impl::take_over, &Impl::start_enrolment, &Impl::serve, &Impl::start_handover}) {
    if (auto done = (this->*step)(); !done) return done;
  }
  return {};
}

Result<void> Agent::Impl::load_capture() {
  auto loaded = bpf::Capture::load({.root = config.bpf_root,
                                    .max_pods = config.max_pods,
                                    .max_destinations = config.max_destinations,
                                    .workers = config.workers,
                                    .registry_only = config.egress.registry_only});
  if (!loaded) return Failure(loaded.error());
  capture = std::move(*loaded);
  maps = std::make_unique<BpfCaptureMaps>(*capture);
  log::info("capture loaded root={} max_pods={} max_destinations={} outbound={}", config.bpf_root, config.max_pods,
            config.max_destinations, config.egress.mode());
  return {};
}

Result<void> Agent::Impl::make_workers() {
  dns::ResolverConfig names;
  names.resolv_conf = config.resolv_conf;
  // Only workers ask, so they are there when an answer comes.
  auto started = dns::Resolver::start(std::move(names), [this] { workers->names_changed(); });
  if (!started) return Failure(started.error());
  resolver = std::move(*started);
  if (config.istiod.on_demand) demand = std::make_shared<control::Demand>(control::Demand::Options(), Clock::real());
  node = std::make_unique<CaptureNode>(*capture, *resolver, demand.get());
  registry = std::make_shared<prometheus::Registry>();
  metrics = std::make_unique<telemetry::ConnectionMetrics>(registry);
  resources = std::make_unique<ResourceWatch>(ResourceConfig{.max_connections = config.max_connections,
                                                             .max_connections_per_pod = config.max_connections_per_pod,
                                                             .memory_limit = config.memory_limit,
                                                             .workers = config.workers,
                                                             .max_pods = config.max_pods},
                                              limits);
  proxy::WorkerConfig worker;
  worker.cluster_id = config.cluster_id;
  worker.network = config.network;
  worker.cluster_domain = config.cluster_domain;
  worker.dns_metrics = std::make_shared<telemetry::DnsMetrics>(registry);
  worker.limits = limits;
  worker.egress = config.egress;
  worker.on_demand = config.istiod.on_demand;
  fit_budgets(worker, config.workers, resources->status().memory.limit);
  auto made = WorkerSet::create(config.workers, worker, *node, certificates, *metrics);
  if (!made) return Failure(made.error());
  workers = std::move(*made);
  workers->start();
  cert_manager = std::make_unique<CertManager>(certificate_source(), certificates, Clock::real(),
                                               [this](const state::Identity&) { workers->certificates_changed(); });
  if (auto watching = watch_ca(); !watching) return watching;
  cert_manager->start();
  wanted = std::make_unique<WantedIdentities>(*cert_manager);
  log::info("workers started count={}", config.workers);
  return {};
}

Result<void> Agent::Impl::watch_ca() {
  if (!ca) return {};  // istiod has no revocation lists for us, and new roots come with its certificates
  workers->set_revocations(ca->revocations());
  cert_manager->set_revocations(ca->revocations());
  return ca->start({.replaced = [this] { cert_manager->renew_all(); },
                    .back = [this] { cert_manager->retry(); },
                    .revoked =
                        [this](const hbone::RevocationsPtr& lists) {
                          workers->set_revocations(lists);
                          cert_manager->set_revocations(lists);
                        }});
}

Result<void> Agent::Impl::make_enrolment() {
  auto records = RegistrationRecords::open(config.run_dir);
  if (!records) return Failure(records.error());
  EnrolmentConfig settings;
  settings.node = config.node;
  settings.max_pods = config.max_pods;
  settings.dns_capture = config.dns_capture;
  settings.egress = config.egress;
  settings.capture_all = config.istiod.on_demand;
  make_enroller(settings);
  enrolment =
      std::make_unique<Enrolment>(std::move(settings), *maps, *workers, netns, std::move(*records),
                                  [this](const std::vector<state::Identity>& identities) { wanted->set(identities); });
  enrolment->on_forget([this](std::uint32_t slot) { predecessors.forget(slot); });
  reconciler =
      std::make_unique<Reconciler>(ReconcileConfig{.bpf_root = config.bpf_root,
                                                   .cache_dir = config.cni_cache_dir,
                                                   .conf_dir = config.cni_conf_dir,
                                                   .interval = config.reconcile_interval,
                                                   .settle_time = std::min(config.reconcile_interval, kSettleTime)},
                                   *enrolment);
  return {};
}

Result<void> Agent::Impl::start_source() {
  source = make_source();
  return source->start([this](Result<std::shared_ptr<const state::State>> state) {
    if (!state) return;
    const bool first = enrolment->state() == nullptr;
    enrolment->apply(std::move(*state));
    if (first) reconciler->wake();
  });
}

Result<void> Agent::Impl::start_enrolment() {
  std::optional<Inheritance> inheritance;
  if (takeover) inheritance = Inheritance{.listeners = std::move(estate.listeners)};
  if (auto started = enrolment->start(std::move(inheritance)); !started) return started;
  RegistrationServerConfig server;
  server.socket_path = config.socket;
  auto opened = RegistrationServer::start(
      std::move(server), [this](cni::Request request) { return handle_registration(std::move(request)); },
      inherited(registration_name(config.socket)));
  if (!opened) return Failure(opened.error());
  registration = std::move(*opened);
  reconciler->start();
  start_enroller();
  return {};
}

Result<void> Agent::Impl::serve() {
  auto ring = capture->open_events();
  if (!ring) return Failure(ring.error());
  events = std::make_unique<EventLog>(std::make_unique<BpfEventSource>(std::move(*ring)), [this] {
    std::map<std::uint32_t, std::string> names;
    for (const auto& pod : enrolment->wired()) names[pod.registration.slot] = pod.registration.pod();
    return names;
  });
  // Whoever follows the events holds a thread while he waits.
  constexpr std::size_t kAdminThreads = admin::HttpServer::kThreads + EventLog::kMaxWaiting;
  const auto sources = admin_sources();
  for (auto& [name, address, routes, threads] :
       {std::tuple{"admin", config.admin, &admin::admin_routes, kAdminThreads},
        {"metrics", config.metrics, &admin::metrics_routes, admin::HttpServer::kThreads},
        {"ready", config.ready, &admin::ready_routes, admin::HttpServer::kThreads}}) {
    auto server = admin::HttpServer::start(name, address, routes(sources), threads, inherited(name, address));
    if (!server) return Failure(server.error());
    servers.push_back(std::move(*server));
  }
  return {};
}

std::vector<std::string> Agent::Impl::not_ready() const {
  // Capture and the mesh's own CA are there before this is ever asked: the agent does not start without them.
  std::vector<std::string> missing;
  if (!enrolment->state()) missing.push_back("no configuration yet: " + source->status());
  if (const auto why = enroller ? enroller->not_synced() : ""; !why.empty())
    missing.push_back("the Kubernetes API has not told of this node's pods: " + why);
  return missing;
}

/// The wired ones, and those that should be and are not.
std::vector<PodStatus> Agent::Impl::pods() const {
  auto all = enrolment->pods();
  for (auto& unwired : reconciler->unwired()) {
    PodStatus status;
    status.registration.key = std::move(unwired.key);
    status.registration.pod_namespace = std::move(unwired.pod.pod_namespace);
    status.registration.pod_name = std::move(unwired.pod.name);
    status.registration.pod_uid = std::move(unwired.pod.uid);
    status.state = "uncaptured";
    status.inbound = "pass";
    status.reason = std::move(unwired.reason);
    all.push_back(std::move(status));
  }
  add_uncaptured(all);
  return all;
}

std::map<std::string, std::uint64_t> Agent::Impl::reconciled() const {
  auto counts = reconciler->counts();
  counts["dropped"] = enrolment->dropped();
  return counts;
}

std::shared_ptr<const admin::AdminSources> Agent::Impl::admin_sources() {
  auto sources = std::make_shared<admin::AdminSources>();
  sources->node = config.node;
  sources->workers = config.workers;
  sources->network = config.network;
  sources->state = [this] { return enrolment->state(); };
  sources->egress = config.egress;
  sources->captures_all = [this] { return enrolment->captures_all(); };
  sources->on_demand = config.istiod.on_demand;
  sources->certificate_status = [this] { return cert_manager->status(); };
  sources->certificates = [this] { return certificates.all(); };
  sources->connections = [this] {
    auto all = workers->connections(kListTimeout);
    std::ranges::move(predecessors.connections(), std::back_inserter(all));
    return all;
  };
  sources->plaintext = [this](const std::string& pod, bool end) { return enrolment->plaintext(pod, end); };
  sources->generations = [this] {
    auto all = predecessors.generations();
    all.push_back(self);
    all.back().load = workers->load(kListTimeout);
    std::ranges::sort(all, {}, &Generation::number);
    return all;
  };
  sources->not_ready = [this] { return not_ready(); };
  sources->source_status = [this] { return source->status(); };
  sources->quit = [this] { ::eventfd_write(quit.get(), 1); };
  sources->registry = registry;
  sources->inherited_metrics = [this] { return predecessors.metrics(); };
  sources->events = [this](const EventQuery& query) { return events->query(query); };
  sources->metrics = {.counters = [this] { return maps->counters(); },
                      .pods = [this] { return pods(); },
                      .registration_requests = [this] { return registration->requests(); },
                      .registration_errors = [this] { return registration->errors(); },
                      .reconciled = [this] { return reconciled(); },
                      .unknown_attachments = [this] { return reconciler->unknown(); },
                      .certificates = sources->certificate_status,
                      .certificate_counts = [this] { return cert_manager->counts(); },
                      .ca = [this] { return ca_status(); },
                      .limits = limits,
                      .resources = [this] { return resources->status(); },
                      .kubernetes = {},
                      .version = kVersion};
  if (enroller) sources->metrics.kubernetes = [this] { return enroller->counts(); };
  return sources;
}

bool Agent::Impl::wait_for_end() const {
  pollfd watched[3] = {{signals.get(), POLLIN, 0}, {quit.get(), POLLIN, 0}, {retired.get(), POLLIN, 0}};
  while (::poll(watched, 3, -1) < 0 && errno == EINTR) {
  }
  if (taken_over) return false;
  if (watched[0].revents != 0) log_signal();
  return true;
}

void Agent::Impl::log_signal() const {
  signalfd_siginfo info{};
  if (::read(signals.get(), &info, sizeof info) == sizeof info) {
    log::info("signal received signal={} from_pid={}", info.ssi_signo, info.ssi_pid);
  }
}

void Agent::Impl::stop() {
  log::info("weft-agent stops");
  events->stop();
  if (enroller) enroller->stop();
  registration->stop();
  source->stop();
  reconciler->stop();
  enrolment->stop();
  drain();
}

/// Connections live on until they end or the time is up; a second signal ends the wait.
void Agent::Impl::drain() {
  workers->drain();
  const auto deadline = Clock::real().now() + config.drain_timeout;
  pollfd second{signals.get(), POLLIN, 0};
  std::size_t live = workers->connections(kListTimeout).size();
  while (live > 0 && Clock::real().now() < deadline) {
    if (::poll(&second, 1, static_cast<int>(kDrainPoll.count())) > 0) break;
    live = workers->connections(kListTimeout).size();
  }
  if (live > 0) log::warn("stopping with live connections count={}", live);
}

Agent::Agent(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Agent::~Agent() = default;

Result<std::unique_ptr<Agent>> Agent::start(const Config& config) {
  auto impl = std::make_unique<Impl>();
  impl->config = config;
  log::info("weft-agent starts version={} node={}", kVersion, config.node);
  if (auto built = impl->build(); !built) return Failure(built.error());
  log::info("weft-agent runs node={} pods={}", config.node, impl->enrolment->pods().size());
  return std::unique_ptr<Agent>(new Agent(std::move(impl)));
}

void Agent::run() {
  if (impl_->wait_for_end()) {
    // A takeover that is under way comes about or not; after this there is no other.
    impl_->handover->stop();
    if (!impl_->taken_over) return impl_->stop();
  }
  if (impl_->enroller) impl_->enroller->stop();
  impl_->outlive();
  impl_->handover->stop(impl_->giver->metrics());
  impl_->source->stop();
  impl_->enrolment->stop();
}

}  // namespace weft::agent
