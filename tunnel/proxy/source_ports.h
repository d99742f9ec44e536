// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::proxy {

/// The ports from which an application is dialled in its clients' names: 1024 to 32767, so that they never meet the
/// ports of the clients themselves, without those that the pod's netns reserves. They are bound one by one, not chosen
/// by the kernel: connect() from a port that was bound by number may follow a TIME_WAIT of the same tuple at once, one
/// from a port of the kernel's choice only where net.ipv4.tcp_tw_reuse allows it.
class SourcePorts {
 public:
  SourcePorts() : SourcePorts(std::string_view()) {}
  /// `reserved` as net.ipv4.ip_local_reserved_ports spells it: "8080,9000-9010". What is no port is skipped.
  explicit SourcePorts(std::string_view reserved);

  [[nodiscard]] std::size_t count() const { return count_; }
  /// `index` below count().
  [[nodiscard]] std::uint16_t at(std::size_t index) const;

 private:
  std::vector<std::pair<std::uint16_t, std::uint16_t>> ranges_;  ///< first and last, ascending
  std::size_t count_ = 0;
};

/// The order in which one dial tries the ports. A port carries one connection for each client and application port; the
/// kernel alone knows which are taken, since the workers share nothing: connect() says so. Few ports are tried one by
/// one, all of them; many at random after the first, which is the one that was left alone for longest.
class PortSearch {
 public:
  PortSearch(const SourcePorts& ports, std::size_t& cursor) : ports_(ports), cursor_(cursor) {}
  /// False when it is no use to try on.
  [[nodiscard]] bool next(std::uint64_t random, std::uint16_t& port);

 private:
  const SourcePorts& ports_;
  std::size_t& cursor_;
  std::size_t tried_ = 0;
};

/// What one worker remembers about the source ports of its pods, by slot. One thread.
class PodPorts {
 public:
  struct Entry {
    SourcePorts ports;
    std::size_t cursor = 0;
  };
  /// Reads the reserved ports of the thread's netns when the pod is new here.
  Entry& of(std::uint32_t slot, std::uint64_t random);
  void forget(std::uint32_t slot) { entries_.erase(slot); }

 private:
  std::map<std::uint32_t, Entry> entries_;
};

}  // namespace weft::proxy
