// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace weft::bpf {

enum class Side : std::uint8_t { kPodInterface, kPodLoopback, kHost };

/// Where one of the programs is attached. The name is the program's, its pin's and the link's.
struct Hook {
  const char* name;
  Side side;
  bool ingress;
};

/// In the order of attaching: from_pod sends packets to deliver, so deliver must be there first.
inline constexpr std::array<Hook, 5> kHooks{{{"deliver", Side::kPodLoopback, true},
                                             {"to_pod", Side::kPodInterface, true},
                                             {"from_pod", Side::kPodInterface, false},
                                             {"to_pod_host", Side::kHost, false},
                                             {"guard", Side::kHost, true}}};

/// One hook of one attachment.
struct Place {
  const Hook* hook = nullptr;
  std::string pin;            ///< path of the link, or of the filter's record
  std::uint32_t ifindex = 0;  ///< as seen in its netns
  int netns = -1;             ///< borrowed; -1: the calling thread's own

  /// "from_pod on ifindex 2 of the pod": for error texts.
  [[nodiscard]] std::string text() const {
    const char* where = hook->side == Side::kHost ? " of the host" : " of the pod";
    return std::string(hook->name) + " on ifindex " + std::to_string(ifindex) + where;
  }
};

}  // namespace weft::bpf
