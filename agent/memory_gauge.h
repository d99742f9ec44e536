// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace weft::agent {

/// How much memory the agent uses, and how much it may: of its cgroup, whose limit the kernel enforces by killing, or
/// of the process alone where a limit was given. Any thread.
class MemoryGauge {
 public:
  struct Reading {
    std::uint64_t used = 0;   ///< bytes; in a cgroup what cannot be thrown away: without inactive pages of files
    std::uint64_t limit = 0;  ///< bytes; 0: none
  };

  /// `own_limit` in bytes; 0: that of the nearest cgroup that has one, of version 2 or 1. `root` stands for / in tests.
  explicit MemoryGauge(std::uint64_t own_limit, std::string root = "");

  /// Some reads of small files. The limit is read each time: it may be changed while the agent runs.
  [[nodiscard]] Reading read() const;
  /// The cgroup's folder; empty where there is none, or the limit is the agent's own.
  [[nodiscard]] const std::string& cgroup() const { return folder_; }

 private:
  [[nodiscard]] std::uint64_t limit_of(const std::string& folder) const;
  void find_cgroup();

  std::uint64_t own_limit_;
  std::string root_, folder_;
  bool v2_ = false;
};

}  // namespace weft::agent
