// SPDX-License-Identifier: Apache-2.0
#include "agent/memory_gauge.h"

#include <unistd.h>

#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

namespace weft::agent {
namespace {

/// Where a hierarchy of cgroups is mounted: the folder, and which cgroup that is.
struct Mount {
  std::string folder, cgroup;
};

/// The first number of a file, 0 where there is none.
std::uint64_t number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? number : 0;
}

/// The number behind `key` in a file of lines `key number`.
std::uint64_t number_behind(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  std::uint64_t number = 0;
  while (file >> word >> number) {
    if (word == key) return number;
  }
  return 0;
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

/// A line of mountinfo: "36 35 0:30 /cgroup /folder options - type source options".
bool read_mount(const std::string& line, bool v2, Mount& mount) {
  std::istringstream words(line);
  std::string skipped, type, source, options;
  words >> skipped >> skipped >> skipped >> mount.cgroup >> mount.folder;
  while (words >> skipped && skipped != "-") {
  }
  words >> type >> source >> options;
  return v2 ? type == "cgroup2" : type == "cgroup" && has_word(options, "memory");
}

/// The folder of this process's cgroup, and that of its hierarchy; empty where that is not mounted.
std::pair<std::string, std::string> find_folder(const std::string& root, bool v2) {
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string own;
  for (std::string line; std::getline(groups, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (v2 ? controllers.empty() : has_word(controllers, "memory")) own = line.substr(second + 1);
  }
  if (own.empty()) return {};
  std::ifstream mounts(root + "/proc/self/mountinfo");
  Mount mount;
  for (std::string line; std::getline(mounts, line);) {
    if (!read_mount(line, v2, mount)) continue;
    const std::string above = mount.cgroup == "/" ? "" : mount.cgroup;
    // A container sees its own cgroup as the whole hierarchy, or only that part of it mounted.
    const std::string below = own.starts_with(above) ? own.substr(above.size()) : "";
    const std::string top = root + mount.folder;
    return {below == "/" ? top : top + below, top};
  }
  return {};
}

std::uint64_t machine_memory(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string word;
  std::uint64_t kib = 0;
  return file >> word >> kib ? kib * 1024 : std::numeric_limits<std::uint64_t>::max();
}

}  // namespace

MemoryGauge::MemoryGauge(std::uint64_t own_limit, std::string root) : own_limit_(own_limit), root_(std::move(root)) {
  if (own_limit_ == 0) find_cgroup();
}

void MemoryGauge::find_cgroup() {
  for (const bool v2 : {true, false}) {
    v2_ = v2;
    auto [folder, top] = find_folder(root_, v2);
    // What is above limits this one too.
    while (folder.size() >= top.size() && !top.empty()) {
      if (limit_of(folder) != 0) {
        folder_ = folder;
        return;
      }
      folder.erase(folder.rfind('/'));
    }
  }
}

/// "max", and what is more than the machine has, is no limit.
std::uint64_t MemoryGauge::limit_of(const std::string& folder) const {
  const std::uint64_t limit = number_in(folder + (v2_ ? "/memory.max" : "/memory.limit_in_bytes"));
  return limit < machine_memory(root_) ? limit : 0;
}

MemoryGauge::Reading MemoryGauge::read() const {
  if (folder_.empty()) {
    std::ifstream statm(root_ + "/proc/self/statm");
    std::uint64_t all = 0, resident = 0;
    statm >> all >> resident;
    return {.used = resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)), .limit = own_limit_};
  }
  const std::uint64_t used = number_in(folder_ + (v2_ ? "/memory.current" : "/memory.usage_in_bytes"));
  const std::uint64_t spare = number_behind(folder_ + "/memory.stat", v2_ ? "inactive_file" : "total_inactive_file");
  return {.used = used > spare ? used - spare : 0, .limit = limit_of(folder_)};
}

}  // namespace weft::agent
