// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tunnel/base/clock.h"
#include "tunnel/proxy/worker.h"

namespace weft::agent {

/// The workers, as the agent's control sees them; tests give a fake. Thread-safe.
class DataPlane {
 public:
  virtual ~DataPlane() = default;
  [[nodiscard]] virtual std::uint32_t workers() const = 0;
  /// Posts the snapshot to every worker.
  virtual void set_state(std::shared_ptr<const state::State> state) = 0;
  /// Hands each worker its listeners; `listeners` has one entry for each.
  virtual void add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<proxy::PodListeners> listeners) = 0;
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
  /// A certificate arrived.
  void certificates_changed();
  /// A name was looked up.
  void names_changed();

  [[nodiscard]] std::uint32_t workers() const override { return static_cast<std::uint32_t>(workers_.size()); }
  void set_state(std::shared_ptr<const state::State> state) override;
  void add_pod(std::shared_ptr<const proxy::PodContext> pod, std::vector<proxy::PodListeners> listeners) override;
  bool remove_pod(std::uint32_t slot, milliseconds timeout) override;
  [[nodiscard]] std::vector<proxy::ConnectionInfo> connections(milliseconds timeout) override;

 private:
  WorkerSet() = default;
  std::vector<std::unique_ptr<proxy::Worker>> workers_;
};

}  // namespace weft::agent
