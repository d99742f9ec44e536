// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>

namespace weft::agent {

/// Makes the option take a duration: seconds, or a number with a unit, such as 90m or 24h, within the bounds. Its
/// variable holds seconds.
inline CLI::Option* takes_duration(CLI::Option* option, long at_least_s, long at_most_s) {
  return option
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, long>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}},
                                        CLI::AsNumberWithUnit::UNIT_OPTIONAL, "DURATION"))
      ->check(CLI::Range(at_least_s, at_most_s));
}

}  // namespace weft::agent
