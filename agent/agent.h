// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "agent/config.h"
#include "tunnel/base/error.h"

namespace weft::agent {

/// The composition root: builds every part in order, waits for the end, and takes them down in reverse. Owner: main.
class Agent {
 public:
  /// Builds everything and starts it: the CA, capture, the workers, certificates, the source of configuration,
  /// enrolment with what an earlier agent left, the registration socket, and the HTTP servers. Where an agent of this
  /// node runs, takes over from it as soon as it can serve in its place. SIGTERM and SIGINT are blocked for the whole
  /// process before the first thread. Errors: those of the part that failed, which say how to mend it.
  static Result<std::unique_ptr<Agent>> start(const Config& config);
  ~Agent();
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  /// Blocks until SIGTERM, SIGINT or POST /quitquitquit; then closes the registration socket, drains the workers for at
  /// most drain_timeout, and returns. Where another agent has taken over it returns when the last connection has ended,
  /// after handover_timeout, or at the second signal. The BPF programs and maps stay pinned: capture stays closed while
  /// no agent runs.
  void run();

 private:
  struct Impl;
  explicit Agent(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::agent
