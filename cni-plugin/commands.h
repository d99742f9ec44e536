// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "cni-plugin/environment.h"

namespace weft::cni {

/// What a call of the plugin ends with.
struct Outcome {
  int exit_status = 0;
  std::string standard_output;  ///< one JSON document, or nothing
};

/// Runs one CNI call: the variables and the document on stdin in, the exit status and the document for stdout out.
/// Initialises the log (stderr or logFile). Call it once per process, from its only thread: network namespaces are
/// entered and left on it.
[[nodiscard]] Outcome run(const Environment& environment, std::string_view standard_input);

}  // namespace weft::cni
