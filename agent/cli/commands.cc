// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/commands.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "agent/cli/ca_commands.h"
#include "agent/cli/completion.h"
#include "agent/cli/monitor.h"
#include "agent/cli/queries.h"
#include "agent/cli/session.h"
#include "agent/cli/suggest.h"
#include "agent/version.h"

namespace weft::cli {
namespace {

void add_version(CLI::App& app, Session& session) {
  app.add_subcommand("version", "the version of weftctl")->callback([&session] {
    session.action = [&session] { return session.done("weftctl " + std::string(agent::kVersion) + "\n"); };
  });
}

void add_commands(CLI::App& app, Session& session) {
  app.name("weftctl");
  app.require_subcommand(1);
  app.footer(
      "Exit codes:\n"
      "  0  done\n"
      "  1  the command was understood and failed\n"
      "  2  the command line is wrong\n"
      "  3  the agent does not answer on the admin address\n"
      "  4  status: the agent answers and is not ready\n"
      "  5  explain: the connection would be refused");
  add_queries(app, session);
  add_explain(app, session);
  add_monitor(app, session);
  add_ca(app, session);
  add_completion(app, session);
  add_version(app, session);
}

}  // namespace

int run(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  Session session(out, err);
  CLI::App app{"weftctl: looks at a weft-agent, and keeps a mesh's own CA"};
  add_commands(app, session);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help is an "error" of code 0 here; CLI11 prints the help of the subcommand that was asked.
    if (e.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(e, out, err);
    const std::string unknown = unknown_word(app, std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
    err << "weftctl: " << (unknown.empty() ? e.what() : unknown)
        << "\nweftctl --help lists the commands, weftctl COMMAND --help their options\n";
    return kUsage;
  }
  try {
    return session.action();
  } catch (const nlohmann::json::exception& e) {
    err << "weftctl: the agent's answer: " << e.what() << " (are weftctl and weft-agent of different versions?)\n";
    return kFailed;
  }
}

}  // namespace weft::cli
