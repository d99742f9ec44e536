// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/config.h"

namespace CLI {
class App;
}

/// The flags about istiod, a part of parse_config().
namespace weft::agent {

/// The error of a flag, for all of the command line.
inline Failure bad_flag(const std::string& flag, const std::string& found, const std::string& expected) {
  return fail(ErrorCode::kInvalid, flag + ": \"" + found + "\": expected " + expected);
}

void add_istiod_options(CLI::App& app, IstiodConfig& config);

/// What of the flags on both sides was given, not left to its default.
struct GivenFlags {
  bool ca_dir = false;
  bool certificate_lifetime = false;
};
/// Checks them, and settles who is asked for what: istiod's CA belongs to its configuration unless there is a CA of the
/// mesh's own. Errors: kInvalid naming the flag.
Result<void> settle_istiod(Config& config, const GivenFlags& given);

}  // namespace weft::agent
