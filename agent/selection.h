// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace weft::agent {

/// What is said of a pod's place in the mesh by whoever selects the pods, where that is not the mesh's configuration.
struct Selection {
  enum class Kind : std::uint8_t {
    kSelected,
    kNotSelected,
    kLeaving,  ///< selected no longer; where it is in the mesh it stays until it is said that it may go
    kUnsaid,   ///< nothing is known of it: it stays what it is
  } kind = Kind::kUnsaid;
  std::string reason;  ///< in words, for people
};

}  // namespace weft::agent
