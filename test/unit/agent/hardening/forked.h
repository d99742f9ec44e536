// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

namespace weft::test {

/// How a child process ended, and what it wrote to stderr.
struct Ended {
  int status = -1;  ///< what `work` gave, or 128 + the signal
  std::string text;
};

/// Runs `work` in a child, for what a process cannot take back: filters, capabilities, users. Gives up after 20 s.
Ended in_child(const std::function<int()>& work);

}  // namespace weft::test
