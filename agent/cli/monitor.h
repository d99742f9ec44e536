// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/cli/session.h"

namespace weft::cli {

/// `weftctl monitor`: follows the verdicts and drops of an agent, a line an event, or a JSON object a line. kOk after
/// --count events, at SIGINT or SIGTERM (which it takes for its time), and when the output takes nothing more;
/// kUnreachable when the agent goes away. What was lost is said on the session's err().
void add_monitor(CLI::App& app, Session& session);

}  // namespace weft::cli
