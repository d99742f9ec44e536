// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <vector>

#include "agent/handover/messages.h"

namespace weft::agent {

/// The agents before this one that still have connections. Thread-safe; a question to one that does not answer within a
/// second counts as no answer, and one that is gone is forgotten.
class Predecessors {
 public:
  void add(Generation generation, HandoverChannel channel);
  /// With what each has to do still.
  [[nodiscard]] std::vector<Generation> generations();
  [[nodiscard]] std::vector<proxy::ConnectionInfo> connections();
  /// What they have counted, those that have ended included (their counters), see metrics_merge.h.
  [[nodiscard]] nlohmann::json metrics();
  /// What had been counted by agents that ended before this one took over.
  void add_ended(const nlohmann::json& metrics);
  [[nodiscard]] nlohmann::json ended_metrics();
  /// A pod has gone: what they have of it ends.
  void forget(std::uint32_t slot);
  /// Duplicates of the channels, for the agent that takes over from this one.
  [[nodiscard]] std::vector<NamedPredecessor> hand_on();
  /// They are another agent's now.
  void let_go();

 private:
  struct Predecessor {
    Generation generation;
    HandoverChannel channel;
    nlohmann::json metrics = nlohmann::json::object();  ///< as it told them last
  };
  void has_ended(Predecessor& predecessor);
  void ask_all(const nlohmann::json& question,
               const std::function<void(Predecessor&, const nlohmann::json& answer)>& take);

  std::mutex mutex_;
  std::list<Predecessor> all_;
  nlohmann::json ended_ = nlohmann::json::object();
  std::uint64_t questions_ = 0;
};

}  // namespace weft::agent
