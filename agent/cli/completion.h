// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "agent/cli/session.h"

namespace weft::cli {

/// `weftctl completion SHELL`: a script that completes sub-commands, options and their values. Made from `app` itself,
/// so that it has what this weftctl has.
void add_completion(CLI::App& app, Session& session);

/// The script for "bash", "zsh" or "fish".
[[nodiscard]] std::string completion_script(const CLI::App& app, const std::string& shell);

}  // namespace weft::cli
