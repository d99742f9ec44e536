// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/cli/session.h"

namespace weft::cli {

/// The sub-commands that show what the agent holds: status, pods, workloads, services, policies, certificates,
/// connections, drops; and log-level, which changes it.
void add_queries(CLI::App& app, Session& session);

/// `weftctl explain SRC DST:PORT`: kOk where it would be allowed, kRefused where it (or a part of it) would not.
void add_explain(CLI::App& app, Session& session);

}  // namespace weft::cli
