// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tunnel/base/error.h"

namespace weft::chain {

/// A plugin's end. stderr is the caller's own.
struct PluginRun {
  int exit_status = 0;  ///< 128 and the signal's number for one that was killed
  std::string output;
};

/// Starts a program with exactly this environment, gives it `input` on stdin and waits for its end.
Result<PluginRun> run_plugin(const std::string& program, const std::vector<std::string>& environment,
                             const std::string& input);

}  // namespace weft::chain
