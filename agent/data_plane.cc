// SPDX-License-Identifier: Apache-2.0
#include "agent/data_plane.h"

#include <condition_variable>
#include <mutex>

namespace weft::agent {
namespace {

/// Counts answers that come on worker threads; shared with them, because one may come after the waiter has given up.
class Answers {
 public:
  explicit Answers(std::size_t expected) : missing_(expected) {}
  void arrived() {
    const std::lock_guard lock(mutex_);
    --missing_;
    changed_.notify_all();
  }
  void arrived(std::vector<proxy::ConnectionInfo> more) {
    const std::lock_guard lock(mutex_);
    for (auto& connection : more) connections_.push_back(std::move(connection));
    --missing_;
    changed_.notify_all();
  }
  bool wait(milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return missing_ == 0; });
  }
  std::vector<proxy::ConnectionInfo> take() {
    const std::lock_guard lock(mutex_);
    return std::move(connections_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t missing_;
  std::vector<proxy::ConnectionInfo> connections_;
};

}  // namespace

Result<std::unique_ptr<WorkerSet>> WorkerSet::create(std::uint32_t count, const proxy::WorkerConfig& config,
                                                     proxy::Node& node, hbone::CertStore& certificates,
                                                     telemetry::ConnectionMetrics& metrics) {
  std::unique_ptr<WorkerSet> set(new WorkerSet);
  for (std::uint32_t i = 0; i < count; ++i) {
    proxy::WorkerConfig own = config;
    own.index = i;
    auto worker = proxy::Worker::create(std::move(own), node, certificates, metrics);
    if (!worker) return Failure(worker.error());
    set->workers_.push_back(std::move(*worker));
  }
  return set;
}

void WorkerSet::start() {
  for (auto& worker : workers_) worker->start();
}

void WorkerSet::drain() {
  for (auto& worker : workers_) worker->drain();
}

void WorkerSet::names_changed() {
  for (auto& worker : workers_) worker->names_changed();
}

void WorkerSet::certificates_changed() {
  for (auto& worker : workers_) worker->certificates_changed();
}

void WorkerSet::set_state(std::shared_ptr<const state::State> state) {
  for (auto& worker : workers_) worker->set_state(state);
}

void WorkerSet::add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<proxy::PodListeners> listeners) {
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->add_pod(pod, std::move(listeners.at(i)));
}

bool WorkerSet::remove_pod(std::uint32_t slot, milliseconds timeout) {
  auto answers = std::make_shared<Answers>(workers_.size());
  for (auto& worker : workers_) worker->remove_pod(slot, [answers] { answers->arrived(); });
  return answers->wait(timeout);
}

std::vector<proxy::ConnectionInfo> WorkerSet::connections(milliseconds timeout) {
  auto answers = std::make_shared<Answers>(workers_.size());
  for (auto& worker : workers_) {
    worker->list_connections([answers](std::vector<proxy::ConnectionInfo> list) { answers->arrived(std::move(list)); });
  }
  answers->wait(timeout);
  return answers->take();
}

}  // namespace weft::agent
