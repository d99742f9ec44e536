// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/worker.h"

#include <fcntl.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>

#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/dns_server.h"
#include "tunnel/proxy/inbound.h"
#include "tunnel/proxy/inbound_plaintext.h"
#include "tunnel/proxy/inbound_policy.h"
#include "tunnel/proxy/listener.h"
#include "tunnel/proxy/outbound.h"
#include "tunnel/proxy/tunnel_checks.h"

namespace weft::proxy {

/// Everything of a worker; but for create and the destructor only its own thread calls in.
class Worker::Impl {
 public:
  Impl(WorkerConfig config, std::unique_ptr<loop::EventLoop> event_loop, Node& node, hbone::CertStore& certificates,
       telemetry::ConnectionMetrics& metrics)
      : loop_(std::move(event_loop)),
        context_(std::move(config), node, certificates, metrics, *loop_),
        gate_(*loop_, *context_.limits),
        inbound_(context_) {}
  ~Impl();

  [[nodiscard]] loop::EventLoop& loop() { return *loop_; }
  void run();
  void set_state(std::shared_ptr<const state::State> state);
  void on_certificates();
  void set_revocations(hbone::RevocationsPtr revocations);
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
  std::atomic<bool> certificates_pending{false};  ///< on_certificates() is posted and has not begun

 private:
  enum class Kind : std::uint8_t { kOutbound, kHbone, kPlaintext };
  struct Listening {
    Kind kind;
    std::unique_ptr<Listener> listener;  ///< null: its descriptor did not arrive
  };
  struct Pod {
    std::shared_ptr<const PodContext> context;
    std::shared_ptr<PodState> state;
    std::vector<Listening> listening;
    std::unique_ptr<DnsServer> dns;  ///< null where its DNS is not captured
  };

  void listen_on(Pod& pod, Kind kind, Fd fd);
  void take(const Pod& pod, Kind kind, Captured captured);
  void take_outbound(const Pod& pod, Captured captured);
  /// What it may have, or nothing where it was sent away for want of room.
  std::optional<Charge> admit(const Pod& pod, Kind kind, Captured& captured);
  void refuse(const Pod& pod, Kind kind, Captured& captured, telemetry::ResponseFlag flag, const std::string& why);

  std::unique_ptr<loop::EventLoop> loop_;
  WorkerContext context_;
  AcceptGate gate_;
  InboundTunnels inbound_;
  std::map<std::uint32_t, std::unique_ptr<Pod>> pods_;
  bool held_ = false;  ///< somebody else may accept now
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
  for (auto& [slot, pod] : pods_) {
    if (pod->dns) pod->dns->on_snapshot();
  }
}

void Worker::Impl::on_certificates() {
  inbound_.go_on();
  context_.connections.for_each([](Connection& connection) { connection.on_certificates(); });
  drain_untrusted(context_, inbound_);
}

void Worker::Impl::set_revocations(hbone::RevocationsPtr revocations) {
  context_.revocations = std::move(revocations);
  cut_revoked(context_, inbound_);
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
  if (!pod->state) pod->state = std::make_shared<PodState>(*loop_, context_.limits->use_of(pod->context));
  context_.pods[pod->context->slot] = pod->state;
  const bool has_dns = pod->dns && !pod->dns->drained();
  if (pod->context->dns && !has_dns) pod->dns = std::make_unique<DnsServer>(context_, pod->context, pod->state);
  for (PodListeners& set : sets) {
    if (pod->context->dns) pod->dns->listen(std::move(set.dns_v4), std::move(set.dns_v6));
    listen_on(*pod, Kind::kOutbound, std::move(set.outbound));
    listen_on(*pod, Kind::kHbone, std::move(set.inbound_hbone));
    listen_on(*pod, Kind::kPlaintext, std::move(set.inbound_plaintext));
  }
}

void Worker::Impl::listen_on(Pod& pod, Kind kind, Fd fd) {
  Listening& listening = pod.listening.emplace_back(Listening{kind, nullptr});
  if (!fd) {
    return log::error("listener is missing pod={}/{} (was the agent before out of file descriptors?)",
                      pod.context->namespace_name, pod.context->name);
  }
  listening.listener =
      std::make_unique<Listener>(gate_, pod.state->starts, std::move(fd),
                                 [this, &pod, kind](Captured captured) { take(pod, kind, std::move(captured)); });
}

void Worker::Impl::take(const Pod& pod, Kind kind, Captured captured) {
  using telemetry::ResponseFlag;
  if (!captured.broken.empty()) return refuse(pod, kind, captured, ResponseFlag::kConnect, captured.broken);
  // Capture alone leads here: whoever dialled the listener itself is not captured, and would make the agent dial
  // itself.
  const IpAddress& dialled = captured.local.address;
  if (captured.local == captured.listener || dialled.is_loopback() || dialled.is_unspecified()) return;
  if (kind == Kind::kOutbound) return take_outbound(pod, std::move(captured));
  const auto& own = pod.context->addresses;
  if (std::ranges::find(own, captured.local.address) == own.end()) return;
  auto charge = admit(pod, kind, captured);
  if (!charge) return;
  if (auto tagged = context_.node.tag_socket(captured.fd.get()); !tagged) {
    return refuse(pod, kind, captured, ResponseFlag::kConnect, tagged.error().message());
  }
  if (kind == Kind::kHbone) {
    return inbound_.accept(pod.context, std::move(captured.fd), captured.peer, std::move(*charge));
  }
  auto& added = context_.connections.add(std::make_unique<InboundPlaintext>(
      context_, pod.context, std::move(captured.fd), captured.peer, captured.local, std::move(*charge)));
  added.count_socket();
  static_cast<InboundPlaintext&>(added).start();
}

void Worker::Impl::take_outbound(const Pod& pod, Captured captured) {
  const auto& own = pod.context->addresses;
  if (std::ranges::find(own, captured.peer.address) == own.end()) {
    log::warn("captured connection dropped: its source is not the pod's pod={}/{} source={} destination={}",
              pod.context->namespace_name, pod.context->name, captured.peer.to_string(), captured.local.to_string());
    return;
  }
  auto charge = admit(pod, Kind::kOutbound, captured);
  if (!charge) return;
  if (pod.dns && captured.local.port == state::kDnsPort) return pod.dns->take(std::move(captured), std::move(*charge));
  auto& added = context_.connections.add(std::make_unique<Outbound>(context_, pod.context, std::move(captured.fd),
                                                                    captured.peer, captured.local, std::move(*charge)));
  added.count_socket();
  static_cast<Outbound&>(added).start();
}

/// A connection of an application may need a second socket: it is counted until it is known that it does not.
std::optional<Charge> Worker::Impl::admit(const Pod& pod, Kind kind, Captured& captured) {
  PodUse& use = *pod.state->use;
  Admission admission;
  if (captured.spare) {
    use.count_shed(admission.refused = Shed::kDescriptors);
  } else {
    admission = context_.limits->admit(pod.state->use, kind == Kind::kHbone ? 1 : 2);
  }
  if (admission.refused == Shed::kNone) return std::move(admission.charge);
  refuse(pod, kind, captured, telemetry::ResponseFlag::kOverflow,
         captured.spare ? "out of file descriptors (raise the agent's limit of open files)"
                        : context_.limits->why(admission.refused, use));
  return {};
}

/// What was brought here and cannot be served: its peer hears a reset, not an end, and there is a record of it.
void Worker::Impl::refuse(const Pod& pod, Kind kind, Captured& captured, telemetry::ResponseFlag flag,
                          const std::string& why) {
  sys::close_with_reset(captured.fd);
  telemetry::ConnectionResult result;
  result.reporter = kind == Kind::kOutbound ? telemetry::Reporter::kSource : telemetry::Reporter::kDestination;
  result.source.endpoint = captured.peer;
  result.destination.endpoint = captured.local;
  result.flag = flag;
  result.error = why;
  record_refused(context_, *pod.context, std::move(result));
}

void Worker::Impl::remove_pod(std::uint32_t slot) {
  const auto node = pods_.extract(slot);
  if (node.empty()) return;
  const std::string why = "the pod left the mesh or is gone";
  node.mapped()->listening.clear();
  node.mapped()->dns.reset();
  context_.connections.for_each([&](Connection& connection) {
    if (connection.pod().slot == slot) connection.cut(telemetry::ResponseFlag::kNone, why);
  });
  context_.pool.close_pod(slot, why);
  inbound_.close_pod(slot, why);
  context_.ports.forget(slot);
  context_.pods.erase(slot);
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
  if (found->second->dns) found->second->dns->drain();
  inbound_.drain_pod(slot);
}

std::vector<HeldListeners> Worker::Impl::hold() {
  held_ = true;
  std::vector<HeldListeners> all;
  for (auto& [slot, pod] : pods_) {
    HeldListeners held{.slot = slot, .sets = {}};
    for (const auto& [kind, listener] : pod->listening) {
      // In the order of add_pod.
      if (kind == Kind::kOutbound) held.sets.emplace_back();
      if (!listener) continue;
      listener->hold();
      PodListeners& set = held.sets.back();
      Fd& copy = kind == Kind::kOutbound ? set.outbound
                 : kind == Kind::kHbone  ? set.inbound_hbone
                                         : set.inbound_plaintext;
      copy.reset(::fcntl(listener->fd(), F_DUPFD_CLOEXEC, 0));
    }
    if (pod->dns) {
      pod->dns->hold();
      pod->dns->copy_sockets(held.sets);
    }
    all.push_back(std::move(held));
  }
  return all;
}

void Worker::Impl::go_on() {
  held_ = false;
  for (auto& [slot, pod] : pods_) {
    for (const auto& [kind, listener] : pod->listening) {
      if (listener) listener->go_on();
    }
    if (pod->dns) pod->dns->go_on();
  }
}

WorkerLoad Worker::Impl::load() const {
  std::size_t questions = 0;
  for (const auto& [slot, pod] : pods_) questions += pod->dns ? pod->dns->load() : 0;
  return {.connections = context_.connections.size() + questions, .tunnels = inbound_.size() + context_.pool.tunnels()};
}

void Worker::Impl::drain() {
  for (auto& [slot, pod] : pods_) {
    // What waits in the queues has been told that it is connected.
    for (const auto& [kind, listener] : pod->listening) {
      if (listener && !held_) listener->accept_waiting();
    }
    pod->listening.clear();
    if (pod->dns) pod->dns->drain();
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
  // Many come at once when all are renewed: one look serves them.
  if (impl_->certificates_pending.exchange(true)) return;
  impl_->loop().post([this] {
    impl_->certificates_pending = false;
    impl_->on_certificates();
  });
}

void Worker::set_revocations(hbone::RevocationsPtr revocations) {
  impl_->loop().post([this, r = std::move(revocations)] { impl_->set_revocations(r); });
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
