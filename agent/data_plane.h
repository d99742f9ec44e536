// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/proxy/worker.h"

namespace weft::agent {

/// What one worker accepts of one pod from.
using ListenerSets = std::vector<proxy::PodListeners>;
/// Of each worker, by slot.
using HeldByWorker = std::vector<std::map<std::uint32_t, ListenerSets>>;

/// The workers, as the agent's control sees them; tests give a fake. Thread-safe.
class DataPlane {
 public:
  virtual ~DataPlane() = default;
  [[nodiscard]] virtual std::uint32_t workers() const = 0;
  /// Posts the snapshot to every worker.
  virtual void set_state(std::shared_ptr<const state::State> state) = 0;
  /// Hands each worker its listeners; `listeners` has one entry for each, of one or more sets.
  virtual void add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<ListenerSets> listeners) = 0;
  /// The workers take no more connections of the pod; those that live go on.
  virtual void retire_pod(std::uint32_t slot) = 0;
  /// Waits until every worker has closed what it has of the pod; false when that took longer than `timeout`.
  virtual bool remove_pod(std::uint32_t slot, milliseconds timeout) = 0;
  /// The live connections of the workers that answered within `timeout`.
  [[nodiscard]] virtual std::vector<proxy::ConnectionInfo> connections(milliseconds timeout) = 0;
};

/// The real workers. Owner: the agent. The store, the metrics and the node outlive it.
class WorkerSet final : public DataPlane {
 public:
  /// Creates `count` workers and starts none. Errors are those of Worker::create.
  static Result<std::unique_ptr<WorkerSet>> create(std::uint32_t count, const proxy::WorkerConfig& config,
                                                   proxy::Node& node, hbone::CertStore& certificates,
                                                   telemetry::ConnectionMetrics& metrics);
  void start();
  /// Stops accepting on all workers and says GOAWAY; connections live on.
  void drain();
  /// Accepts nothing until go_on() and gives duplicates of all listeners. Errors: kTimeout where a worker did not
  /// answer in time, kUnavailable where a descriptor could not be duplicated; the workers accept again then.
  Result<HeldByWorker> hold(milliseconds timeout);
  void go_on();
  /// What the workers that answered within `timeout` have to do still.
  [[nodiscard]] proxy::WorkerLoad load(milliseconds timeout);
  /// A certificate arrived.
  void certificates_changed();
  /// As Worker::set_revocations, on all of them.
  void set_revocations(const hbone::RevocationsPtr& revocations);
  /// A name was looked up.
  void names_changed();

  [[nodiscard]] std::uint32_t workers() const override { return static_cast<std::uint32_t>(workers_.size()); }
  void set_state(std::shared_ptr<const state::State> state) override;
  void add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<ListenerSets> listeners) override;
  void retire_pod(std::uint32_t slot) override;
  bool remove_pod(std::uint32_t slot, milliseconds timeout) override;
  [[nodiscard]] std::vector<proxy::ConnectionInfo> connections(milliseconds timeout) override;

 private:
  WorkerSet() = default;
  std::vector<std::unique_ptr<proxy::Worker>> workers_;
};

}  // namespace weft::agent
