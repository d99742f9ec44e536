// SPDX-License-Identifier: Apache-2.0
#include "test/netns/leftovers.h"

#include <bpf/bpf.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <vector>

namespace weft::test {
namespace {

std::ptrdiff_t files_in(const std::string& folder) {
  std::error_code error;
  const std::filesystem::directory_iterator entries(folder, error);
  return error ? 0 : std::distance(entries, std::filesystem::directory_iterator());
}

std::ptrdiff_t entries_of(const std::string& map) {
  const Fd fd(bpf_obj_get(map.c_str()));
  if (!fd) throw TestError("open the map " + map);
  bpf_map_info info{};
  std::uint32_t length = sizeof info;
  if (bpf_obj_get_info_by_fd(fd.get(), &info, &length) != 0) throw TestError("ask about the map " + map);
  std::vector<char> key(info.key_size), next(info.key_size);
  std::ptrdiff_t entries = 0;
  for (const void* from = nullptr; bpf_map_get_next_key(fd.get(), from, next.data()) == 0; ++entries) {
    key = next;
    from = key.data();
  }
  return entries;
}

}  // namespace

bool Leftovers::same_as(const Leftovers& before) const {
  return links == before.links && pins == before.pins && records == before.records &&
         registrations == before.registrations && addresses == before.addresses && interfaces == before.interfaces &&
         descriptors <= before.descriptors;
}

void PrintTo(const Leftovers& left, std::ostream* out) {
  *out << left.links << " links, " << left.pins << " pins, " << left.records << " records, " << left.registrations
       << " registrations, " << left.addresses << " addresses, " << left.interfaces << " interfaces, "
       << left.descriptors << " descriptors";
}

Leftovers leftovers(const Netns& node, const std::string& bpf_root, const std::string& run_dir, pid_t agent) {
  Leftovers now;
  now.links = static_cast<std::ptrdiff_t>(nlohmann::json::parse(node.ip("-j link show")).size());
  now.pins = files_in(bpf_root + "/links");
  now.records = files_in(bpf_root + "/records");
  now.registrations = files_in(run_dir + "/registrations");
  now.addresses = entries_of(bpf_root + "/maps/pods");
  now.interfaces = entries_of(bpf_root + "/maps/interfaces");
  if (agent != 0) now.descriptors = files_in("/proc/" + std::to_string(agent) + "/fd");
  return now;
}

}  // namespace weft::test
