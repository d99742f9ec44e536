// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tunnel/base/error.h"

namespace weft::bpf {

/// One counter of the data path, summed over the CPUs: the program, the verdict and its reason in words.
struct Counter {
  std::string_view program, verdict, reason;
  std::uint64_t packets = 0;
};

/// What passed a pod's own end of its veth without the agent, since it took its slot. Bytes are of whole frames;
/// several segments that the kernel hands on as one count as one packet. The first packets of a connection that the
/// agent takes, until it has accepted, are among them where it is checked plaintext.
struct PodTraffic {
  std::uint64_t packets_out = 0, bytes_out = 0;
  std::uint64_t packets_in = 0, bytes_in = 0;
  std::uint64_t captured = 0;  ///< packets of its applications that went to the agent
  struct Drop {
    std::string_view reason;
    std::uint64_t packets = 0;
    bool operator==(const Drop&) const = default;
  };
  std::vector<Drop> drops = {};  ///< those above 0
  bool operator==(const PodTraffic&) const = default;
};

/// Of the map `counters`: every program with every reason.
Result<std::vector<Counter>> read_counters(int map);
/// Of the map `pod_counters`.
Result<PodTraffic> read_traffic(int map, std::uint32_t slot);
/// Begins anew. A packet that is being counted at this moment may bring a part of the old sums back: for slots without
/// a pod.
Result<void> zero_traffic(int map, std::uint32_t slot);

}  // namespace weft::bpf
