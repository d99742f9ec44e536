// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <map>
#include <string>

#include "test/support/mesh.h"

/// Very many connections from one pod to another, and what they cost their agents.
namespace weft::test {

/// What a round of weft-testapp crowd came to: how many were answered, and what became of the others (refused, reset,
/// closed, clean, other).
struct CrowdRound {
  int answered = 0;
  std::map<std::string, int> ended;
  int ms = 0, longest_ms = 0;
};

/// The server of crowds, which are answered at kCrowdPort.
inline constexpr std::uint16_t kCrowdPort = 9494;
[[nodiscard]] Process start_echo(const Pod& pod);

/// A client of many connections, which live until it goes or close() is called.
class Crowd {
 public:
  /// Begins to open them, `opening` at once.
  Crowd(const Pod& from, const Endpoint& to, int connections, int opening = 256);
  /// Waits until each has been answered, or has ended.
  CrowdRound opened(milliseconds deadline = milliseconds(120'000));
  /// Each that lives says a line and has its echo.
  CrowdRound echo(milliseconds deadline = milliseconds(60'000));
  /// Ends each with FIN and waits for the other side's.
  CrowdRound close(milliseconds deadline = milliseconds(60'000));
  [[nodiscard]] Process& process() { return process_; }

 private:
  CrowdRound round(const std::string& what, milliseconds deadline);
  Process process_;
  int rounds_ = 0;  ///< of echoes
};

/// Resident memory in bytes, from smaps_rollup.
struct Memory {
  std::size_t rss = 0, pss = 0;
};
[[nodiscard]] Memory memory_of(pid_t pid);

/// TCP sockets in a namespace that are neither listening nor in TIME_WAIT: all, and those of tunnels (port 15008 on
/// either side).
struct Sockets {
  int all = 0, tunnels = 0;
};
[[nodiscard]] Sockets sockets_in(const Netns& netns);

/// CPU time that a process has used, user and system, in seconds.
[[nodiscard]] double cpu_seconds(pid_t pid);
/// True once the process takes less than a twentieth of a CPU for a fifth of a second.
[[nodiscard]] bool becomes_idle(pid_t pid, milliseconds deadline);

}  // namespace weft::test
