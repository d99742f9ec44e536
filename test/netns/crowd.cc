// SPDX-License-Identifier: Apache-2.0
#include "test/netns/crowd.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <sstream>

namespace weft::test {

Process start_echo(const Pod& pod) {
  Process server = pod.start({program("weft-testapp"), "echo", "--port", std::to_string(kCrowdPort)});
  if (!server.wait_for_output("serving echo", milliseconds(10'000))) {
    throw TestError("the echo server of " + pod.name() + " does not serve: " + server.out() + server.err());
  }
  return server;
}

Crowd::Crowd(const Pod& from, const Endpoint& to, int connections, int opening)
    : process_(from.start({program("weft-testapp"), "crowd", to.to_string(), "--connections",
                           std::to_string(connections), "--opening", std::to_string(opening)})) {}

CrowdRound Crowd::opened(milliseconds deadline) { return round("opened", deadline); }

CrowdRound Crowd::echo(milliseconds deadline) {
  process_.signal(SIGUSR1);
  return round("echoed", deadline);
}

CrowdRound Crowd::close(milliseconds deadline) {
  process_.signal(SIGTERM);
  return round("closed", deadline);
}

CrowdRound Crowd::round(const std::string& what, milliseconds deadline) {
  // The newest line of this kind; each kind but echoes comes once.
  const std::string mark = what + " connections=";
  const auto count = [&] {
    const std::string out = process_.out();
    int lines = 0;
    for (auto at = out.find(mark); at != std::string::npos; at = out.find(mark, at + 1)) ++lines;
    return lines;
  };
  const int before = what == "echoed" ? rounds_ : 0;
  const auto told = [&] { return count() > before; };
  // What it said last may come in after its end was noticed.
  constexpr milliseconds kLastWords{1'000};
  if (!eventually(deadline, [&] { return told() || !process_.running(); }) || !eventually(kLastWords, told)) {
    throw TestError("the crowd is not " + what + ": " + process_.out() + process_.err());
  }
  if (what == "echoed") ++rounds_;
  const std::string out = process_.out();
  const auto start = out.rfind(mark);
  std::istringstream words(out.substr(start, out.find('\n', start) - start));
  CrowdRound result;
  std::string word;
  words >> word;
  while (words >> word) {
    const auto equals = word.find('=');
    const std::string key = word.substr(0, equals);
    const int value = std::atoi(word.c_str() + equals + 1);
    if (key == "connections") {
      result.answered = value;
    } else if (key == "ms") {
      result.ms = value;
    } else if (key == "longest_ms") {
      result.longest_ms = value;
    } else {
      result.ended[key] = value;
    }
  }
  return result;
}

Memory memory_of(pid_t pid) {
  std::istringstream lines(read_file("/proc/" + std::to_string(pid) + "/smaps_rollup"));
  Memory memory;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("Rss:")) memory.rss = std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
    if (line.starts_with("Pss:")) memory.pss = std::strtoull(line.c_str() + 4, nullptr, 10) * 1024;
  }
  if (memory.rss == 0) throw TestError("process " + std::to_string(pid) + " has no Rss");
  return memory;
}

Sockets sockets_in(const Netns& netns) {
  constexpr std::string_view kListening = "0A", kTimeWait = "06", kHbonePort = ":3AA0";
  Sockets sockets;
  for (const char* path : {"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"}) {
    std::istringstream lines(run_in(netns, [path] { return read_file(path); }));
    std::string line;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
      std::istringstream words(line);
      std::string number, local, remote, state;
      words >> number >> local >> remote >> state;
      if (state == kListening || state == kTimeWait) continue;
      ++sockets.all;
      sockets.tunnels += local.ends_with(kHbonePort) || remote.ends_with(kHbonePort) ? 1 : 0;
    }
  }
  return sockets;
}

double cpu_seconds(pid_t pid) {
  constexpr int kBeforeUtime = 11;  // fields between the program's name and utime: proc(5)
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < kBeforeUtime; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

bool becomes_idle(pid_t pid, milliseconds deadline) {
  constexpr milliseconds kWindow{200};
  constexpr double kShare = 0.05;
  auto since = std::chrono::steady_clock::now();
  double last = cpu_seconds(pid);
  return eventually(deadline, [&] {
    const auto now = std::chrono::steady_clock::now();
    if (now - since < kWindow) return false;
    const double used = cpu_seconds(pid);
    const double share = (used - last) / std::chrono::duration<double>(now - since).count();
    since = now;
    last = used;
    return share < kShare;
  });
}

}  // namespace weft::test
