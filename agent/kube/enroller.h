// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/kube/api_client.h"
#include "agent/kube/directory.h"
#include "agent/kube/watch.h"
#include "agent/selection.h"
#include "cni-plugin/registration.h"

namespace weft::kube {

struct EnrollerConfig {
  ApiConfig api;
  std::string node;
  std::vector<std::string> excluded_namespaces = {"kube-system"};
  WatchConfig watch = {};
  milliseconds admission_timeout{3'000};  ///< of the questions of one ADD, which itself waits 5 s
  milliseconds first_retry{200};          ///< of an annotation that could not be written
  milliseconds longest_retry{30'000};
  milliseconds place_interval{20};    ///< between looks at whether ADD has put its programs on
  milliseconds look_interval{1'000};  ///< between looks at pods that nothing was told of
  milliseconds grace{5'000};          ///< a pod that is not captured for that long is told of by an Event
};

using agent::Selection;

/// A pod that is wired, as far as its annotation is concerned.
struct WiredState {
  std::string namespace_name, name, uid;
  bool captured = false;  ///< it has its listeners, and all it sends to the mesh goes there
  std::string problem;    ///< why it is not, where it should be
};

/// What the enroller asks of the agent and tells it. Called from its threads, without a lock.
struct EnrollerHooks {
  std::function<void()> synced;    ///< both lists are here, for the first time
  std::function<void()> reselect;  ///< the selection of some pods has changed
  std::function<std::vector<WiredState>()> wired;
  /// Why the programs, rules or routes of a wired pod are not in place yet; empty: they are.
  std::function<std::string(const WiredState&)> not_in_place;
  /// Why a pod of this node is not wired, where that is known.
  std::function<std::string(const std::string& namespace_name, const std::string& name)> not_wired;
};

/// A pod of this node that the API wants in the mesh and that is not captured.
struct Uncaptured {
  std::string namespace_name, name, uid, reason;
};

/// Enrolment by the Kubernetes API: follows this node's pods and all namespaces, says which pods are selected, and
/// tells back, by the annotation ambient.istio.io/redirection, which are captured. The annotation comes after capture
/// and goes before it: a pod that is selected no longer stays captured until its annotation is away. What cannot be
/// written is tried again, less and less often. Threads of its own; methods are thread-safe.
class Enroller {
 public:
  explicit Enroller(EnrollerConfig config);
  ~Enroller();
  Enroller(const Enroller&) = delete;
  Enroller& operator=(const Enroller&) = delete;

  void start(EnrollerHooks hooks);
  /// Ends at once; annotations stay as they are, as capture does.
  void stop();

  /// What the API said of the pod, as far as it is known here; asks nobody.
  [[nodiscard]] Selection select(const std::string& namespace_name, const std::string& name,
                                 const std::string& uid) const;

  /// Before a pod is registered: asks the API for what the watches have not told yet, so that select() knows, and gives
  /// the pod's annotations by the API in place of those of the runtime. Errors: kUnavailable where the API gives no
  /// answer and the pod could be the mesh's.
  Result<void> admit(cni::Request& request);

  /// Empty: both lists are here.
  [[nodiscard]] std::string not_synced() const;
  [[nodiscard]] std::vector<Uncaptured> uncaptured() const;

  struct Counts {
    std::vector<std::pair<std::string, Watch::Status>> watches;  ///< by resource
    std::size_t annotations_due = 0;                             ///< pods whose annotation is not what capture is
    std::uint64_t annotations_written = 0, annotation_errors = 0, events_written = 0, event_errors = 0;
    std::uint64_t admissions_asked = 0, admissions_failed = 0;
  };
  [[nodiscard]] Counts counts() const;

 private:
  /// What is due for one pod.
  struct Due {
    SteadyTime next_try;
    milliseconds retry{0};
    std::string error;
  };
  struct Missed {
    SteadyTime since;
    std::string reason;
    std::string told;  ///< the reason that an Event tells
    SteadyTime next_try;
  };
  /// What one look finds.
  struct Round {
    SteadyTime now, next;  ///< of this look, and when the next one is due
    std::vector<Uncaptured> uncaptured;
    std::size_t annotations_due = 0;
    bool away = false;  ///< the API did not take a write in time: no other one is tried in this look
  };
  void changed();
  void run();
  SteadyTime look();
  void look_at(const Pod& pod, const WiredState* wired, const Ruling& ruling, Round& round);
  void annotate(const Pod& pod, bool enabled, Round& round);
  void annotation_failed(const Pod& pod, bool enabled, const Error& error);
  void settle_annotation(const Pod& pod, const WiredState* wired, const Ruling& ruling, Round& round);
  void settle_missed(const Pod& pod, const std::string& reason, Round& round);
  void tell_event(const Pod& pod, Missed& missed);
  /// Free of waiting for another ADD.
  std::shared_ptr<ApiClient> take_client();
  void give_back(std::shared_ptr<ApiClient> client);
  Result<void> ask_for_pod(ApiClient& client, const cni::Request& request);

  const EnrollerConfig config_;
  EnrollerHooks hooks_;
  Directory directory_;
  Watch pods_watch_, namespaces_watch_;
  ApiClient client_;  ///< of the enroller's thread

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false, changed_ = false;
  std::vector<std::shared_ptr<ApiClient>> clients_;  ///< of admissions; all of them, for stop()
  std::vector<std::shared_ptr<ApiClient>> free_;
  std::vector<Uncaptured> uncaptured_;
  Counts counts_;
  // The enroller's thread's own.
  std::map<std::string, Due> due_;        ///< by UID
  std::map<std::string, Missed> missed_;  ///< by UID
  std::thread thread_;
};

}  // namespace weft::kube
