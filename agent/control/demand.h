// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tunnel/base/clock.h"

namespace weft::control {

/// Between the workers, who ask what a name stands for, and the source that asks istiod. istiod tells what becomes of
/// what it has told, but no new endpoint of a service, and not who has an address now that was nobody's: so an answer
/// that is used is asked for again after a while, and does not hold for more than twice as long. Where istiod does not
/// answer, the last one holds again. One question is under way at a time, because each has istiod look through the
/// whole mesh; what is asked for meanwhile is the next one. Thread-safe.
class Demand {
 public:
  struct Options {
    milliseconds fresh{3'000};      ///< how long an answer is as good as a new one
    milliseconds patience{2'000};   ///< for istiod
    std::size_t names_max = 65536;  ///< where there are as many, those that nobody asks for are forgotten
    std::size_t batch_max = 1000;   ///< names in a question
  };
  Demand(Options options, const Clock& clock) : options_(options), clock_(clock) {}

  /// For the workers; returns at once. Whether the snapshot of this number has answers to all of them that hold; what
  /// has no fresh one is asked for.
  bool is_told(const std::vector<std::string>& names, std::uint64_t snapshot);
  /// Asks for those that were never asked for.
  void ask_ahead(const std::vector<std::string>& names);

  /// The rest is for the source. Whom to call when there is something to take(): on the threads that ask, under the
  /// lock; null: nobody from now on.
  void on_asked(std::function<void()> call);
  /// The names of the next question; none where it has to wait.
  [[nodiscard]] std::vector<std::string> take();
  /// istiod takes questions from now on; what is unanswered is to be taken again.
  void connected();
  void disconnected();
  /// istiod has said something: what these names stand for is in the snapshots from this number on. The names of a
  /// group stand for the same, and are answered together where one of them was asked for. True where somebody waits.
  bool answered(const std::vector<std::vector<std::string>>& groups, std::uint64_t snapshot);
  /// What istiod says of them cannot be read: no earlier answer holds.
  void unreadable(const std::vector<std::string>& names);
  /// Nor does any at all.
  void forget();
  /// Whether somebody waits for a new answer in whose place the last one holds now. Says so once.
  bool is_overdue();

 private:
  struct Asked {
    bool ever = false;     ///< it has an answer
    bool waiting = false;  ///< for a new one
    bool held_up = false;  ///< so is somebody
    bool queued = false;
    std::uint64_t snapshot = 0;
    SteadyTime at;     ///< of the answer
    SteadyTime since;  ///< it waits
    SteadyTime taken;  ///< into the last question
    SteadyTime last;   ///< that somebody asked
  };
  Asked* find_or_make(const std::string& name);
  bool holds(const std::string& name, std::uint64_t snapshot);
  void ask(const std::string& name, Asked& asked);
  [[nodiscard]] bool is_late(const Asked& asked) const;
  void make_room();
  void tell_of_queue() const;

  const Options options_;
  const Clock& clock_;
  std::mutex mutex_;
  std::function<void()> on_asked_;
  std::unordered_map<std::string, Asked> names_;
  std::vector<std::string> queue_;       ///< to be asked for
  std::optional<SteadyTime> under_way_;  ///< since when a question is
  SteadyTime heard_;                     ///< when istiod answered last
  std::optional<SteadyTime> made_room_;
  bool connected_ = false;
};

}  // namespace weft::control
