// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "agent/enrolment.h"
#include "agent/reconcile/cni_cache.h"
#include "cni-plugin/conf.h"
#include "cni-plugin/records.h"
#include "cni-plugin/wiring.h"

namespace weft::agent {

struct ReconcileConfig {
  std::string bpf_root;
  std::string cache_dir;            ///< libcni's results
  std::string conf_dir;             ///< network configuration lists; empty: pods older than Weft are left alone
  milliseconds interval{60'000};    ///< between passes
  milliseconds settle_time{0};      ///< a pod registered later than this ago may still be in the middle of its ADD
  milliseconds promote_after{300};  ///< of a registration: ADD has put its filters on by then, and the runtime goes on
};

/// A pod of this node that should be wired and is not.
struct UnwiredPod {
  cni::PodIdentity pod;
  cni::AttachmentKey key;
  std::string reason;
  bool operator==(const UnwiredPod& other) const { return key == other.key && reason == other.reason; }
};

/// Compares what the agent knows with pins, records, libcni's cache and the kernel, at the start and then at intervals,
/// and mends what differs, because the runtime may never say: GC and STATUS reach no plugin in lists below 1.1.0, and a
/// plugin or an agent may have been killed at any point. It takes up pods that are older than Weft, puts back rules,
/// routes and programs that are gone, and collects pins and records that belong to nothing. Works on a thread of its
/// own in the host's netns; methods are thread-safe.
class Reconciler {
 public:
  /// Borrows enrolment, which outlives it.
  Reconciler(ReconcileConfig config, Enrolment& enrolment);
  ~Reconciler();
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  void start();
  /// Waits for the pass that is under way. start() may follow.
  void stop();
  /// Asks for a pass now.
  void wake();
  /// A pod was registered: its filters are to become links.
  void pod_registered();
  /// One pass, on the calling thread, which must be in the host's netns.
  void run_once();

  /// What was done since the start, by action: adopted, mended, pins_removed, records_removed, entries_removed, failed.
  [[nodiscard]] std::map<std::string, std::uint64_t> counts() const;
  /// As of the last pass.
  [[nodiscard]] std::vector<UnwiredPod> unwired() const;
  /// Attachments that have programs on a device but belong to no pod that is known, as of the last two passes: what is
  /// behind them is cut off.
  [[nodiscard]] std::vector<std::string> unknown() const;

 private:
  using Networks = std::map<std::string, cni::Conf>;
  /// What one pass works on.
  struct Pass {
    std::vector<std::string> pins;  ///< read first: whatever is pinned was registered before
    std::vector<cni::Record> records;
    std::vector<CachedAttachment> cached;
    Networks networks;
    std::vector<UnwiredPod> unwired;
    std::vector<std::string> unknown;
  };

  Result<Pass> look() const;
  void adopt(Pass& pass);
  /// Wires one pod of the cache. Gives why it could not; empty: done, or nothing to do.
  std::string adopt_one(const CachedAttachment& cached);
  void promote_new();
  void mend(const Pass& pass);
  Observation mend_one(const Pass& pass, const WiredPod& pod, const std::vector<WiredPod>& all);
  /// Empty: all is well, or is again.
  std::string mend_wiring(const Pass& pass, const WiredPod& pod);
  void collect(Pass& pass);
  void finish(Pass pass);
  [[nodiscard]] static std::string network_of(const Pass& pass, const cni::AttachmentKey& key);
  [[nodiscard]] cni::CniResult<cni::Reply> wire(const cni::Wire& wire, const WiredPod& pod);

  void count(const char* action, std::uint64_t by = 1);
  void run();

  const ReconcileConfig config_;
  Enrolment& enrolment_;

  std::mutex pass_mutex_;  ///< one pass at a time
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, std::uint64_t> counts_;
  std::vector<UnwiredPod> unwired_;
  std::vector<std::string> unknown_;
  std::vector<std::string> suspected_;  ///< unknown to the pass before
  bool stopping_ = false, woken_ = false;
  std::optional<SteadyTime> promote_at_;
  std::set<cni::AttachmentKey> promoted_;  ///< the passes' own
  std::thread thread_;
};

}  // namespace weft::agent
