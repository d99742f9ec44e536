// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "agent/memory_gauge.h"
#include "tunnel/base/clock.h"
#include "tunnel/proxy/limits.h"

namespace weft::agent {

struct ResourceConfig {
  std::uint64_t max_connections = 0;          ///< 0: as many as descriptors and memory allow
  std::uint64_t max_connections_per_pod = 0;  ///< 0: what the fair share is
  std::uint64_t memory_limit = 0;             ///< bytes; 0: that of the cgroup
  std::uint32_t workers = 1;
  std::uint32_t max_pods = 512;
};

/// What of the limit on open files is for connections, when the agent has kept what it needs for itself: listeners and
/// namespaces of all the pods that it may get; but never more than half. Pure.
[[nodiscard]] std::size_t descriptors_for_pods(const ResourceConfig& config, std::uint64_t fd_limit);
/// The sizes that follow from the configuration and from what there is; `memory` 0: no limit is known. Pure.
[[nodiscard]] proxy::LimitSizes limit_sizes(const ResourceConfig& config, std::uint64_t fd_limit, std::uint64_t memory);
/// What comes of a reading, with a distance between coming and going. Pure.
[[nodiscard]] proxy::MemoryPressure next_pressure(proxy::MemoryPressure now, const MemoryGauge::Reading& reading);
/// Shrinks what the workers may keep for slow readers where memory is limited: all of them together a quarter of it.
void fit_budgets(proxy::WorkerConfig& worker, std::uint32_t workers, std::uint64_t memory);

/// Raises the soft limit on open files to the hard one; gives the limit that holds then.
std::uint64_t raise_fd_limit();
/// Descriptors that this process has open, 0 where /proc does not say.
[[nodiscard]] std::size_t open_fds();

/// What there is, and what of it is used.
struct ResourceStatus {
  std::size_t fds = 0;
  std::uint64_t fd_limit = 0;
  MemoryGauge::Reading memory;
};

/// Looks ten times a second at the agent's memory and at its limits, which may change while it runs, and tells the
/// workers' Limits; gives memory back to the kernel where it is short. Warns when four fifths of the descriptors are
/// open. A thread of its own.
class ResourceWatch {
 public:
  static constexpr milliseconds kInterval{100};

  ResourceWatch(const ResourceConfig& config, std::shared_ptr<proxy::Limits> limits);
  ResourceWatch(const ResourceWatch&) = delete;
  ResourceWatch& operator=(const ResourceWatch&) = delete;
  ~ResourceWatch();

  [[nodiscard]] ResourceStatus status() const;

 private:
  void run();
  void look();
  void look_at_memory();
  void look_at_descriptors();
  void give_memory_back();

  const ResourceConfig config_;
  const std::shared_ptr<proxy::Limits> limits_;
  const MemoryGauge gauge_;
  std::uint64_t fd_limit_ = 0, memory_limit_ = 0;  ///< of the sizes that are set
  bool fds_short_ = false;
  SteadyTime given_back_;
  std::uint32_t looks_ = 0;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  ///< under mutex
  std::thread thread_;
};

}  // namespace weft::agent
