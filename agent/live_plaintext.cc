// SPDX-License-Identifier: Apache-2.0
#include "agent/live_plaintext.h"

#include <dirent.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "agent/netns.h"
#include "tunnel/base/fd.h"
#include "tunnel/state/workload.h"

namespace weft::agent {
namespace {

constexpr std::size_t kReplyBytes = 32U << 10;
constexpr timeval kTimeout{.tv_sec = 2, .tv_usec = 0};

constexpr std::uint32_t bit(int state) { return 1U << static_cast<unsigned>(state); }
constexpr std::uint32_t kLive = bit(TCP_ESTABLISHED) | bit(TCP_SYN_RECV) | bit(TCP_FIN_WAIT1) | bit(TCP_FIN_WAIT2) |
                                bit(TCP_CLOSE_WAIT) | bit(TCP_CLOSING) | bit(TCP_LAST_ACK);

/// A socket as the kernel lists it.
struct Listed {
  inet_diag_msg message;
  Endpoint local, remote;
};

Endpoint endpoint(std::uint8_t family, const __be32 (&address)[4], __be16 port) {
  sockaddr_storage storage{};
  if (family == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = port;
    std::memcpy(&in.sin_addr, address, sizeof in.sin_addr);
    std::memcpy(&storage, &in, sizeof in);
  } else {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    in6.sin6_port = port;
    std::memcpy(&in6.sin6_addr, address, sizeof in6.sin6_addr);
    std::memcpy(&storage, &in6, sizeof in6);
  }
  return Endpoint::from_sockaddr(storage);
}

/// The kernel's list of TCP sockets of the netns that it was opened in (sock_diag(7)).
class SocketList {
 public:
  static Result<SocketList> open() {
    Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!fd) return fail_errno(errno, "open the list of sockets");
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kTimeout, sizeof kTimeout);
    return SocketList(std::move(fd));
  }

  /// Those of one family in these states.
  Result<std::vector<Listed>> dump(std::uint8_t family, std::uint32_t states) {
    Query query = query_of(family, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP);
    query.request.idiag_states = states;
    std::vector<Listed> all;
    auto done = ask(query, [&](const inet_diag_msg& m) {
      all.push_back({m, endpoint(m.idiag_family, m.id.idiag_src, m.id.idiag_sport),
                     endpoint(m.idiag_family, m.id.idiag_dst, m.id.idiag_dport)});
    });
    if (!done) return Failure(done.error());
    return all;
  }

  /// The same of both families.
  Result<std::vector<Listed>> dump_all(std::uint32_t states) {
    auto all = dump(AF_INET, states);
    if (!all) return all;
    auto v6 = dump(AF_INET6, states);
    if (!v6) return v6;
    all->insert(all->end(), v6->begin(), v6->end());
    return all;
  }

  Result<void> destroy(const Listed& listed) {
    Query query = query_of(listed.message.idiag_family, SOCK_DESTROY, NLM_F_ACK);
    query.request.id = listed.message.id;
    query.request.idiag_states = ~0U;
    return ask(query, [](const inet_diag_msg&) {});
  }

 private:
  struct Query {
    nlmsghdr header;
    inet_diag_req_v2 request;
  };
  explicit SocketList(Fd fd) : fd_(std::move(fd)) {}

  static Query query_of(std::uint8_t family, std::uint16_t type, std::uint16_t flags) {
    Query query{};
    query.header.nlmsg_len = sizeof query;
    query.header.nlmsg_type = type;
    query.header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    query.request.sdiag_family = family;
    query.request.sdiag_protocol = IPPROTO_TCP;
    return query;
  }

  Result<void> ask(const Query& query, const std::function<void(const inet_diag_msg&)>& take);

  Fd fd_;
  std::unique_ptr<std::array<char, kReplyBytes>> reply_ = std::make_unique<std::array<char, kReplyBytes>>();
};

Result<void> SocketList::ask(const Query& query, const std::function<void(const inet_diag_msg&)>& take) {
  if (::send(fd_.get(), &query, sizeof query, 0) < 0) return fail_errno(errno, "ask for the list of sockets");
  while (true) {
    const ssize_t got = ::recv(fd_.get(), reply_->data(), reply_->size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "read the list of sockets");
    std::size_t at = 0;
    while (at + sizeof(nlmsghdr) <= static_cast<std::size_t>(got)) {
      nlmsghdr header;
      std::memcpy(&header, reply_->data() + at, sizeof header);
      if (header.nlmsg_len < sizeof header || at + header.nlmsg_len > static_cast<std::size_t>(got)) break;
      const char* body = reply_->data() + at + NLMSG_HDRLEN;
      const std::size_t length = header.nlmsg_len - NLMSG_HDRLEN;
      if (header.nlmsg_type == NLMSG_DONE) return {};
      if (header.nlmsg_type == NLMSG_ERROR && length >= sizeof(nlmsgerr)) {
        nlmsgerr error;
        std::memcpy(&error, body, sizeof error);
        if (error.error == 0) return {};
        return fail_errno(-error.error, "list or end sockets");
      }
      if (header.nlmsg_type == SOCK_DIAG_BY_FAMILY && length >= sizeof(inet_diag_msg)) {
        inet_diag_msg message;
        std::memcpy(&message, body, sizeof message);
        take(message);
      }
      at += NLMSG_ALIGN(header.nlmsg_len);
    }
  }
}

/// The inodes of this process' sockets.
std::set<std::uint32_t> own_sockets() {
  std::set<std::uint32_t> inodes;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc/self/fd"), ::closedir);
  if (!folder) return inodes;
  constexpr std::string_view kPrefix = "socket:[";
  std::array<char, 64> target{};
  while (const dirent* entry = ::readdir(folder.get())) {
    const ssize_t got = ::readlinkat(::dirfd(folder.get()), entry->d_name, target.data(), target.size());
    const std::string_view text(target.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    std::uint32_t inode = 0;
    if (!text.starts_with(kPrefix)) continue;
    if (std::from_chars(text.data() + kPrefix.size(), text.data() + text.size(), inode).ec == std::errc()) {
      inodes.insert(inode);
    }
  }
  return inodes;
}

using Ends = std::set<std::pair<Endpoint, Endpoint>>;

/// The connections, each as its sockets see it: local and remote end.
Ends ends_of(const std::vector<Listed>& sockets) {
  Ends ends;
  for (const auto& listed : sockets) ends.emplace(listed.local, listed.remote);
  return ends;
}

bool has_other_end(const Ends& ends, const Listed& listed) { return ends.contains({listed.remote, listed.local}); }

/// The live connections of a pod that have their other end outside of its netns, and the ports that it listens on.
struct Outside {
  std::set<std::uint16_t> ports;
  std::vector<Listed> connections;
};

Result<Outside> outside_of(SocketList& pod) {
  const auto listening = pod.dump_all(bit(TCP_LISTEN));
  if (!listening) return Failure(listening.error());
  const auto live = pod.dump_all(kLive);
  if (!live) return Failure(live.error());
  Outside outside;
  for (const auto& listed : *listening) outside.ports.insert(listed.local.port);
  const Ends here = ends_of(*live);
  std::ranges::copy_if(*live, std::back_inserter(outside.connections),
                       [&](const Listed& listed) { return !has_other_end(here, listed); });
  return outside;
}

/// What is denied, but for the agent's own and what comes from the node.
Result<std::vector<std::pair<Listed, std::string>>> denied_of(const std::vector<Listed>& candidates, SocketList& node,
                                                              const DeniedBy& denied_by) {
  std::vector<std::pair<Listed, std::string>> denied;
  for (const Listed& listed : candidates) {
    if (std::string rule = denied_by(listed.local, listed.remote); !rule.empty()) {
      denied.emplace_back(listed, std::move(rule));
    }
  }
  if (denied.empty()) return denied;
  const auto on_node = node.dump_all(kLive);
  if (!on_node) return Failure(on_node.error());
  const Ends of_node = ends_of(*on_node);
  const auto own = own_sockets();
  std::erase_if(denied, [&](const auto& entry) {
    return own.contains(entry.first.message.idiag_inode) || has_other_end(of_node, entry.first);
  });
  return denied;
}

/// Ends what is denied; gone by itself is as good.
Result<std::vector<CutConnection>> cut(SocketList& pod, SocketList& node, const DeniedBy& denied_by) {
  auto outside = outside_of(pod);
  if (!outside) return Failure(outside.error());
  std::erase_if(outside->connections, [&](const Listed& listed) {
    return listed.local.port == state::kHbonePort || !outside->ports.contains(listed.local.port);
  });
  auto denied = denied_of(outside->connections, node, denied_by);
  if (!denied) return Failure(denied.error());
  std::vector<CutConnection> cut;
  for (auto& [listed, rule] : *denied) {
    const auto ended = pod.destroy(listed);
    if (!ended && ended.error().errno_value != ENOENT) return Failure(ended.error());
    if (ended) cut.push_back({listed.local, listed.remote, std::move(rule)});
  }
  return cut;
}

/// What an agent carries has two ends in the pod's netns, its application's and the agent's.
Result<std::vector<PlainConnection>> plain(SocketList& pod, const IsMesh& is_mesh, bool end) {
  auto outside = outside_of(pod);
  if (!outside) return Failure(outside.error());
  std::erase_if(outside->connections, [&](const Listed& listed) {
    return listed.local.port == state::kHbonePort || listed.remote.port == state::kHbonePort ||
           !is_mesh(listed.remote.address);
  });
  std::vector<PlainConnection> found;
  if (outside->connections.empty()) return found;
  const auto own = own_sockets();
  for (const Listed& listed : outside->connections) {
    if (own.contains(listed.message.idiag_inode)) continue;
    const auto ended = end ? pod.destroy(listed) : Result<void>();
    if (!ended && ended.error().errno_value != ENOENT) return Failure(ended.error());
    found.push_back({outside->ports.contains(listed.local.port), listed.local, listed.remote});
  }
  return found;
}

/// Looks at the sockets of a pod's netns.
template <class T>
Result<T> in_pod(int netns_fd, const std::function<Result<T>(SocketList&)>& look) {
  Result<T> seen;
  auto entered = run_in_netns(netns_fd, [&]() -> Result<void> {
    auto pod = SocketList::open();
    if (!pod) return Failure(pod.error());
    seen = look(*pod);
    return {};
  });
  if (!entered) return Failure(entered.error());
  return seen;
}

}  // namespace

Result<std::vector<CutConnection>> cut_live_plaintext(int netns_fd, const DeniedBy& denied_by) {
  auto node = SocketList::open();
  if (!node) return Failure(node.error());
  return in_pod<std::vector<CutConnection>>(netns_fd, [&](SocketList& pod) { return cut(pod, *node, denied_by); });
}

Result<std::vector<PlainConnection>> plain_connections(int netns_fd, const IsMesh& is_mesh, bool end) {
  return in_pod<std::vector<PlainConnection>>(netns_fd, [&](SocketList& pod) { return plain(pod, is_mesh, end); });
}

}  // namespace weft::agent
