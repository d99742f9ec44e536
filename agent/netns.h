// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "agent/live_plaintext.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/proxy/worker.h"

namespace weft::agent {

/// What tells one network namespace from another. The inode alone may be reused after a netns is gone; the cookie never
/// is within one boot, but kernels before 5.14 have none (0).
struct NetnsId {
  std::uint64_t inode = 0;
  std::uint64_t cookie = 0;
  /// Equal inodes, and equal cookies where both are known.
  [[nodiscard]] bool same(const NetnsId& other) const {
    return inode == other.inode && (cookie == 0 || other.cookie == 0 || cookie == other.cookie);
  }
};

/// The network namespaces of pods, as enrolment needs them; tests give a fake. Thread-safe.
class NetnsAccess {
 public:
  virtual ~NetnsAccess() = default;
  /// Errors: kInvalid where the descriptor is no network namespace, or is the agent's own.
  virtual Result<NetnsId> identify(int fd) = 0;
  /// The inode alone, cheaply: enough where a held descriptor keeps it from being reused.
  virtual Result<std::uint64_t> inode(int fd) = 0;
  /// Opens the netns that is mounted at `path`. Errors: kNotFound where the path is gone or is no netns any more.
  virtual Result<Fd> open(const std::string& path) = 0;
  /// Makes one set of listeners for each worker inside the netns.
  virtual Result<std::vector<proxy::PodListeners>> open_listeners(int netns_fd, std::uint32_t workers) = 0;
  struct DnsSockets {
    Fd v4, v6;  ///< v6 is -1 where the kernel does not have it
  };
  /// Makes the UDP sockets that each worker takes the pod's DNS questions from (proxy::PodListeners).
  virtual Result<std::vector<DnsSockets>> open_dns_sockets(int netns_fd, std::uint32_t workers) = 0;
  /// See cut_live_plaintext.
  virtual Result<std::vector<CutConnection>> cut_plaintext(int netns_fd, const DeniedBy& denied_by) = 0;
  /// See agent::plain_connections.
  virtual Result<std::vector<PlainConnection>> plain_connections(int netns_fd, const IsMesh& is_mesh, bool end) = 0;
};

/// The kernel's namespaces. Needs CAP_SYS_ADMIN for open_listeners.
class KernelNetns : public NetnsAccess {
 public:
  Result<NetnsId> identify(int fd) override;
  Result<std::uint64_t> inode(int fd) override;
  Result<Fd> open(const std::string& path) override;
  /// A listener is an AF_INET6 socket on [::1] and a free port, transparent, for both families (IPv4 connections come
  /// as IPv4-mapped ones), and never with SO_REUSEPORT, which bpf_sk_assign refuses before Linux 6.6 and which would
  /// let a process of the pod join. AF_INET on 127.0.0.1 where the kernel has no IPv6.
  Result<std::vector<proxy::PodListeners>> open_listeners(int netns_fd, std::uint32_t workers) override;
  /// Each on a free port of the family's loopback address, transparent, so that answers come from the server that was
  /// asked, and with the marks by which capture gives them that server's port.
  Result<std::vector<DnsSockets>> open_dns_sockets(int netns_fd, std::uint32_t workers) override;
  Result<std::vector<CutConnection>> cut_plaintext(int netns_fd, const DeniedBy& denied_by) override {
    return cut_live_plaintext(netns_fd, denied_by);
  }
  Result<std::vector<PlainConnection>> plain_connections(int netns_fd, const IsMesh& is_mesh, bool end) override {
    return agent::plain_connections(netns_fd, is_mesh, end);
  }
};

/// Runs `work` on a thread of its own inside the netns and waits for it. The thread ends there, so that no thread of
/// the agent ever stays in a pod's netns.
Result<void> run_in_netns(int netns_fd, const std::function<Result<void>()>& work);

}  // namespace weft::agent
