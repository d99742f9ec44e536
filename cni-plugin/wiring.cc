// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/wiring.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "bpf/attach.h"
#include "cni-plugin/pod_routing.h"
#include "cni-plugin/records.h"
#include "tunnel/base/fault.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

/// Undoes the steps that were done, last first, unless all went well.
class Undo {
 public:
  Undo() = default;
  Undo(const Undo&) = delete;
  Undo& operator=(const Undo&) = delete;
  ~Undo() {
    for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) (*step)();
  }
  void push(std::function<void()> step) { steps_.push_back(std::move(step)); }
  void keep() { steps_.clear(); }

 private:
  std::vector<std::function<void()>> steps_;
};

bool needs_v6(const Wire& wire) { return std::ranges::any_of(wire.addresses, &IpAddress::is_v6); }

bpf::Target target_of(const Wire& wire) {
  return {.root = wire.bpf_root,
          .attachment = bpf::attachment_id(wire.key.container_id, wire.key.if_name),
          .pod_netns = wire.netns_fd,
          .ifindex = wire.interface.ifindex,
          .host_ifindex = wire.interface.host_ifindex};
}

CniResult<RoutingChanges> prepare(const Wire& wire) {
  if (fault_at("prepare")) return refuse(Code::kWiring, "prepare the pod's network namespace: made to fail");
  const auto& own = wire.interface.addresses;
  const auto v4 = std::ranges::find_if(own, &IpAddress::is_v4);
  auto changes = prepare_netns(wire.netns_fd, needs_v6(wire), v4 != own.end() ? std::optional(*v4) : std::nullopt);
  if (!changes) return refuse(Code::kWiring, "prepare the pod's network namespace: " + changes.error().message());
  auto problems = verify_netns(wire.netns_fd, needs_v6(wire));
  if (problems && problems->empty()) return *changes;
  revert_netns(wire.netns_fd, *changes);
  if (!problems) return refuse(Code::kWiring, "verify the pod's network namespace: " + problems.error().message());
  return refuse(Code::kWiring, "prepare the pod's network namespace: " + problems->front(),
                "does another plugin of the chain set up rules or routes of its own?");
}

/// True when the record is new.
CniResult<bool> record(const Wire& wire) {
  if (fault_at("record")) return refuse(Code::kAttach, "record the attachment: made to fail");
  auto recorded = write_record(wire.bpf_root, {wire.network, wire.key});
  if (!recorded) return refuse(Code::kAttach, recorded.error().message());
  return *recorded;
}

CniResult<void> attach(const Wire& wire, bool as_filters) {
  if (fault_at("attach")) return refuse(Code::kAttach, "attach the capture programs: made to fail");
  bpf::Target target = target_of(wire);
  target.as_filters = as_filters;
  if (auto attached = bpf::attach(target); !attached) {
    return refuse(Code::kAttach, "attach the capture programs: " + attached.error().message());
  }
  return {};
}

}  // namespace

std::vector<IpAddress> choose_addresses(std::vector<IpAddress> given, const PodInterface& interface,
                                        const std::string& who) {
  if (given.empty()) return interface.addresses;
  const auto warn_without = [&](const auto& some, const auto& others, const char* where) {
    for (const IpAddress& address : some) {
      if (std::ranges::find(others, address) != others.end()) continue;
      log::warn("address {} {} address={}", where, who, address.to_string());
    }
  };
  warn_without(given, interface.addresses, "of prevResult is not on the interface");
  // TCP from it will be dropped: the pod does not own it as far as the mesh knows.
  warn_without(interface.addresses, given, "of the interface is not in prevResult");
  return given;
}

CniResult<Reply> wire(const Wire& wire, const Registrar& registrar) {
  Undo undo;
  auto changes = prepare(wire);
  if (!changes) return tl::unexpected<CniError>(std::move(changes.error()));
  undo.push([&wire, made = *changes] { revert_netns(wire.netns_fd, made); });
  if (fault_at("register")) return refuse(Code::kRefused, "register the pod: made to fail");
  auto reply = registrar.register_pod();
  if (!reply) return reply;
  undo.push(registrar.unregister_pod);
  auto recorded = record(wire);
  if (!recorded) return tl::unexpected<CniError>(std::move(recorded.error()));
  if (*recorded) undo.push([&wire] { (void)remove_record(wire.bpf_root, wire.key); });
  // The agent puts links in the place of the filters when the runtime no longer waits.
  if (auto attached = attach(wire, true); !attached) return tl::unexpected<CniError>(std::move(attached.error()));
  undo.keep();
  return reply;
}

CniResult<void> rewire(const Wire& wire) {
  if (auto prepared = prepare(wire); !prepared) return tl::unexpected<CniError>(std::move(prepared.error()));
  if (auto recorded = record(wire); !recorded) return tl::unexpected<CniError>(std::move(recorded.error()));
  return attach(wire, false);
}

Result<void> unwire(const std::string& bpf_root, const AttachmentKey& key) {
  if (auto detached = bpf::detach(bpf_root, bpf::attachment_id(key.container_id, key.if_name)); !detached) {
    return detached;
  }
  return remove_record(bpf_root, key);
}

Result<std::vector<std::string>> wiring_findings(const Wire& wire) {
  auto findings = verify_netns(wire.netns_fd, needs_v6(wire));
  if (!findings) return findings;
  auto programs = bpf::verify(target_of(wire));
  if (!programs) return programs;
  findings->insert(findings->end(), programs->begin(), programs->end());
  return findings;
}

}  // namespace weft::cni
