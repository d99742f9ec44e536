// SPDX-License-Identifier: Apache-2.0
// How an agent takes over from another one, and how it outlives the one that takes over from it.
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/agent_impl.h"
#include "agent/version.h"
#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"

namespace weft::agent {
namespace {

/// How long an agent that takes over waits for its configuration, while the other one goes on.
constexpr milliseconds kConfigurationTime{100'000};
constexpr milliseconds kCertificateTime{10'000};
/// What peers may take to end tunnels that carry nothing any more.
constexpr milliseconds kTunnelTime{30'000};
constexpr milliseconds kOutlivePoll{200};

}  // namespace

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
  // Its reconciliation has come to a rest only now.
  if (auto refreshed = capture->refresh_attached(); !refreshed)
    log::warn("attached programs may be the other agent's error={}", log::quote(refreshed.error().message()));
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
                      .limits = limits,
                      .servers = {},
                      .retired = [this] {
                        taken_over = true;
                        ::eventfd_write(retired.get(), 1);
                      }};
  for (const auto& server : servers) parts.servers.push_back(server.get());
  giver = std::make_unique<HandoverGiver>(std::move(parts));
  auto started = HandoverServer::start(handover_path(), *giver);
  if (!started) return Failure(started.error());
  handover = std::move(*started);
  return {};
}

/// Another agent runs the node. This one's connections live on until they end, or the time is up where it has a limit:
/// under the policies of every snapshot that comes, and cut by every revocation list. What stops a pod of Kubernetes
/// begins with SIGTERM and has a limit of its own, so the first signal is no reason to cut them.
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

}  // namespace weft::agent
