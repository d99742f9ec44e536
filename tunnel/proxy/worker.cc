// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/worker.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <map>

#include "tunnel/base/log.h"
#include "tunnel/base/rate_limit.h"
#include "tunnel/base/sys.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound.h"
#include "tunnel/proxy/inbound_plaintext.h"
#include "tunnel/proxy/inbound_policy.h"
#include "tunnel/proxy/outbound.h"

namespace weft::proxy {
namespace {

/// Connections taken from one listener in one turn.
constexpr int kAcceptsPerTurn = 64;
/// How long a listener rests that the kernel has no memory or descriptors for: it would be reported ready all the time.
constexpr milliseconds kRest{10};

}  // namespace

/// Everything of a worker; but for create and the destructor only its own thread calls in.
class Worker::Impl {
 public:
  Impl(WorkerConfig config, std::unique_ptr<loop::EventLoop> event_loop, Node& node, hbone::CertStore& certificates,
       telemetry::ConnectionMetrics& metrics)
      : loop_(std::move(event_loop)),
        context_(std::move(config), node, certificates, metrics, *loop_),
        inbound_(context_) {}
  ~Impl();

  [[nodiscard]] loop::EventLoop& loop() { return *loop_; }
  void run();
  void set_state(std::shared_ptr<const state::State> state);
  void on_certificates();
  void on_names();
  void add_pod(std::shared_ptr<const PodContext> pod, std::vector<PodListeners> sets);
  void retire_pod(std::uint32_t slot);
  void remove_pod(std::uint32_t slot);
  [[nodiscard]] std::vector<ConnectionInfo> list_connections();
  [[nodiscard]] std::vector<HeldListeners> hold();
  void go_on();
  [[nodiscard]] WorkerLoad load() const;
  void drain();
  void close_all(const std::string& why);

  std::thread thread;

 private:
  enum class Kind : std::uint8_t { kOutbound, kHbone, kPlaintext };
  struct Listening {
    Listening(loop::EventLoop& loop, Kind k, Fd f) : kind(k), fd(std::move(f)), rest(loop) {}
    Kind kind;
    Fd fd;
    Endpoint local;
    loop::Watcher watcher;  ///< before the descriptor goes
    loop::Timer rest;       ///< until it is watched again
  };
  struct Pod {
    std::shared_ptr<const PodContext> context;
    std::list<Listening> listening;
  };

  void listen_on(Pod& pod, Kind kind, Fd fd);
  void watch(Pod& pod, Listening& listening);
  Result<void> try_watch(Pod& pod, Listening& listening);
  void rest(Pod& pod, Listening& listening, const char* what, const Error& why);
  void on_acceptable(Pod& pod, Listening& listening);
  void take(Pod& pod, const Listening& listening, sys::Accepted accepted);
  bool shed(const Pod& pod, const Listening& listening);
  void refuse(const Pod& pod, Kind kind, sys::Accepted& accepted, const Endpoint& local, const std::string& why);

  std::unique_ptr<loop::EventLoop> loop_;
  WorkerContext context_;
  InboundTunnels inbound_;
  std::map<std::uint32_t, std::unique_ptr<Pod>> pods_;
  bool held_ = false;                                      ///< somebody else may accept now
  Fd reserve_{::open("/dev/null", O_RDONLY | O_CLOEXEC)};  ///< given up to refuse a connection when descriptors run out
  RateLimit shortages_{5, 1};                              ///< what is logged of them
};

Worker::Impl::~Impl() { close_all("the agent stops"); }

void Worker::Impl::close_all(const std::string& why) {
  while (!pods_.empty()) remove_pod(pods_.begin()->first);
  context_.connections.for_each([&](Connection& c) { c.cut(telemetry::ResponseFlag::kNone, why); });
  loop_->run_once(milliseconds(0));
}

void Worker::Impl::run() {
  if (auto home = context_.netns.init(); !home)
    log::error("worker cannot remember its netns error={}", home.error().message());
  loop_->run();
  close_all("the agent stops");
}

void Worker::Impl::set_state(std::shared_ptr<const state::State> state) {
  context_.state = std::move(state);
  inbound_.go_on();
  context_.connections.for_each([](Connection& connection) { connection.on_snapshot(); });
}

void Worker::Impl::on_certificates() {
  inbound_.go_on();
  context_.connections.for_each([](Connection& connection) { connection.on_certificates(); });
}

void Worker::Impl::on_names() {
  context_.connections.for_each([](Connection& connection) { connection.on_names(); });
}

void Worker::Impl::add_pod(std::shared_ptr<const PodContext> context, std::vector<PodListeners> sets) {
  const auto existing = pods_.find(context->slot);
  // The same pod, which had left the mesh: what lives of it goes on.
  const bool same = existing != pods_.end() && existing->second->context->netns == context->netns &&
                    existing->second->context->workload_uid == context->workload_uid;
  if (!same) remove_pod(context->slot);
  auto& pod = pods_[context->slot];
  if (!pod) pod = std::make_unique<Pod>();
  pod->context = std::move(context);
  for (PodListeners& set : sets) {
    listen_on(*pod, Kind::kOutbound, std::move(set.outbound));
    listen_on(*pod, Kind::kHbone, std::move(set.inbound_hbone));
    listen_on(*pod, Kind::kPlaintext, std::move(set.inbound_plaintext));
  }
}

void Worker::Impl::listen_on(Pod& pod, Kind kind, Fd fd) {
  Listening& listening = pod.listening.emplace_back(*loop_, kind, std::move(fd));
  if (listening.fd) return watch(pod, listening);
  log::error("listener is missing pod={}/{} (was the agent before out of file descriptors?)",
             pod.context->namespace_name, pod.context->name);
}

/// What connects before that succeeds waits in the listener's queue.
void Worker::Impl::watch(Pod& pod, Listening& listening) {
  if (auto watched = try_watch(pod, listening); !watched) rest(pod, listening, "listener", watched.error());
}

Result<void> Worker::Impl::try_watch(Pod& pod, Listening& listening) {
  if (auto set = set_stream_options(listening.fd.get()); !set) return set;
  auto local = sys::local_endpoint(listening.fd.get());
  if (!local) return Failure(local.error());
  listening.local = *local;
  auto watcher = loop_->watch(
      listening.fd.get(), EPOLLIN, [this, &pod, &listening](std::uint32_t) { on_acceptable(pod, listening); }, true);
  if (!watcher) return Failure(watcher.error());
  listening.watcher = std::move(*watcher);
  return {};
}

void Worker::Impl::rest(Pod& pod, Listening& listening, const char* what, const Error& why) {
  if (shortages_.take(loop_->now())) {
    log::error("{} failed and is tried again pod={}/{} error={}", what, pod.context->namespace_name, pod.context->name,
               log::quote(why.message()));
  }
  listening.watcher.reset();
  listening.rest.arm(kRest, [this, &pod, &listening] {
    if (!held_) watch(pod, listening);
  });
}

void Worker::Impl::on_acceptable(Pod& pod, Listening& listening) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    auto accepted = sys::accept(listening.fd.get());
    if (!accepted) {
      const int error = accepted.error().errno_value;
      if (error == ECONNABORTED || error == EPROTO) continue;
      if ((error == EMFILE || error == ENFILE) && shed(pod, listening)) continue;
      return rest(pod, listening, "accept", accepted.error());
    }
    if (!accepted->has_value()) return;
    take(pod, listening, std::move(**accepted));
  }
}

/// Out of descriptors: an answer is better than a stall. False when there is none to give either.
bool Worker::Impl::shed(const Pod& pod, const Listening& listening) {
  reserve_.reset();
  auto accepted = sys::accept(listening.fd.get());
  if (accepted && accepted->has_value()) {
    const auto local = sys::local_endpoint((*accepted)->fd.get());
    refuse(pod, listening.kind, **accepted, local.value_or(Endpoint()),
           "out of file descriptors (raise the agent's limit)");
  }
  reserve_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return accepted.has_value();
}

/// What was brought here and cannot be served: its peer hears a reset, not an end, and there is a record of it.
void Worker::Impl::refuse(const Pod& pod, Kind kind, sys::Accepted& accepted, const Endpoint& local,
                          const std::string& why) {
  sys::close_with_reset(accepted.fd);
  telemetry::ConnectionResult result;
  result.reporter = kind == Kind::kOutbound ? telemetry::Reporter::kSource : telemetry::Reporter::kDestination;
  result.source.endpoint = accepted.peer;
  result.destination.endpoint = local;
  result.flag = telemetry::ResponseFlag::kConnect;
  result.error = why;
  record_refused(context_, *pod.context, std::move(result));
}

void Worker::Impl::take(Pod& pod, const Listening& listening, sys::Accepted accepted) {
  const auto local = sys::local_endpoint(accepted.fd.get());
  if (!local) return refuse(pod, listening.kind, accepted, {}, local.error().message());
  // Capture alone leads here: whoever dialled the listener itself is not captured, and would make the agent dial
  // itself.
  if (*local == listening.local || local->address.is_loopback() || local->address.is_unspecified()) return;
  const auto& own = pod.context->addresses;
  const bool local_is_own = std::ranges::find(own, local->address) != own.end();
  if (listening.kind == Kind::kOutbound) {
    if (std::ranges::find(own, accepted.peer.address) == own.end()) {
      log::warn("captured connection dropped: its source is not the pod's pod={}/{} source={} destination={}",
                pod.context->namespace_name, pod.context->name, accepted.peer.to_string(), local->to_string());
      return;
    }
    auto& added = context_.connections.add(
        std::make_unique<Outbound>(context_, pod.context, std::move(accepted.fd), accepted.peer, *local));
    added.count_socket();
    static_cast<Outbound&>(added).start();
    return;
  }
  if (!local_is_own) return;
  if (auto tagged = context_.node.tag_socket(accepted.fd.get()); !tagged) {
    return refuse(pod, listening.kind, accepted, *local, tagged.error().message());
  }
  if (listening.kind == Kind::kHbone) {
    inbound_.accept(pod.context, std::move(accepted.fd), accepted.peer);
    return;
  }
  auto& added = context_.connections.add(
      std::make_unique<InboundPlaintext>(context_, pod.context, std::move(accepted.fd), accepted.peer, *local));
  added.count_socket();
  static_cast<InboundPlaintext&>(added).start();
}

void Worker::Impl::remove_pod(std::uint32_t slot) {
  const auto node = pods_.extract(slot);
  if (node.empty()) return;
  const std::string why = "the pod left the mesh or is gone";
  node.mapped()->listening.clear();
  context_.connections.for_each([&](Connection& connection) {
    if (connection.pod().slot == slot) connection.cut(telemetry::ResponseFlag::kNone, why);
  });
  context_.pool.close_pod(slot, why);
  inbound_.close_pod(slot, why);
  context_.ports.forget(slot);
  context_.netns.leave(node.mapped()->context->netns);
}

std::vector<ConnectionInfo> Worker::Impl::list_connections() {
  std::vector<ConnectionInfo> infos;
  context_.connections.for_each([&](Connection& connection) { infos.push_back(connection.info()); });
  return infos;
}

void Worker::Impl::retire_pod(std::uint32_t slot) {
  const auto found = pods_.find(slot);
  if (found == pods_.end()) return;
  found->second->listening.clear();
  inbound_.drain_pod(slot);
}

std::vector<HeldListeners> Worker::Impl::hold() {
  held_ = true;
  std::vector<HeldListeners> all;
  for (auto& [slot, pod] : pods_) {
    HeldListeners held{.slot = slot, .sets = {}};
    for (Listening& listening : pod->listening) {
      listening.watcher.reset();
      // In the order of add_pod.
      if (listening.kind == Kind::kOutbound) held.sets.emplace_back();
      PodListeners& set = held.sets.back();
      Fd& copy = listening.kind == Kind::kOutbound ? set.outbound
                 : listening.kind == Kind::kHbone  ? set.inbound_hbone
                                                   : set.inbound_plaintext;
      copy.reset(::fcntl(listening.fd.get(), F_DUPFD_CLOEXEC, 0));
    }
    all.push_back(std::move(held));
  }
  return all;
}

void Worker::Impl::go_on() {
  held_ = false;
  for (auto& [slot, pod] : pods_) {
    for (Listening& listening : pod->listening) {
      if (listening.fd) watch(*pod, listening);
    }
  }
}

WorkerLoad Worker::Impl::load() const {
  return {.connections = context_.connections.size(), .tunnels = inbound_.size() + context_.pool.tunnels()};
}

void Worker::Impl::drain() {
  for (auto& [slot, pod] : pods_) {
    // What waits in the queues has been told that it is connected.
    for (Listening& listening : pod->listening) {
      if (!held_) on_acceptable(*pod, listening);
    }
    pod->listening.clear();
  }
  inbound_.drain();
  context_.pool.drain();
}

Worker::Worker(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Worker>> Worker::create(WorkerConfig config, Node& node, hbone::CertStore& certificates,
                                               telemetry::ConnectionMetrics& metrics) {
  auto loop = loop::EventLoop::create();
  if (!loop) return Failure(loop.error());
  return std::unique_ptr<Worker>(
      new Worker(std::make_unique<Impl>(std::move(config), std::move(*loop), node, certificates, metrics)));
}

Worker::~Worker() {
  if (impl_->thread.joinable()) {
    impl_->loop().stop();
    impl_->thread.join();
  }
}

void Worker::start() {
  impl_->thread = std::thread([this] { impl_->run(); });
}

void Worker::set_state(std::shared_ptr<const state::State> state) {
  impl_->loop().post([this, s = std::move(state)] { impl_->set_state(s); });
}

void Worker::certificates_changed() {
  impl_->loop().post([this] { impl_->on_certificates(); });
}

void Worker::names_changed() {
  impl_->loop().post([this] { impl_->on_names(); });
}

void Worker::add_pod(std::shared_ptr<const PodContext> pod, std::vector<PodListeners> sets) {
  // std::function wants a copyable task; the listeners are not.
  auto shared = std::make_shared<std::vector<PodListeners>>(std::move(sets));
  impl_->loop().post([this, p = std::move(pod), shared] { impl_->add_pod(p, std::move(*shared)); });
}

void Worker::retire_pod(std::uint32_t slot) {
  impl_->loop().post([this, slot] { impl_->retire_pod(slot); });
}

void Worker::remove_pod(std::uint32_t slot, std::function<void()> done) {
  impl_->loop().post([this, slot, d = std::move(done)] {
    impl_->remove_pod(slot);
    // What was cut is deleted at the end of this turn; after that nothing of the pod is held.
    impl_->loop().next_turn(d);
  });
}

void Worker::list_connections(std::function<void(std::vector<ConnectionInfo>)> done) {
  impl_->loop().post([this, d = std::move(done)] { d(impl_->list_connections()); });
}

void Worker::hold(std::function<void(std::vector<HeldListeners>)> done) {
  impl_->loop().post([this, d = std::move(done)] { d(impl_->hold()); });
}

void Worker::go_on() {
  impl_->loop().post([this] { impl_->go_on(); });
}

void Worker::count_load(std::function<void(WorkerLoad)> done) {
  impl_->loop().post([this, d = std::move(done)] { d(impl_->load()); });
}

void Worker::drain() {
  impl_->loop().post([this] { impl_->drain(); });
}

}  // namespace weft::proxy
