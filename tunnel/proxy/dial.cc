// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <netinet/tcp.h>

#include <array>
#include <cerrno>

#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"
#include "tunnel/proxy/context.h"

namespace weft::proxy {
namespace {

// TCP keepalive as ztunnel sets it: a dead peer is found after 180 s of silence.
constexpr int kKeepaliveSeconds = 180;
constexpr int kKeepaliveProbes = 9;

Result<Fd> socket_in(WorkerContext& worker, const PodContext& pod, const IpAddress& destination) {
  if (auto entered = worker.netns.enter(pod.netns); !entered) return Failure(entered.error());
  auto fd = sys::socket(destination.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM);
  if (!fd) return fd;
  if (auto set = set_stream_options(fd->get()); !set) return Failure(set.error());
  if (auto tagged = worker.node.tag_socket(fd->get()); !tagged) return Failure(tagged.error());
  return fd;
}

}  // namespace

Result<void> set_stream_options(int fd) {
  struct Option {
    int level, name, value;
  };
  constexpr std::array kOptions{Option{IPPROTO_TCP, TCP_NODELAY, 1}, Option{SOL_SOCKET, SO_KEEPALIVE, 1},
                                Option{IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveSeconds},
                                Option{IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveSeconds},
                                Option{IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveProbes}};
  for (const auto& [level, name, value] : kOptions) {
    if (auto set = sys::set_option(fd, level, name, value); !set) return set;
  }
  return {};
}

Result<void> NetnsSwitch::init() {
  home_.reset(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!home_) return fail_errno(errno, "open /proc/thread-self/ns/net");
  return {};
}

Result<void> NetnsSwitch::enter(const std::shared_ptr<const Fd>& netns) {
  if (netns.get() == current_ && !lost_) return {};
  if (auto entered = sys::enter_netns(netns ? netns->get() : home_.get()); !entered) return entered;
  current_ = netns.get();
  lost_ = false;
  return {};
}

void NetnsSwitch::leave(const std::shared_ptr<const Fd>& netns) {
  if (netns == nullptr || netns.get() != current_) return;
  auto home = enter(nullptr);
  if (home) return;
  // The descriptor goes, and the next pod's may come to lie in its place.
  lost_ = true;
  log::error("worker stays in a pod's netns until it dials from another error={}", log::quote(home.error().message()));
}

Result<Fd> dial_from_pod(WorkerContext& worker, const PodContext& pod, const Endpoint& destination) {
  auto fd = socket_in(worker, pod, destination.address);
  if (!fd) return fd;
  if (auto connecting = sys::connect(fd->get(), destination.to_sockaddr()); !connecting) {
    return Failure(connecting.error());
  }
  return fd;
}

Result<Fd> udp_from_pod(WorkerContext& worker, const PodContext& pod, const IpAddress& source,
                        const Endpoint& destination) {
  if (auto entered = worker.netns.enter(pod.netns); !entered) return Failure(entered.error());
  auto fd = sys::socket(destination.address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM);
  if (!fd) return fd;
  if (auto tagged = worker.node.tag_socket(fd->get()); !tagged) return Failure(tagged.error());
  if (auto bound = sys::bind(fd->get(), Endpoint{source, 0}.to_sockaddr()); !bound) return Failure(bound.error());
  auto connected = sys::connect(fd->get(), destination.to_sockaddr());
  if (!connected) return Failure(connected.error());
  return fd;
}

Result<hbone::Dialled> dial_tunnel(WorkerContext& worker, const PodContext& pod, const Endpoint& gateway) {
  const auto found = worker.pods.find(pod.slot);
  if (found == worker.pods.end()) return fail(ErrorCode::kNotFound, "the pod left the mesh or is gone");
  /// What the tunnel holds.
  struct Held {
    std::shared_ptr<PodState> pod;
    Charge charge;
  };
  auto held = std::make_shared<Held>(Held{found->second, {}});
  Admission admission = worker.limits->admit(held->pod->use, 1);
  if (admission.refused != Shed::kNone) {
    return fail(ErrorCode::kOverLimit, worker.limits->why(admission.refused, *held->pod->use));
  }
  held->charge = std::move(admission.charge);
  auto fd = dial_from_pod(worker, pod, gateway);
  if (!fd) return Failure(fd.error());
  return hbone::Dialled{std::move(*fd), &held->pod->starts, held};
}

namespace {

/// From the client's own address and this port; unset where that tuple is taken.
Result<Fd> dial_from(WorkerContext& worker, const PodContext& pod, const Endpoint& source,
                     const Endpoint& application) {
  auto fd = socket_in(worker, pod, application.address);
  if (!fd) return fd;
  const auto transparent = source.address.is_v4() ? sys::set_option(fd->get(), IPPROTO_IP, IP_TRANSPARENT, 1)
                                                  : sys::set_option(fd->get(), IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
  if (!transparent) return Failure(transparent.error());
  // Many connections may share a port as long as their tuples differ; connect() finds out.
  if (auto shared = sys::set_option(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1); !shared) return Failure(shared.error());
  if (auto bound = sys::bind(fd->get(), source.to_sockaddr()); !bound) {
    if (bound.error().errno_value == EADDRINUSE) return Fd();
    return Failure(bound.error());
  }
  auto connecting = sys::connect(fd->get(), application.to_sockaddr());
  if (connecting) return fd;
  if (connecting.error().errno_value == EADDRNOTAVAIL) return Fd();
  return Failure(connecting.error());
}

}  // namespace

Result<Fd> dial_application(WorkerContext& worker, const PodContext& pod, const IpAddress& client,
                            const Endpoint& application) {
  // A client of the other family (a dual-stack sidecar, say) has no address that the application could see.
  if (client.is_v4() != application.address.is_v4()) return dial_from_pod(worker, pod, application);
  if (auto entered = worker.netns.enter(pod.netns); !entered) return Failure(entered.error());
  auto& own = worker.ports.of(pod.slot, worker.random());
  PortSearch search(own.ports, own.cursor);
  for (std::uint16_t port = 0; search.next(worker.random(), port);) {
    auto fd = dial_from(worker, pod, {client, port}, application);
    if (!fd || fd->valid()) return fd;
  }
  return fail(ErrorCode::kUnavailable, "connect " + application.to_string() + " in the name of " + client.to_string() +
                                           ": no source port is free of the " + std::to_string(own.ports.count()) +
                                           " (1024 to 32767 without net.ipv4.ip_local_reserved_ports; has the client "
                                           "that many connections to this port?)");
}

}  // namespace weft::proxy
