// SPDX-License-Identifier: Apache-2.0
#include "test/netns/memory_cgroup.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "test/support/process.h"

namespace weft::test {
namespace {

constexpr std::string_view kPrefix = "weftt-";

bool write(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.flush();
  return file.good();
}

/// Where the memory controller's hierarchies may be, and how their files are called.
struct Hierarchy {
  std::string top, limit, controllers;
};
const std::vector<Hierarchy> kHierarchies = {{"/sys/fs/cgroup", "memory.max", ""},
                                             {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory"}};

/// The test's own cgroup in it.
std::string home_in(const Hierarchy& hierarchy) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (line.substr(first + 1, second - first - 1) == hierarchy.controllers)
      return hierarchy.top + line.substr(second + 1);
  }
  return {};
}

void remove_leftovers(const std::string& top) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(top, error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix)) continue;
    const pid_t pid = std::atoi(name.c_str() + kPrefix.size());
    if (pid > 0 && ::kill(pid, 0) != 0) ::rmdir(entry.path().c_str());
  }
}

}  // namespace

std::unique_ptr<MemoryCgroup> MemoryCgroup::make(std::uint64_t limit_bytes) {
  for (const auto& hierarchy : kHierarchies) {
    const std::string home = home_in(hierarchy);
    if (home.empty() || ::access((home + "/cgroup.procs").c_str(), W_OK) != 0) continue;
    remove_leftovers(hierarchy.top);
    const std::string folder = hierarchy.top + "/" + std::string(kPrefix) + std::to_string(::getpid());
    if (::mkdir(folder.c_str(), 0755) != 0) continue;
    std::unique_ptr<MemoryCgroup> made(new MemoryCgroup(home, folder));
    const std::string file = folder + "/" + hierarchy.limit;
    if (::access(file.c_str(), W_OK) == 0 && write(file, std::to_string(limit_bytes))) return made;
  }
  return nullptr;
}

MemoryCgroup::~MemoryCgroup() { ::rmdir(folder_.c_str()); }

MemoryCgroup::Inside::Inside(const MemoryCgroup& group) : group_(group) {
  if (!write(group_.folder_ + "/cgroup.procs", std::to_string(::getpid()))) {
    throw TestError("enter the cgroup " + group_.folder_ + ": failed");
  }
}

MemoryCgroup::Inside::~Inside() { write(group_.home_ + "/cgroup.procs", std::to_string(::getpid())); }

}  // namespace weft::test
