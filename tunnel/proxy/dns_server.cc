// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/dns_server.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>

#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"

namespace weft::proxy {
namespace {

/// Datagrams taken in one turn of a pod.
constexpr int kTakenInOneGo = 8;
/// As many as a socket may hold: what had arrived before another agent took over.
constexpr int kAllThatWait = 4096;
/// Until a socket is looked at again that the kernel had no memory for.
constexpr milliseconds kLookAgain{25};

}  // namespace

DnsServer::DnsServer(WorkerContext& worker, std::shared_ptr<const PodContext> pod, std::shared_ptr<PodState> state)
    : worker_(worker), pod_(std::move(pod)), state_(std::move(state)) {}

DnsServer::~DnsServer() = default;

void DnsServer::listen(Fd v4, Fd v6) {
  auto& set = sets_.emplace_back(std::make_unique<SocketSet>());
  set->v4.fd = std::move(v4);
  set->v6.fd = std::move(v6);
  for (Socket* socket : {&set->v4, &set->v6}) {
    if (socket->fd) arm(*socket);
  }
}

void DnsServer::arm(Socket& socket) {
  socket.watcher.reset();
  if (held_ || drained_ || worker_.state == nullptr) return;
  auto watcher = worker_.loop.watch(
      socket.fd.get(), EPOLLIN, [this, &socket](std::uint32_t) { queue_turn(socket); }, true);
  if (!watcher) return rest(socket);
  socket.watcher = std::move(*watcher);
}

void DnsServer::rest(Socket& socket) {
  socket.watcher.reset();
  if (!socket.again) socket.again = std::make_unique<loop::Timer>(worker_.loop);
  socket.again->arm(kLookAgain, [this, &socket] { arm(socket); });
}

void DnsServer::on_snapshot() {
  each_socket([this](Socket& socket) { arm(socket); });
  std::vector<DnsStream*> waiting;
  for (const auto& [stream, owned] : streams_) waiting.push_back(stream);
  for (DnsStream* stream : waiting) {
    if (streams_.contains(stream)) stream->on_snapshot();
  }
}

void DnsServer::hold() {
  held_ = true;
  each_socket([](Socket& socket) {
    socket.turn.cancel();
    socket.watcher.reset();
    socket.again.reset();
  });
}

void DnsServer::go_on() {
  held_ = false;
  each_socket([this](Socket& socket) { arm(socket); });
}

void DnsServer::copy_sockets(std::vector<PodListeners>& sets) const {
  const auto copy = [](const Fd& fd) { return fd ? Fd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)) : Fd(); };
  for (std::size_t i = 0; i < std::min(sets.size(), sets_.size()); ++i) {
    sets[i].dns_v4 = copy(sets_[i]->v4.fd);
    sets[i].dns_v6 = copy(sets_[i]->v6.fd);
  }
}

void DnsServer::drain() {
  if (drained_) return;
  // Who holds the sockets also takes what waits in them; where nobody does, it is ours.
  if (!held_ && worker_.state != nullptr) {
    each_socket([this](Socket& socket) {
      for (int i = 0; i < kAllThatWait && take_some(socket); i += kTakenInOneGo) continue;
    });
  }
  hold();
  drained_ = true;
  close_when_done();
}

/// The sockets of a server that has drained serve for the answers that are still to come.
void DnsServer::close_when_done() {
  if (drained_ && forwards_.empty()) sets_.clear();
}

void DnsServer::queue_turn(Socket& socket) {
  socket.turn.queue(state_->starts, [this, &socket] {
    // There may be more; the loop tells again where there is none left.
    if (take_some(socket)) queue_turn(socket);
  });
}

/// False when there are no more, or it cannot go on now.
bool DnsServer::take_some(Socket& socket) {
  for (int i = 0; i < kTakenInOneGo; ++i) {
    const auto buffer = worker_.scratch.plain();
    auto got = sys::recv_datagram(socket.fd.get(), buffer);
    if (!got) {
      log::warn("DNS questions of a pod cannot be read now pod={}/{} error={}", pod_->namespace_name, pod_->name,
                log::quote(got.error().message()));
      rest(socket);
      return false;
    }
    if (!got->has_value()) return false;
    const Asker asker{&socket, (*got)->source, (*got)->destination};
    if (is_from_pod(asker)) on_message(asker, buffer.first((*got)->bytes));
  }
  return true;
}

/// Capture alone leads here: whoever sends to the socket's own address is not captured.
bool DnsServer::is_from_pod(const Asker& asker) const {
  const IpAddress& dialled = asker.server.address;
  if (!dialled.valid() || dialled.is_loopback() || dialled.is_unspecified()) return false;
  return std::ranges::find(pod_->addresses, asker.client.address) != pod_->addresses.end();
}

void DnsServer::on_message(const Asker& asker, std::span<const std::byte> message) {
  auto verdict = judge_question(worker_, *pod_, message, DnsTransport::kUdp);
  switch (verdict.kind) {
    case DnsVerdict::Kind::kDrop:
      return;
    case DnsVerdict::Kind::kAnswer:
      return answer(asker, verdict.answer);
    case DnsVerdict::Kind::kForward:
      return forward(asker, std::move(verdict), message);
  }
}

void DnsServer::forward(const Asker& asker, DnsVerdict verdict, std::span<const std::byte> message) {
  telemetry::DnsMetrics::Handle& metrics = *verdict.metrics;
  const auto refuse = [&](const std::string& why) {
    telemetry::DnsMetrics::failed(metrics);
    log::debug("DNS question not forwarded pod={}/{} server={} error={}", pod_->namespace_name, pod_->name,
               asker.server.to_string(), log::quote(why));
    answer(asker, dns::write_failure(verdict.inquiry, dns::ResponseCode::kServerFailure));
  };
  if (forwards_.size() >= worker_.config.dns_forwards_max) {
    return refuse(std::to_string(forwards_.size()) + " are under way, no more may be");
  }
  Admission admission = worker_.limits->admit(state_->use, 1);
  if (admission.refused != Shed::kNone) return refuse(worker_.limits->why(admission.refused, *state_->use));
  auto made = std::make_unique<DnsForward>(
      worker_, verdict.inquiry, std::move(admission.charge),
      [this, asker, &metrics](DnsForward& self, DnsForward::Outcome outcome, std::span<const std::byte> bytes) {
        on_forwarded(self, asker, metrics, outcome, bytes);
      });
  if (auto started = made->start(*pod_, asker.client.address, asker.server, message); !started) {
    return refuse(started.error().message());
  }
  telemetry::DnsMetrics::forwarded(metrics);
  DnsForward& forward = *made;
  forwards_.emplace(&forward, std::move(made));
}

void DnsServer::on_forwarded(DnsForward& forward, const Asker& asker, telemetry::DnsMetrics::Handle& metrics,
                             DnsForward::Outcome outcome, std::span<const std::byte> bytes) {
  switch (outcome) {
    case DnsForward::Outcome::kAnswered:
      telemetry::DnsMetrics::answered(metrics, worker_.loop.now() - forward.started());
      answer(asker, bytes);
      break;
    case DnsForward::Outcome::kRefused:
      telemetry::DnsMetrics::failed(metrics);
      answer(asker, dns::write_failure(forward.inquiry(), dns::ResponseCode::kServerFailure));
      break;
    case DnsForward::Outcome::kSilent:
      telemetry::DnsMetrics::failed(metrics);
      break;
  }
  // It is its own caller: it goes when the turn is over.
  if (auto ended = forwards_.extract(&forward); !ended.empty()) worker_.loop.defer_delete(std::move(ended.mapped()));
  close_when_done();
}

void DnsServer::answer(const Asker& asker, std::span<const std::byte> message) const {
  if (message.empty()) return;
  auto sent = sys::send_datagram(asker.socket->fd.get(), message, asker.server.address, asker.client);
  if (sent) return;  // one that did not go is lost, as datagrams are
  log::debug("DNS answer not sent pod={}/{} error={}", pod_->namespace_name, pod_->name,
             log::quote(sent.error().message()));
}

void DnsServer::take(Captured captured, Charge charge) {
  auto made = std::make_unique<DnsStream>(worker_, pod_, state_, captured.peer, captured.local, std::move(charge),
                                          [this](DnsStream& stream) {
                                            auto ended = streams_.extract(&stream);
                                            if (!ended.empty()) worker_.loop.defer_delete(std::move(ended.mapped()));
                                          });
  DnsStream& stream = *made;
  streams_.emplace(&stream, std::move(made));
  stream.start(std::move(captured.fd));
}

}  // namespace weft::proxy
