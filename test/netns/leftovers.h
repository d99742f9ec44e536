// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <iosfwd>
#include <string>

#include "test/support/netns.h"

namespace weft::test {

/// What pods may leave behind on a node, counted.
struct Leftovers {
  std::ptrdiff_t links = 0, pins = 0, records = 0, registrations = 0, addresses = 0, interfaces = 0, descriptors = 0;

  /// The same as before. What the agent had open for a moment while `before` was counted may be gone.
  [[nodiscard]] bool same_as(const Leftovers& before) const;
};
void PrintTo(const Leftovers& left, std::ostream* out);

/// `run_dir` is the agent's; without an agent (0) there are no descriptors.
[[nodiscard]] Leftovers leftovers(const Netns& node, const std::string& bpf_root, const std::string& run_dir,
                                  pid_t agent);

}  // namespace weft::test
