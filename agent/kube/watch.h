// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <random>
#include <string>
#include <thread>

#include "agent/kube/api_client.h"

namespace weft::kube {

/// What is watched: the objects of one collection.
struct Resource {
  std::string name;           ///< "pods", for people
  std::string path;           ///< "/api/v1/pods"
  std::string selector = {};  ///< of the query, escaped: "fieldSelector=spec.nodeName%3Dnode1"
  bool metadata_only = false;
};

/// Who is told of the objects, on the watch's thread; it keeps what it needs of them.
class WatchReceiver {
 public:
  virtual ~WatchReceiver() = default;
  /// A new list begins, comes object by object, and is whole: what is not in it is gone.
  virtual void list_begins() = 0;
  virtual void listed(const Json& object) = 0;
  virtual void list_ends() = 0;
  virtual void changed(const Json& object) = 0;
  virtual void deleted(const Json& object) = 0;
};

struct WatchConfig {
  milliseconds first_retry{100};
  milliseconds longest_retry{15'000};
  seconds session{300};  ///< the least that one watch lasts, when nothing ends it; at most twice that
  std::uint32_t page = 250;
};

/// Lists a collection and follows it for good: resumes where a watch ended, lists again where the API has forgotten
/// that place (410 Gone) or sends an error or what is no document, and waits longer each time where it fails, between
/// half and all of a time that doubles. One thread of its own.
class Watch {
 public:
  struct Status {
    bool synced = false;     ///< one list was whole
    bool following = false;  ///< nothing is wrong now
    std::string error;       ///< the last one; empty while all is well
    std::uint64_t lists = 0, events = 0, errors = 0;
  };

  /// Borrows the receiver, which outlives it.
  Watch(ApiConfig api, Resource resource, WatchReceiver& receiver, WatchConfig config = {});
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void start();
  /// Ends at once, whatever it waits for.
  void stop();
  [[nodiscard]] Status status() const;
  [[nodiscard]] const Resource& resource() const { return resource_; }

 private:
  enum class Next : std::uint8_t { kResume, kList };
  void run();
  Result<void> list();
  Result<Json> list_page(const std::string& continue_token);
  /// Until it ends by itself: then what comes next.
  Result<Next> follow();
  /// One line of the stream; false ends it.
  bool take(std::string_view line, Result<Next>& outcome);
  [[nodiscard]] std::string accept(const char* kind) const;
  [[nodiscard]] std::string query(const std::string& more) const;
  void failed(const Error& error);
  void well();
  /// False where stop() was called.
  bool wait();

  const Resource resource_;
  const WatchConfig config_;
  WatchReceiver& receiver_;
  ApiClient client_;
  std::string version_;  ///< where the watch goes on; empty: a list is due
  milliseconds retry_;
  std::optional<seconds> retry_after_;  ///< asked for by the API
  std::minstd_rand random_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  Status status_;
  std::thread thread_;
};

}  // namespace weft::kube
