// SPDX-License-Identifier: Apache-2.0
#include "agent/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <optional>
#include <system_error>
#include <thread>

#include "bpf/shared.h"
#include "tunnel/base/sys.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef IPV6_TRANSPARENT
#define IPV6_TRANSPARENT 75
#endif

namespace weft::agent {
namespace {

/// The kernel caps it at net.core.somaxconn of the pod's netns.
constexpr int kBacklog = 65535;
/// Of a UDP socket for DNS: some thousand questions.
constexpr int kDnsReceiveBytes = 2 << 20;

bool is_netns(int fd) {
  struct statfs fs {};
  if (::fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC) return false;
  return ::ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

/// Leaves errno alone.
bool is_on_nsfs(const std::string& path) {
  const int before = errno;
  struct statfs fs {};
  const bool is = ::statfs(path.c_str(), &fs) < 0 || fs.f_type == NSFS_MAGIC;
  errno = before;
  return is;
}

/// The calling thread's netns cookie, 0 where the kernel has none.
std::uint64_t own_cookie() {
  const Fd probe(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  if (!probe || ::getsockopt(probe.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) < 0) return 0;
  return cookie;
}

Endpoint::Sockaddr any_port_of_loopback(bool v6) {
  return Endpoint{IpAddress::parse(v6 ? "::1" : "127.0.0.1").value(), 0}.to_sockaddr();
}

Result<void> make_transparent(int fd, bool v6) {
  return v6 ? sys::set_option(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            : sys::set_option(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
}

Result<Fd> dns_socket(bool v6) {
  auto fd = sys::socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM);
  if (!fd) return fd;
  if (auto set = make_transparent(fd->get(), v6); !set) return Failure(set.error());
  // Which server was asked; the marks of answers; room for bursts, of which less is no failure.
  auto set = v6 ? sys::set_option(fd->get(), IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)
                : sys::set_option(fd->get(), IPPROTO_IP, IP_RECVORIGDSTADDR, 1);
  if (set) set = sys::set_option(fd->get(), SOL_SOCKET, SO_MARK, WEFT_MARK | WEFT_MARK_ANSWER);
  if (set) set = sys::bind(fd->get(), any_port_of_loopback(v6));
  if (!set) return Failure(set.error());
  (void)sys::set_option(fd->get(), SOL_SOCKET, SO_RCVBUFFORCE, kDnsReceiveBytes);
  return fd;
}

Result<NetnsAccess::DnsSockets> dns_sockets_of_worker() {
  NetnsAccess::DnsSockets sockets;
  auto v4 = dns_socket(false);
  if (!v4) return Failure(v4.error());
  sockets.v4 = std::move(*v4);
  auto v6 = dns_socket(true);
  if (!v6 && v6.error().errno_value != EAFNOSUPPORT) return Failure(v6.error());
  if (v6) sockets.v6 = std::move(*v6);
  return sockets;
}

Result<Fd> listener_of(int family) {
  auto fd = sys::socket(family, SOCK_STREAM);
  if (!fd) return fd;
  const bool v6 = family == AF_INET6;
  // Transparent before bind: accepted sockets inherit it and need it for their foreign local addresses, and it lets
  // [::1] be bound where lo is down or disable_ipv6 has taken the address away. IPV6_V6ONLY is left alone: binding to
  // [::1] sets it, and only lookups by port look at it, which never lead here.
  auto transparent = make_transparent(fd->get(), v6);
  if (!transparent) return Failure(transparent.error());
  if (auto bound = sys::bind(fd->get(), any_port_of_loopback(v6)); !bound) return Failure(bound.error());
  if (auto listening = sys::listen(fd->get(), kBacklog); !listening) return Failure(listening.error());
  // An accepted socket holds the port that the application dialled, in the pod's own table of ports: without this,
  // which it inherits, a server of the pod could not listen on a port that the pod also calls elsewhere. Set last, so
  // that the listener's own port is not shared.
  if (auto shared = sys::set_option(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1); !shared) return Failure(shared.error());
  return fd;
}

Result<Fd> listener() {
  auto fd = listener_of(AF_INET6);
  if (!fd && fd.error().errno_value == EAFNOSUPPORT) return listener_of(AF_INET);
  return fd;
}

Result<proxy::PodListeners> listeners_of_worker() {
  proxy::PodListeners listeners;
  for (Fd* slot : {&listeners.outbound, &listeners.inbound_hbone, &listeners.inbound_plaintext}) {
    auto fd = listener();
    if (!fd) return Failure(fd.error());
    *slot = std::move(*fd);
  }
  return listeners;
}

}  // namespace

Result<void> run_in_netns(int netns_fd, const std::function<Result<void>()>& work) {
  std::optional<Result<void>> result;
  try {
    std::thread thread([&] {
      auto entered = sys::enter_netns(netns_fd);
      result = entered ? work() : std::move(entered);
    });
    thread.join();
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start a thread for a pod's netns");
  }
  return std::move(*result);
}

Result<std::uint64_t> KernelNetns::inode(int fd) {
  if (fd < 0) return fail(ErrorCode::kInvalid, "netns descriptor: none was given");
  if (!is_netns(fd)) return fail(ErrorCode::kInvalid, "netns descriptor: it is not a network namespace");
  struct stat st {};
  if (::fstat(fd, &st) < 0) return fail_errno(errno, "stat the netns descriptor");
  return st.st_ino;
}

Result<NetnsId> KernelNetns::identify(int fd) {
  auto number = inode(fd);
  if (!number) return Failure(number.error());
  struct stat own {};
  if (::stat("/proc/self/ns/net", &own) == 0 && own.st_ino == *number) {
    return fail(ErrorCode::kInvalid,
                "netns descriptor: it is the agent's own network namespace (a hostNetwork pod cannot be wired)");
  }
  NetnsId id{.inode = *number};
  auto entered = run_in_netns(fd, [&]() -> Result<void> {
    id.cookie = own_cookie();
    return {};
  });
  if (!entered) return Failure(entered.error());
  return id;
}

Result<Fd> KernelNetns::open(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  // What is left when the bind mount is gone is an empty file, often of mode 0, which root may not open either without
  // CAP_DAC_OVERRIDE.
  if (!fd && (errno != EACCES || is_on_nsfs(path))) return fail_errno(errno, "open netns " + path);
  if (!fd || !is_netns(fd.get()))
    return fail(ErrorCode::kNotFound, "open netns " + path + ": no network namespace is mounted there");
  return fd;
}

Result<std::vector<proxy::PodListeners>> KernelNetns::open_listeners(int netns_fd, std::uint32_t workers) {
  std::vector<proxy::PodListeners> all;
  auto done = run_in_netns(netns_fd, [&]() -> Result<void> {
    for (std::uint32_t i = 0; i < workers; ++i) {
      auto listeners = listeners_of_worker();
      if (!listeners) return Failure(listeners.error());
      all.push_back(std::move(*listeners));
    }
    return {};
  });
  if (!done) {
    Error error = done.error();
    error.context = "open the pod's listeners: " + error.context;
    return Failure(std::move(error));
  }
  return all;
}

Result<std::vector<NetnsAccess::DnsSockets>> KernelNetns::open_dns_sockets(int netns_fd, std::uint32_t workers) {
  std::vector<DnsSockets> all;
  auto done = run_in_netns(netns_fd, [&]() -> Result<void> {
    for (std::uint32_t i = 0; i < workers; ++i) {
      auto sockets = dns_sockets_of_worker();
      if (!sockets) return Failure(sockets.error());
      all.push_back(std::move(*sockets));
    }
    return {};
  });
  if (!done) {
    Error error = done.error();
    error.context = "open the pod's DNS sockets: " + error.context;
    return Failure(std::move(error));
  }
  return all;
}

}  // namespace weft::agent
