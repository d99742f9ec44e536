// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <iosfwd>

namespace weft::cli {

/// weftctl's exit codes.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;       ///< the command was understood and could not be carried out
inline constexpr int kUsage = 2;        ///< the command line is wrong
inline constexpr int kUnreachable = 3;  ///< the agent does not answer on the admin address
inline constexpr int kNotReady = 4;     ///< `status`: the agent answers and is not ready
inline constexpr int kRefused = 5;      ///< `explain`: the connection would be refused, at some endpoints at least

/// Runs weftctl: results to `out`, errors to `err`; returns the exit code. `argv` as in main.
int run(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace weft::cli
