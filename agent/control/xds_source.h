// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "agent/control/demand.h"
#include "agent/control/source.h"
#include "agent/control/xds_cache.h"
#include "agent/control/xds_metrics.h"
#include "agent/istiod_address.h"
#include "tunnel/base/clock.h"

namespace grpc {
class ClientContext;
class Status;
template <class W, class R>
class ClientReaderWriterInterface;
}  // namespace grpc

namespace weft::control {

/// Who the agent is to istiod.
struct XdsNode {
  std::string pod_name;
  std::string pod_namespace;
  std::string instance_ip;
  std::string node_name;
  std::map<std::string, std::string> metadata;  ///< more of it: ISTIO_META_* of the environment, without the prefix
};

struct XdsOptions {
  agent::IstiodAddress istiod;
  XdsNode node;
  milliseconds backoff_min{10};
  milliseconds backoff_max{15'000};
  milliseconds keepalive{30'000};  ///< istiod takes no more than one ping in 15 s
  milliseconds connect_timeout{10'000};
  std::size_t message_max = 200U << 20;  ///< bytes
  /// How long a change is held back at most for the policies that its workloads name and that are on their way.
  milliseconds policy_wait{500};
  std::function<void()> connected = {};  ///< istiod answers again; on the thread that talks to it
  /// What of the mesh is wanted beside this node's own workloads and all policies; null: everything.
  std::shared_ptr<Demand> demand = nullptr;
};

/// The mesh's configuration from istiod, by delta xDS over TLS: workloads, services and policies of the whole mesh. The
/// first snapshot comes when both types have been answered, further ones after each response; responses that arrive
/// while one is made are in the next. What names a policy for the first time waits for that policy (policy_wait). While
/// istiod is away the last snapshot stays in force, and the agent connects again without end, naming what it has. A
/// resource that is wrong is refused alone (xds_cache.h). Three threads: one reads what istiod says, one writes to it,
/// so that neither side waits for the other one to read, and one makes snapshots and delivers them.
class XdsSource : public Source {
 public:
  XdsSource(XdsOptions options, std::shared_ptr<XdsMetrics> metrics);
  ~XdsSource() override;
  XdsSource(const XdsSource&) = delete;
  XdsSource& operator=(const XdsSource&) = delete;

  /// Errors: errno of starting threads. Files and istiod may come later.
  Result<void> start(Deliver deliver) override;
  void stop() override;
  [[nodiscard]] std::string status() const override;

 private:
  void talk();
  /// One connection to its end; true where it was a good one, so that the next may follow at once.
  bool talk_once();
  void send(XdsCache::Request request);
  void close_stream();
  void write();
  bool no_stream(const std::string& why);
  bool ended(const grpc::Status& status, bool answered);
  void set_problem(const std::string& why);
  [[nodiscard]] XdsCache::Request take(const XdsCache::Response& response);
  void make_snapshots();
  void await_changes(std::unique_lock<std::mutex>& lock);
  void await_policies(std::unique_lock<std::mutex>& lock);
  void make_snapshot(state::StateChange change);

  const XdsOptions options_;
  const std::shared_ptr<XdsMetrics> metrics_;
  Deliver deliver_;

  std::mutex write_mutex_;  ///< held for moments; never together with mutex_
  std::condition_variable write_wake_;
  /// All under write_mutex_. The stream that may be written to, after its first requests.
  grpc::ClientReaderWriterInterface<XdsCache::Request, XdsCache::Response>* stream_ = nullptr;
  std::deque<XdsCache::Request> replies_;
  bool asked_ = false;    ///< there is something to ask for
  bool writing_ = false;  ///< stream_ is in use without the lock
  bool no_more_writing_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;                        ///< under mutex_
  grpc::ClientContext* call_ = nullptr;          ///< under mutex_: the stream, to be cancelled by stop()
  XdsCache cache_;                               ///< under mutex_
  bool dirty_ = false;                           ///< under mutex_: the cache has what no snapshot has
  bool connected_ = false;                       ///< under mutex_: istiod has answered on the present stream
  std::string problem_ = "no answer yet";        ///< under mutex_: why there is no stream
  std::string istiod_version_;                   ///< under mutex_: what istiod calls the state of its last response
  std::string in_force_;                         ///< under mutex_
  std::uint64_t snapshots_ = 0, responses_ = 0;  ///< under mutex_
  std::uint64_t last_change_ = 0;       ///< under mutex_: the number of the last response that changed the mesh
  std::vector<std::string> conflicts_;  ///< of the last snapshot; the snapshots' thread
  /// The last snapshot and, for a while, the one before it; the snapshots' thread.
  std::shared_ptr<const state::State> delivered_ = state::State::empty(), replaced_;
  std::thread talking_, writing_thread_, making_;
};

}  // namespace weft::control
