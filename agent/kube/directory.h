// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/enrolment_rules.h"
#include "agent/kube/objects.h"
#include "agent/kube/watch.h"

namespace weft::kube {

/// The pods of this node and all namespaces, as the API last told of them. Thread-safe.
class Directory {
 public:
  /// `changed` is called without a lock, on the thread that told, whenever something may be decided otherwise.
  Directory(std::vector<std::string> excluded_namespaces, std::function<void()> changed);

  /// Where the watches tell; they live as long as this.
  [[nodiscard]] WatchReceiver& pods_receiver() { return pods_receiver_; }
  [[nodiscard]] WatchReceiver& namespaces_receiver() { return namespaces_receiver_; }

  /// One that was asked for by itself.
  void put(Pod pod);
  void put(Namespace of);
  void remove_pod(const std::string& key, const std::string& uid);

  [[nodiscard]] std::optional<Pod> pod(const std::string& namespace_name, const std::string& name) const;
  [[nodiscard]] std::optional<Namespace> namespace_named(const std::string& name) const;
  [[nodiscard]] std::vector<Pod> pods() const;
  /// Empty where the API has not told of its namespace yet.
  [[nodiscard]] std::optional<Ruling> ruling(const Pod& pod) const;
  [[nodiscard]] bool excludes(const std::string& namespace_name) const {
    return is_excluded(namespace_name, excluded_);
  }

 private:
  template <class Object>
  class Receiver : public WatchReceiver {
   public:
    Receiver(Directory& directory, std::map<std::string, Object>& into) : directory_(directory), into_(into) {}
    void list_begins() override { list_.clear(); }
    void listed(const Json& object) override;
    void list_ends() override;
    void changed(const Json& object) override;
    void deleted(const Json& object) override;

   private:
    Directory& directory_;
    std::map<std::string, Object>& into_;
    std::map<std::string, Object> list_;  ///< the watch's thread's own
  };

  template <class Object>
  void put_in(std::map<std::string, Object>& objects, Object object);

  const std::vector<std::string> excluded_;
  const std::function<void()> changed_;
  mutable std::mutex mutex_;
  std::map<std::string, Pod> pods_;              ///< by namespace/name
  std::map<std::string, Namespace> namespaces_;  ///< by name
  Receiver<Pod> pods_receiver_;
  Receiver<Namespace> namespaces_receiver_;
};

}  // namespace weft::kube
