// SPDX-License-Identifier: Apache-2.0
#include "agent/data_plane.h"

#include <algorithm>
#include <condition_variable>
#include <iterator>
#include <mutex>

namespace weft::agent {
namespace {

/// Answers that come on worker threads; shared with them, because one may come after the waiter has given up.
template <class T>
class Answers {
 public:
  explicit Answers(std::size_t expected) : missing_(expected) {}
  void arrived(T answer) {
    const std::lock_guard lock(mutex_);
    answers_.push_back(std::move(answer));
    --missing_;
    changed_.notify_all();
  }
  bool wait(milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return missing_ == 0; });
  }
  std::vector<T> take() {
    const std::lock_guard lock(mutex_);
    return std::move(answers_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t missing_;
  std::vector<T> answers_;
};

bool complete(const proxy::PodListeners& set) { return set.outbound && set.inbound_hbone && set.inbound_plaintext; }

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

void WorkerSet::set_revocations(const hbone::RevocationsPtr& revocations) {
  for (auto& worker : workers_) worker->set_revocations(revocations);
}

void WorkerSet::set_state(std::shared_ptr<const state::State> state) {
  for (auto& worker : workers_) worker->set_state(state);
}

void WorkerSet::add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<ListenerSets> listeners) {
  for (std::size_t i = 0; i < workers_.size(); ++i) workers_[i]->add_pod(pod, std::move(listeners.at(i)));
}

void WorkerSet::retire_pod(std::uint32_t slot) {
  for (auto& worker : workers_) worker->retire_pod(slot);
}

bool WorkerSet::remove_pod(std::uint32_t slot, milliseconds timeout) {
  auto answers = std::make_shared<Answers<bool>>(workers_.size());
  for (auto& worker : workers_) worker->remove_pod(slot, [answers] { answers->arrived(true); });
  return answers->wait(timeout);
}

std::vector<proxy::ConnectionInfo> WorkerSet::connections(milliseconds timeout) {
  auto answers = std::make_shared<Answers<std::vector<proxy::ConnectionInfo>>>(workers_.size());
  for (auto& worker : workers_) {
    worker->list_connections([answers](std::vector<proxy::ConnectionInfo> list) { answers->arrived(std::move(list)); });
  }
  answers->wait(timeout);
  std::vector<proxy::ConnectionInfo> all;
  for (auto& list : answers->take()) std::ranges::move(list, std::back_inserter(all));
  return all;
}

proxy::WorkerLoad WorkerSet::load(milliseconds timeout) {
  auto answers = std::make_shared<Answers<proxy::WorkerLoad>>(workers_.size());
  for (auto& worker : workers_) worker->count_load([answers](proxy::WorkerLoad load) { answers->arrived(load); });
  answers->wait(timeout);
  proxy::WorkerLoad all;
  for (const auto& load : answers->take()) {
    all.connections += load.connections;
    all.tunnels += load.tunnels;
  }
  return all;
}

Result<HeldByWorker> WorkerSet::hold(milliseconds timeout) {
  using Held = std::pair<std::size_t, std::vector<proxy::HeldListeners>>;
  auto answers = std::make_shared<Answers<Held>>(workers_.size());
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->hold([answers, i](std::vector<proxy::HeldListeners> held) { answers->arrived({i, std::move(held)}); });
  }
  const bool all = answers->wait(timeout);
  HeldByWorker by_worker(workers_.size());
  bool usable = true;
  for (auto& [worker, held] : answers->take()) {
    for (auto& pod : held) {
      usable = usable && std::ranges::all_of(pod.sets, complete);
      by_worker[worker].emplace(pod.slot, std::move(pod.sets));
    }
  }
  if (all && usable) return by_worker;
  go_on();
  if (!all)
    return fail(ErrorCode::kTimeout,
                "hold the listeners: a worker did not answer within " + std::to_string(timeout.count()) + " ms");
  return fail(ErrorCode::kUnavailable, "hold the listeners: they cannot be duplicated (out of file descriptors?)");
}

void WorkerSet::go_on() {
  for (auto& worker : workers_) worker->go_on();
}

}  // namespace weft::agent
