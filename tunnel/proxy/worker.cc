// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/worker.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"
#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound.h"
#include "tunnel/proxy/inbound_plaintext.h"
#include "tunnel/proxy/outbound.h"

namespace weft::proxy {
namespace {

/// Connections taken from one listener in one turn.
constexpr int kAcceptsPerTurn = 64;

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
  void add_pod(std::shared_ptr<const PodContext> pod, PodListeners listeners);
  void remove_pod(std::uint32_t slot);
  [[nodiscard]] std::vector<ConnectionInfo> list_connections();
  void drain();
  void close_all(const std::string& why);

  std::thread thread;

 private:
  enum class Kind : std::uint8_t { kOutbound, kHbone, kPlaintext };
  struct Listening {
    Fd fd;
    Endpoint local;
    loop::Watcher watcher;
    void close() {
      watcher.reset();
      fd.reset();
    }
  };
  struct Pod {
    std::shared_ptr<const PodContext> context;
    Listening outbound, hbone, plaintext;
  };

  void listen_on(Pod& pod, Listening& listening, Fd fd, Kind kind);
  void on_acceptable(Pod& pod, Listening& listening, Kind kind);
  void take(Pod& pod, const Listening& listening, Kind kind, sys::Accepted accepted);
  void shed(int listener);

  std::unique_ptr<loop::EventLoop> loop_;
  WorkerContext context_;
  InboundTunnels inbound_;
  std::map<std::uint32_t, std::unique_ptr<Pod>> pods_;
  Fd reserve_{::open("/dev/null", O_RDONLY | O_CLOEXEC)};  ///< given up to refuse a connection when descriptors run out
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

void Worker::Impl::add_pod(std::shared_ptr<const PodContext> context, PodListeners listeners) {
  remove_pod(context->slot);
  auto pod = std::make_unique<Pod>();
  pod->context = std::move(context);
  listen_on(*pod, pod->outbound, std::move(listeners.outbound), Kind::kOutbound);
  listen_on(*pod, pod->hbone, std::move(listeners.inbound_hbone), Kind::kHbone);
  listen_on(*pod, pod->plaintext, std::move(listeners.inbound_plaintext), Kind::kPlaintext);
  const std::uint32_t slot = pod->context->slot;
  pods_.emplace(slot, std::move(pod));
}

void Worker::Impl::listen_on(Pod& pod, Listening& listening, Fd fd, Kind kind) {
  const auto report = [&](const Error& error) {
    log::error("listener does not work pod={}/{} error={}", pod.context->namespace_name, pod.context->name,
               log::quote(error.message()));
  };
  if (auto set = set_stream_options(fd.get()); !set) return report(set.error());
  auto local = sys::local_endpoint(fd.get());
  if (!local) return report(local.error());
  listening.local = *local;
  listening.fd = std::move(fd);
  auto watcher = loop_->watch(
      listening.fd.get(), EPOLLIN,
      [this, &pod, &listening, kind](std::uint32_t) { on_acceptable(pod, listening, kind); }, true);
  if (!watcher) return report(watcher.error());
  listening.watcher = std::move(*watcher);
}

void Worker::Impl::on_acceptable(Pod& pod, Listening& listening, Kind kind) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    auto accepted = sys::accept(listening.fd.get());
    if (!accepted) {
      const int error = accepted.error().errno_value;
      if (error == EMFILE || error == ENFILE) return shed(listening.fd.get());
      if (error == ECONNABORTED || error == EPROTO) continue;
      log::warn("accept failed pod={}/{} error={}", pod.context->namespace_name, pod.context->name,
                log::quote(accepted.error().message()));
      return;
    }
    if (!accepted->has_value()) return;
    take(pod, listening, kind, std::move(**accepted));
  }
}

/// Out of descriptors: an answer (the connection is closed) is better than a stall.
void Worker::Impl::shed(int listener) {
  reserve_.reset();
  if (auto accepted = sys::accept(listener); accepted && accepted->has_value()) (*accepted)->fd.reset();
  reserve_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  log::error("out of file descriptors: a connection was refused (raise the limit or the memory of the agent)");
}

void Worker::Impl::take(Pod& pod, const Listening& listening, Kind kind, sys::Accepted accepted) {
  const auto local = sys::local_endpoint(accepted.fd.get());
  if (!local) return;
  // Capture alone leads here: whoever dialled the listener itself is not captured, and would make the agent dial
  // itself.
  if (*local == listening.local || local->address.is_loopback() || local->address.is_unspecified()) return;
  const auto& own = pod.context->addresses;
  const bool local_is_own = std::ranges::find(own, local->address) != own.end();
  if (kind == Kind::kOutbound) {
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
    log::error("inbound connection dropped: its socket cannot be tagged pod={}/{} error={}",
               pod.context->namespace_name, pod.context->name, log::quote(tagged.error().message()));
    return;
  }
  if (kind == Kind::kHbone) {
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
  node.mapped()->outbound.close();
  node.mapped()->hbone.close();
  node.mapped()->plaintext.close();
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

void Worker::Impl::drain() {
  for (auto& [slot, pod] : pods_) {
    pod->outbound.close();
    pod->hbone.close();
    pod->plaintext.close();
  }
  inbound_.drain();
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

void Worker::add_pod(std::shared_ptr<const PodContext> pod, PodListeners listeners) {
  // std::function wants a copyable task; the listeners are not.
  auto shared = std::make_shared<PodListeners>(std::move(listeners));
  impl_->loop().post([this, p = std::move(pod), shared] { impl_->add_pod(p, std::move(*shared)); });
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

void Worker::drain() {
  impl_->loop().post([this] { impl_->drain(); });
}

}  // namespace weft::proxy
