// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "cni-plugin/install.h"
#include "tunnel/base/error.h"

namespace weft::cni::install {

enum class Action : std::uint8_t { kInstall, kUninstall, kHelp, kVersion };

/// A command line as it was understood.
struct Parsed {
  Action action = Action::kHelp;
  Options options;
};

/// Reads the arguments behind the program's name. Not with CLI11: its validators are objects that would be made at
/// every start of a process that starts for every pod. Errors: kInvalid, with what is wrong and what was expected;
/// values of the entry's keys are judged by the code that reads them at each call (conf.h).
Result<Parsed> parse_arguments(const std::vector<std::string>& arguments);

/// `weft-cni` with arguments: everything but the calls of a runtime. Gives the exit status.
int run_command_line(int argc, char** argv, const char* version);

}  // namespace weft::cni::install
