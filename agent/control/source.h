// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tunnel/base/error.h"
#include "tunnel/state/state.h"

namespace weft::control {

/// Where the mesh's configuration comes from. Owner: the agent. start() and stop() belong to one thread.
class Source {
 public:
  /// One outcome: a complete new snapshot, or why a new version was refused (the last snapshot then stays in force; the
  /// source has logged it). Called by start() itself or on the source's own thread, never concurrently, and not after
  /// stop() has returned.
  using Deliver = std::function<void(Result<std::shared_ptr<const state::State>>)>;

  virtual ~Source() = default;

  /// Starts delivering. A source that can tell at once that it cannot work (a file that cannot be read or is wrong)
  /// says so here and delivers nothing; a source that may have to wait for a peer returns at once. A source is started
  /// once.
  virtual Result<void> start(Deliver deliver) = 0;
  /// Ends the source's thread and waits for it. Not to be called from inside the callback.
  virtual void stop() = 0;
  /// One line for a person, from any thread: where it reads from, what is in force, and the last error where there is
  /// one.
  [[nodiscard]] virtual std::string status() const = 0;
};

/// What a snapshot has, in words.
[[nodiscard]] inline std::string counts_of(const state::State& state) {
  return std::to_string(state.workload_count()) + " workloads, " + std::to_string(state.service_count()) +
         " services, " + std::to_string(state.policies().size()) + " policies";
}

}  // namespace weft::control
