// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.h"

#include <poll.h>
#include <prometheus/registry.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <set>

#include "agent/admin/admin_api.h"
#include "agent/capture_maps.h"
#include "agent/control/local_file.h"
#include "agent/data_plane.h"
#include "agent/enrolment.h"
#include "agent/events.h"
#include "agent/handover/giver.h"
#include "agent/handover/takeover.h"
#include "agent/hardening/hardening.h"
#include "agent/identity/cert_manager.h"
#include "agent/identity/self_signed.h"
#include "agent/reconcile/reconciler.h"
#include "agent/registration_server.h"
#include "agent/version.h"
#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"
#include "tunnel/dns/resolver.h"

namespace weft::agent {
namespace {

constexpr milliseconds kListTimeout{1'000};
/// Longer than any ADD takes from its registration to its end.
constexpr milliseconds kSettleTime{5'000};
constexpr milliseconds kDrainPoll{50};
/// How long an agent that takes over waits for its configuration, while the other one goes on.
constexpr milliseconds kConfigurationTime{100'000};
constexpr milliseconds kCertificateTime{10'000};
/// What peers may take to end tunnels that carry nothing any more.
constexpr milliseconds kTunnelTime{30'000};
constexpr milliseconds kOutlivePoll{200};

void raise_fd_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) < 0) {
    log::warn("file descriptor limit not raised soft={} hard={}", before, limit.rlim_max);
    return;
  }
  log::info("file descriptor limit soft={}", limit.rlim_cur);
}

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

/// What the workers ask of the node.
class CaptureNode final : public proxy::Node {
 public:
  CaptureNode(bpf::Capture& capture, dns::Resolver& resolver) : capture_(capture), resolver_(resolver) {}
  Result<void> tag_socket(int fd) override { return capture_.tag_socket(fd); }
  /// Enrolment has asked already: it wants the identity of every enrolled pod, and only those. Asking from here could
  /// bring one back that enrolment has just let go.
  void want_certificate(const state::Identity& /*identity*/) override {}
  state::NameAnswer resolve(const std::string& hostname) override { return resolver_.find(hostname); }

 private:
  bpf::Capture& capture_;
  dns::Resolver& resolver_;
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

}  // namespace

/// In the order of building, so that destruction is the reverse: servers before what they read, enrolment before the
/// workers, workers before capture.
struct Agent::Impl {
  Config config;
  Fd signals;
  Fd quit;  ///< readable when the admin API asked to stop
  std::unique_ptr<SelfSignedCa> ca;
  std::unique_ptr<bpf::Capture> capture;
  std::unique_ptr<BpfCaptureMaps> maps;
  std::unique_ptr<dns::Resolver> resolver;
  std::unique_ptr<CaptureNode> node;
  hbone::CertStore certificates;
  std::shared_ptr<prometheus::Registry> registry;
  std::unique_ptr<telemetry::ConnectionMetrics> metrics;
  std::unique_ptr<WorkerSet> workers;
  std::unique_ptr<CertManager> cert_manager;
  std::unique_ptr<WantedIdentities> wanted;
  KernelNetns netns;
  Predecessors predecessors;
  std::unique_ptr<Enrolment> enrolment;
  std::unique_ptr<Reconciler> reconciler;
  std::unique_ptr<RegistrationServer> registration;
  std::unique_ptr<control::Source> source;
  std::unique_ptr<EventLog> events;
  std::vector<std::unique_ptr<admin::HttpServer>> servers;
  Fd retired;  ///< readable when another agent has taken over
  std::unique_ptr<HandoverGiver> giver;
  std::unique_ptr<HandoverServer> handover;
  // While this one takes over.
  Generation self;
  std::optional<Takeover> takeover;
  Estate estate;

  /// The resolver calls the workers, which go before it.
  ~Impl() {
    if (resolver) resolver->stop();
  }
  Result<void> build();
  Result<void> load_capture();
  Result<void> make_workers();
  Result<void> make_enrolment();
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
  [[nodiscard]] bool is_retired() const;
  void log_signal() const;
  void stop();
  void drain();
  void outlive();
};

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

  auto loaded = SelfSignedCa::load(config.ca_dir);
  if (!loaded) return Failure(loaded.error());
  ca = std::move(*loaded);
  for (auto step :
       {&Impl::meet_predecessor, &Impl::load_capture, &Impl::make_workers, &Impl::make_enrolment, &Impl::start_source,
        &Impl::take_over, &Impl::start_enrolment, &Impl::serve, &Impl::start_handover}) {
    if (auto done = (this->*step)(); !done) return done;
  }
  return {};
}

/// First of all, since what it says may be that this one must not start.
Result<void> Agent::Impl::meet_predecessor() {
  self = {.number = 1, .version = kVersion, .pid = ::getpid(), .started = Clock::real().wall_now(), .load = {}};
  auto met = Takeover::begin(handover_path(), kVersion);
  if (!met) return Failure(met.error());
  takeover = std::move(*met);
  if (!takeover) return {};
  const Generation& other = takeover->welcome().generation;
  self.number = other.number + 1;
  log::info("taking over from a running agent version={} pid={} generation={}", other.version, other.pid, other.number);
  return {};
}

/// The other agent serves until this one has what it needs to serve at once.
Result<void> Agent::Impl::take_over() {
  if (!takeover) return {};
  const auto wait_until = [](milliseconds time, const auto& condition) {
    const auto deadline = Clock::real().now() + time;
    while (!condition() && Clock::real().now() < deadline) ::poll(nullptr, 0, 5);
    return condition();
  };
  const auto& identities = takeover->welcome().identities;
  wanted->set(identities);
  if (!wait_until(kConfigurationTime, [this] { return enrolment->state() != nullptr; })) {
    return fail(ErrorCode::kTimeout, "take over from the running agent: there is no configuration yet (" +
                                         source->status() + "), so that one goes on");
  }
  const auto missing = [&] {
    return std::ranges::count_if(identities, [this](const auto& i) { return certificates.get(i) == nullptr; });
  };
  if (!wait_until(kCertificateTime, [&] { return missing() == 0; }))
    log::warn("taking over without certificates, new connections of their pods wait missing={}", missing());
  auto held = takeover->hold();
  if (!held) return Failure(held.error());
  if (auto done = takeover->retire(); !done) return done;
  estate = std::move(*held);
  predecessors.add_ended(estate.ended_metrics);
  predecessors.add(takeover->welcome().generation, takeover->take_channel());
  for (auto& other : estate.predecessors) predecessors.add(other.generation, HandoverChannel(std::move(other.channel)));
  return {};
}

/// What another agent had, by its name; -1 where it had nothing of the kind.
Fd Agent::Impl::inherited(const std::string& name) {
  const auto found = std::ranges::find(estate.sockets, name, &NamedSocket::name);
  return found == estate.sockets.end() ? Fd() : std::move(found->fd);
}

/// The same, where it has the address that is wanted now.
Fd Agent::Impl::inherited(const std::string& name, const Endpoint& address) {
  Fd socket = inherited(name);
  const auto local = socket ? sys::local_endpoint(socket.get()) : Result<Endpoint>(Endpoint());
  if (!local || local->address != address.address || (address.port != 0 && local->port != address.port)) return {};
  return socket;
}

Result<void> Agent::Impl::load_capture() {
  auto loaded = bpf::Capture::load({.root = config.bpf_root,
                                    .max_pods = config.max_pods,
                                    .max_destinations = config.max_destinations,
                                    .workers = config.workers});
  if (!loaded) return Failure(loaded.error());
  capture = std::move(*loaded);
  maps = std::make_unique<BpfCaptureMaps>(*capture);
  log::info("capture loaded root={} max_pods={} max_destinations={}", config.bpf_root, config.max_pods,
            config.max_destinations);
  return {};
}

Result<void> Agent::Impl::make_workers() {
  dns::ResolverConfig names;
  names.resolv_conf = config.resolv_conf;
  // Only workers ask, so they are there when an answer comes.
  auto started = dns::Resolver::start(std::move(names), [this] { workers->names_changed(); });
  if (!started) return Failure(started.error());
  resolver = std::move(*started);
  node = std::make_unique<CaptureNode>(*capture, *resolver);
  registry = std::make_shared<prometheus::Registry>();
  metrics = std::make_unique<telemetry::ConnectionMetrics>(registry);
  proxy::WorkerConfig worker;
  worker.cluster_id = config.cluster_id;
  worker.network = config.network;
  auto made = WorkerSet::create(config.workers, worker, *node, certificates, *metrics);
  if (!made) return Failure(made.error());
  workers = std::move(*made);
  workers->start();
  cert_manager = std::make_unique<CertManager>(*ca, certificates, Clock::real(),
                                               [this](const state::Identity&) { workers->certificates_changed(); });
  cert_manager->start();
  wanted = std::make_unique<WantedIdentities>(*cert_manager);
  log::info("workers started count={}", config.workers);
  return {};
}

Result<void> Agent::Impl::make_enrolment() {
  auto records = RegistrationRecords::open(config.run_dir);
  if (!records) return Failure(records.error());
  EnrolmentConfig settings;
  settings.node = config.node;
  settings.max_pods = config.max_pods;
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
  source = std::make_unique<control::LocalFile>(config.local_config);
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
      std::move(server),
      [this](cni::Request request) {
        auto reply = enrolment->handle(std::move(request));
        if (reply.created) reconciler->pod_registered();
        return reply;
      },
      inherited(registration_name(config.socket)));
  if (!opened) return Failure(opened.error());
  registration = std::move(*opened);
  reconciler->start();
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

Result<void> Agent::Impl::start_handover() {
  takeover.reset();
  estate = {};
  retired.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!retired) return fail_errno(errno, "make an eventfd");
  HandoverParts parts{.self = self,
                      .socket_path = config.socket,
                      .workers = workers.get(),
                      .enrolment = enrolment.get(),
                      .reconciler = reconciler.get(),
                      .registration = registration.get(),
                      .events = events.get(),
                      .predecessors = &predecessors,
                      .registry = registry,
                      .servers = {},
                      .retired = [this] { ::eventfd_write(retired.get(), 1); }};
  for (const auto& server : servers) parts.servers.emplace_back(server->name(), server.get());
  giver = std::make_unique<HandoverGiver>(std::move(parts));
  auto started = HandoverServer::start(handover_path(), *giver);
  if (!started) return Failure(started.error());
  handover = std::move(*started);
  return {};
}

std::vector<std::string> Agent::Impl::not_ready() const {
  // Capture and the CA are there before this is ever asked: the agent does not start without them.
  std::vector<std::string> missing;
  if (!enrolment->state()) missing.push_back("no configuration yet: " + source->status());
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
  sources->captures_all = [this] { return enrolment->captures_all(); };
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
                      .version = kVersion};
  return sources;
}

bool Agent::Impl::wait_for_end() const {
  pollfd watched[3] = {{signals.get(), POLLIN, 0}, {quit.get(), POLLIN, 0}, {retired.get(), POLLIN, 0}};
  while (::poll(watched, 3, -1) < 0 && errno == EINTR) {
  }
  if (watched[2].revents != 0) return false;
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
  registration->stop();
  source->stop();
  reconciler->stop();
  enrolment->stop();
  drain();
}

bool Agent::Impl::is_retired() const {
  pollfd watched{retired.get(), POLLIN, 0};
  return ::poll(&watched, 1, 0) > 0;
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

/// Another agent runs the node. This one's connections live on until they end, or the time is up where it has a limit:
/// under the policies of every snapshot that comes. What stops a pod of Kubernetes begins with SIGTERM and has a limit
/// of its own, so the first signal is no reason to cut them.
void Agent::Impl::outlive() {
  log::info("another agent has taken over, this one carries its connections to their end generation={}", self.number);
  servers.clear();
  const auto now = [] { return Clock::real().now(); };
  const auto began = now();
  SteadyTime last_connection = began;
  int signals_seen = 0;
  proxy::WorkerLoad load;
  for (;;) {
    load = workers->load(kListTimeout);
    if (load.connections > 0) last_connection = now();
    if (load.connections == 0 && (load.tunnels == 0 || now() - last_connection > kTunnelTime)) break;
    if (config.handover_timeout.count() > 0 && now() - began > config.handover_timeout) break;
    pollfd signal{signals.get(), POLLIN, 0};
    if (::poll(&signal, 1, static_cast<int>(kOutlivePoll.count())) <= 0) continue;
    log_signal();
    if (++signals_seen > 1) break;
    log::info("connections live on, a second signal ends them connections={}", load.connections);
  }
  if (load.connections > 0) log::warn("stopping with live connections count={}", load.connections);
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
    if (!impl_->is_retired()) return impl_->stop();
  }
  impl_->outlive();
  impl_->handover->stop(impl_->giver->metrics());
  impl_->source->stop();
  impl_->enrolment->stop();
}

}  // namespace weft::agent
