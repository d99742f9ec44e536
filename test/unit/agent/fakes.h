// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "agent/capture_maps.h"
#include "agent/data_plane.h"
#include "agent/netns.h"
#include "tunnel/state/state.h"

namespace weft::agent::test {

/// What happened, across the fakes, in order.
using Journal = std::vector<std::string>;

class FakeCapture : public CaptureMaps {
 public:
  explicit FakeCapture(Journal& journal) : journal_(journal) {}
  Result<void> set_pod(const bpf::Pod& pod) override {
    for (const auto& [slot, other] : by_slot) {
      for (const auto& address : other.addresses) {
        if (slot != pod.slot && std::find(pod.addresses.begin(), pod.addresses.end(), address) != pod.addresses.end()) {
          return fail(ErrorCode::kInvalid, address.to_string() + " belongs to the pods in slots " +
                                               std::to_string(slot) + " and " + std::to_string(pod.slot));
        }
      }
    }
    journal_.push_back("set_pod " + std::to_string(pod.slot) +
                       (pod.enrolled  ? " enrolled"
                        : pod.leaving ? " leaving"
                                      : " wired") +
                       (pod.inbound == bpf::InboundPlaintext::kCheck  ? " check"
                        : pod.inbound == bpf::InboundPlaintext::kDrop ? " drop"
                                                                      : " pass"));
    by_slot[pod.slot] = pod;
    return {};
  }
  Result<void> remove_pod(std::uint32_t slot) override {
    journal_.push_back("unset_pod " + std::to_string(slot));
    by_slot.erase(slot);
    listeners.erase(slot);
    dns_sockets.erase(slot);
    return {};
  }
  [[nodiscard]] Result<std::vector<bpf::Pod>> pods() const override {
    std::vector<bpf::Pod> all;
    for (const auto& [slot, pod] : by_slot) all.push_back(pod);
    return all;
  }
  Result<void> set_listener(std::uint32_t slot, bpf::Listener kind, std::uint32_t worker, int fd) override {
    EXPECT_GE(fd, 0);
    listeners[slot].insert({static_cast<int>(kind), worker});
    return {};
  }
  Result<void> set_dns_socket(std::uint32_t slot, bpf::IpFamily family, std::uint32_t worker, int fd) override {
    EXPECT_GE(fd, 0);
    dns_sockets[slot].insert({family == bpf::IpFamily::kV6 ? 6 : 4, worker});
    return {};
  }
  Result<void> use_workers() override {
    ++workers_used;
    return {};
  }
  [[nodiscard]] Result<std::uint32_t> listening(std::uint32_t slot) const override {
    const auto found = listeners.find(slot);
    return found == listeners.end() ? 0U : static_cast<std::uint32_t>(found->second.size());
  }
  Result<void> set_destinations(const bpf::AddressList& present, const bpf::AddressList& wanted) override {
    EXPECT_EQ(texts_of(present), destinations_) << "what the maps are said to hold";
    return set_destinations(wanted);
  }
  Result<void> set_destinations(const bpf::AddressList& wanted) override {
    std::string text = "destinations";
    destinations_ = texts_of(wanted);
    for (const auto& address : wanted.addresses) text += " " + address.to_string();
    journal_.push_back(text);
    if (fail_destinations) return fail(*fail_destinations, "destinations cannot be written");
    return {};
  }
  Result<void> set_registry(const bpf::AddressList& wanted) override {
    std::string text = "registry";
    for (const auto& one : texts_of(wanted)) text += " " + one;
    journal_.push_back(text);
    if (fail_registry) return fail(*fail_registry, "the registry cannot be written");
    return {};
  }
  Result<void> set_capture_all(bool all) override {
    journal_.push_back(all ? "capture all" : "capture listed");
    capture_all = all;
    return {};
  }
  [[nodiscard]] Result<std::vector<bpf::Counter>> counters() const override {
    return std::vector<bpf::Counter>{{"from_pod", "pass", "not TCP", 7}, {"guard", "drop", "a VLAN tag", 3}};
  }
  [[nodiscard]] Result<bpf::PodTraffic> traffic(std::uint32_t slot) const override {
    return bpf::PodTraffic{.packets_out = slot + 1};
  }

  std::map<std::uint32_t, bpf::Pod> by_slot;
  std::map<std::uint32_t, std::set<std::pair<int, std::uint32_t>>> listeners;
  std::map<std::uint32_t, std::set<std::pair<int, std::uint32_t>>> dns_sockets;  ///< family and worker
  std::optional<ErrorCode> fail_destinations, fail_registry;
  bool capture_all = false;
  int workers_used = 0;  ///< how often use_workers() was called

 private:
  static std::vector<std::string> texts_of(const bpf::AddressList& list) {
    std::vector<std::string> texts;
    for (const auto& address : list.addresses) texts.push_back(address.to_string());
    for (const auto& range : list.cidrs) texts.push_back(range.to_string());
    return texts;
  }

  Journal& journal_;
  std::vector<std::string> destinations_;  ///< written last
};

class FakeDataPlane : public DataPlane {
 public:
  explicit FakeDataPlane(Journal& journal) : journal_(journal) {}
  [[nodiscard]] std::uint32_t workers() const override { return 2; }
  void set_state(std::shared_ptr<const state::State> state) override {
    journal_.emplace_back("state");
    last_state = std::move(state);
  }
  void add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<ListenerSets> listeners) override {
    EXPECT_EQ(listeners.size(), workers());
    sets[pod->slot].clear();
    for (const auto& of_worker : listeners) {
      sets[pod->slot].push_back(of_worker.size());
      for (const auto& set : of_worker) dns_sockets += (set.dns_v4 ? 1 : 0) + (set.dns_v6 ? 1 : 0);
    }
    journal_.push_back("add_pod " + std::to_string(pod->slot) + " as " + pod->workload_uid);
    by_slot[pod->slot] = std::move(pod);
  }
  void retire_pod(std::uint32_t slot) override { journal_.push_back("retire_pod " + std::to_string(slot)); }
  bool remove_pod(std::uint32_t slot, milliseconds /*timeout*/) override {
    journal_.push_back("remove_pod " + std::to_string(slot));
    by_slot.erase(slot);
    return answers;
  }
  [[nodiscard]] std::vector<proxy::ConnectionInfo> connections(milliseconds /*timeout*/) override { return {}; }

  std::map<std::uint32_t, std::shared_ptr<const proxy::PodContext>> by_slot;
  std::map<std::uint32_t, std::vector<std::size_t>> sets;  ///< of listeners, by slot, of each worker
  int dns_sockets = 0;                                     ///< that were handed over, of all pods
  std::shared_ptr<const state::State> last_state;
  bool answers = true;

 private:
  Journal& journal_;
};

/// Namespaces that are files of a directory: identity = the inode, so that renames and removals look like those of bind
/// mounts.
class FakeNetns : public NetnsAccess {
 public:
  Result<NetnsId> identify(int fd) override {
    struct stat st {};
    if (::fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) return fail(ErrorCode::kInvalid, "it is not a network namespace");
    return NetnsId{.inode = st.st_ino, .cookie = 0};
  }
  Result<std::uint64_t> inode(int fd) override { return identify(fd).value().inode; }
  Result<Fd> open(const std::string& path) override {
    Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "open netns " + path);
    return fd;
  }
  Result<std::vector<proxy::PodListeners>> open_listeners(int /*netns_fd*/, std::uint32_t workers) override {
    if (fail_listeners) return fail(ErrorCode::kUnavailable, "no more descriptors");
    std::vector<proxy::PodListeners> all(workers);
    for (auto& one : all) {
      one = {Fd(::memfd_create("a", MFD_CLOEXEC)), Fd(::memfd_create("b", MFD_CLOEXEC)),
             Fd(::memfd_create("c", MFD_CLOEXEC))};
    }
    return all;
  }
  Result<std::vector<DnsSockets>> open_dns_sockets(int /*netns_fd*/, std::uint32_t workers) override {
    std::vector<DnsSockets> all(workers);
    for (auto& one : all) {
      one.v4.reset(::memfd_create("4", MFD_CLOEXEC));
      if (has_v6) one.v6.reset(::memfd_create("6", MFD_CLOEXEC));
    }
    return all;
  }
  Result<std::vector<CutConnection>> cut_plaintext(int /*netns_fd*/, const DeniedBy& denied_by) override {
    std::vector<CutConnection> cut;
    std::erase_if(live, [&](const auto& connection) {
      const auto& [application, client] = connection;
      std::string rule = denied_by(application, client);
      if (rule.empty()) return false;
      cut.push_back({application, client, std::move(rule)});
      return true;
    });
    ++looks;
    return cut;
  }
  Result<std::vector<PlainConnection>> plain_connections(int /*netns_fd*/, const IsMesh& is_mesh, bool end) override {
    std::vector<PlainConnection> found;
    std::erase_if(live, [&](const auto& connection) {
      if (!is_mesh(connection.second.address)) return false;
      found.push_back({true, connection.first, connection.second});
      return end;
    });
    return found;
  }
  bool fail_listeners = false;
  bool has_v6 = true;
  std::vector<std::pair<Endpoint, Endpoint>> live;  ///< plaintext connections: application, client
  int looks = 0;                                    ///< at live
};

/// A directory of the test's own, removed at its end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "weft-unit-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline IpAddress ip(const char* text) { return IpAddress::parse(text).value(); }

inline state::Workload hbone_workload(const std::string& name, std::vector<IpAddress> addresses,
                                      const std::string& node = "n1") {
  state::Workload w;
  w.uid = "Kubernetes//Pod/shop/" + name;
  w.name = name;
  w.namespace_name = "shop";
  w.addresses = std::move(addresses);
  w.protocol = state::TunnelProtocol::kHbone;
  w.service_account = name + "-sa";
  w.node = node;
  return w;
}

/// Denies one port to everybody, so that plaintext must be looked at.
inline state::Policy namespace_policy(const std::string& name) {
  state::PolicyMatch match;
  match.destination_ports = {9};
  state::Policy p;
  p.rules = {{{std::move(match)}}};
  p.name = name;
  p.namespace_name = "shop";
  p.scope = state::PolicyScope::kNamespace;
  p.action = state::PolicyAction::kDeny;
  return p;
}

/// What istiod makes of PeerAuthentication STRICT.
inline state::Policy strict_policy() {
  state::PolicyMatch match;
  match.not_principals = {{state::StringMatch::Kind::kPresence, ""}};
  state::Policy p;
  p.rules = {{{std::move(match)}}};
  p.name = "istio_converted_static_strict";
  p.namespace_name = "istio-system";
  p.scope = state::PolicyScope::kGlobal;
  p.action = state::PolicyAction::kDeny;
  return p;
}

inline std::shared_ptr<const state::State> state_of(std::vector<state::Workload> workloads,
                                                    std::vector<state::Policy> policies = {}) {
  return state::State::build({std::move(workloads), {}, std::move(policies)}).value();
}

}  // namespace weft::agent::test
