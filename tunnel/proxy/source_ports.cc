// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/source_ports.h"

#include <algorithm>
#include <charconv>
#include <fstream>

namespace weft::proxy {
namespace {

/// Above the well-known ports, below the kernel's ephemeral range.
constexpr std::uint32_t kFirst = 1024;
constexpr std::uint32_t kLast = 32767;
/// Up to this many ports are tried to the last one: some milliseconds at most.
constexpr std::size_t kFew = 512;
/// At random that many tries find a port in 99 of 100 cases while no more than 98 of 100 are taken.
constexpr std::size_t kTries = 256;

/// "A" or "A-B" at the head of `text`, which is consumed up to and with the next comma. An empty range where it is
/// neither.
std::pair<std::uint32_t, std::uint32_t> take_range(std::string_view& text) {
  const auto comma = text.find(',');
  const std::string_view part = text.substr(0, comma);
  text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
  std::uint32_t first = 0;
  const auto head = std::from_chars(part.data(), part.data() + part.size(), first);
  if (head.ec != std::errc()) return {1, 0};
  std::uint32_t last = first;
  if (head.ptr != part.data() + part.size() && *head.ptr == '-') {
    if (std::from_chars(head.ptr + 1, part.data() + part.size(), last).ec != std::errc()) return {1, 0};
  }
  return {first, last};
}

}  // namespace

SourcePorts::SourcePorts(std::string_view reserved) {
  std::vector<std::pair<std::uint32_t, std::uint32_t>> taken;
  while (!reserved.empty()) taken.push_back(take_range(reserved));
  std::ranges::sort(taken);
  std::uint32_t next = kFirst;
  const auto add = [&](std::uint32_t last) {
    if (next > last) return;
    ranges_.emplace_back(static_cast<std::uint16_t>(next), static_cast<std::uint16_t>(last));
    count_ += last - next + 1;
  };
  for (const auto& [first, last] : taken) {
    if (first > last || last < next || first > kLast) continue;
    if (first > next) add(first - 1);
    next = last + 1;
  }
  add(kLast);
}

std::uint16_t SourcePorts::at(std::size_t index) const {
  for (const auto& [first, last] : ranges_) {
    const std::size_t here = last - first + 1U;
    if (index < here) return static_cast<std::uint16_t>(first + index);
    index -= here;
  }
  return 0;
}

bool PortSearch::next(std::uint64_t random, std::uint16_t& port) {
  const std::size_t count = ports_.count();
  if (tried_ >= (count <= kFew ? count : kTries)) return false;
  const bool in_order = count <= kFew || tried_ == 0;
  port = ports_.at((in_order ? cursor_++ : random) % count);
  ++tried_;
  return true;
}

PodPorts::Entry& PodPorts::of(std::uint32_t slot, std::uint64_t random) {
  const auto [at, is_new] = entries_.try_emplace(slot);
  if (is_new) {
    std::string reserved;
    std::ifstream("/proc/sys/net/ipv4/ip_local_reserved_ports") >> reserved;
    at->second.ports = SourcePorts(reserved);
    at->second.cursor = random;
  }
  return at->second;
}

}  // namespace weft::proxy
