// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "cni-plugin/call.h"
#include "cni-plugin/pod_routing.h"
#include "cni-plugin/records.h"
#include "tunnel/base/fault.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

void clear_pod(const Call& call) {
  if (call.environment.netns.empty()) return;
  // Rules and routes of the netns serve the pod's other interfaces too.
  if (has_sibling(call.conf.bpf_root, call.key())) return;
  auto netns = open_netns(call.environment.netns);
  if (!netns || netns->own) return;
  clear_netns(netns->fd.get());
}

bool names(const std::vector<AttachmentKey>& keys, const AttachmentKey& key) {
  return std::ranges::find(keys, key) != keys.end();
}

}  // namespace

CniResult<std::string> del(const Call& call) {
  // ADD did nothing for an excluded namespace, unless it was not yet excluded then: the record knows.
  if (call.conf.excludes(call.pod.pod_namespace) && !has_record(call.conf.bpf_root, call.key())) return std::string();
  // The agent first: its listeners keep the netns and the veth alive. Without an agent there are none, and a new one
  // drops what it finds gone.
  if (auto reply = ask_agent(call, request_for(call, Verb::kUnregister)); !reply) {
    log::warn("pod not unregistered {} reason={}", call.who(), log::quote(reply.error().msg));
  }
  if (fault_at("unregistered")) return refuse(Code::kIo, "made to fail");
  if (auto detached = unwire(call.conf.bpf_root, call.key()); !detached) {
    log::warn("programs not taken off {} reason={}", call.who(), log::quote(detached.error().message()));
  }
  if (fault_at("detached")) return refuse(Code::kIo, "made to fail");
  clear_pod(call);
  log::info("pod removed {}", call.who());
  return std::string();
}

CniResult<std::string> gc(const Call& call) {
  if (!call.conf.valid_attachments) {
    log::info("nothing collected: the runtime sent no cni.dev/valid-attachments network={}", call.conf.name);
    return std::string();
  }
  auto records = read_records(call.conf.bpf_root);
  if (!records) return refuse(Code::kAttach, "collect attachments: " + records.error().message());
  // The agent knows no networks: for it what other networks have is valid as well.
  Request request = request_for(call, Verb::kGc);
  request.valid = *call.conf.valid_attachments;
  std::vector<AttachmentKey> stale;
  for (const Record& record : *records) {
    if (record.network != call.conf.name) {
      request.valid.push_back(record.key);
    } else if (!names(*call.conf.valid_attachments, record.key)) {
      stale.push_back(record.key);
    }
  }
  auto reply = ask_agent(call, request);
  std::string failures;
  for (const AttachmentKey& key : stale) {
    if (auto detached = unwire(call.conf.bpf_root, key); !detached) {
      failures += (failures.empty() ? "" : "; ") + detached.error().message();
      continue;
    }
    log::info("attachment collected container={} interface={}", key.container_id, key.if_name);
  }
  if (!reply) return tl::unexpected<CniError>(std::move(reply.error()));
  if (!failures.empty()) return refuse(Code::kAttach, "collect attachments: " + failures);
  return std::string();
}

}  // namespace weft::cni
