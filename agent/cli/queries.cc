// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/queries.h"

#include <CLI/CLI.hpp>
#include <array>
#include <memory>
#include <ostream>

#include "agent/cli/commands.h"
#include "agent/cli/config_tables.h"
#include "agent/cli/explain_output.h"
#include "agent/cli/output.h"

namespace weft::cli {
namespace {

using nlohmann::json;

/// A list that the agent gives under a path of its own.
struct Query {
  const char* name;
  const char* help;
  const char* path;
  Result<std::string> (*table)(const json&);
  json (*select)(const json&) = nullptr;  ///< what of the answer is meant; null: all
};

constexpr std::array kQueries{
    Query{"pods", "the wired pods of the node: captured? since when? verified how?", "/pods", pods_table},
    Query{"workloads", "the mesh's workloads, as the control plane describes them", "/workloads", workloads_table},
    Query{"services", "the mesh's services, with their VIPs, ports and endpoints", "/services", services_table},
    Query{"policies", "L4 policies, and what about them does not do what it seems to", "/policies", policies_table},
    Query{"certificates", "the certificates of this node's identities", "/certificates", certificates_table},
    Query{"drops", "packets that capture dropped, by program and reason", "/counters", drops_table, drops_of}};

int run_query(const Session& session, const Query& query) {
  auto answer = session.fetch(query.path);
  if (!answer) return session.failed(answer.error());
  const bool selected = session.wants_json() && query.select != nullptr;
  return session.show(selected ? query.select(*answer) : *answer, query.table);
}

int run_status(const Session& session) {
  auto answer = session.fetch("/status");
  if (!answer) return session.failed(answer.error());
  const int shown = session.show(*answer, status_table);
  if (shown != kOk) return shown;
  return answer->at("ready").get<bool>() ? kOk : kNotReady;
}

int run_log_level(const Session& session, const std::string& level) {
  auto answer = session.ask("POST", "/logging" + (level.empty() ? "" : "?level=" + percent_encoded(level)));
  if (!answer) return session.failed(answer.error());
  std::string text = answer->body.substr(0, answer->body.find('\n'));
  if (answer->status != admin::kHttpOk) {
    return session.failed({ErrorCode::kInternal, 0, "log level at " + session.agent.admin + ": " + text});
  }
  if (text.starts_with("level=")) text.erase(0, text.find('=') + 1);
  session.out() << (session.wants_json() ? json{{"level", text}}.dump(2) : text) << "\n";
  return kOk;
}

struct PlaintextOptions {
  bool plaintext = false, expire = false;
  std::string pod;
};

int run_connections(const Session& session, const PlaintextOptions& options) {
  if (!options.plaintext) {
    auto answer = session.fetch("/connections");
    return answer ? session.show(*answer, connections_table) : session.failed(answer.error());
  }
  const std::string path =
      "/connections/plaintext" + (options.pod.empty() ? "" : "?pod=" + percent_encoded(options.pod));
  auto response = session.ask(options.expire ? "POST" : "GET", path);
  auto answer = response ? session.parse(path, *response) : Result<json>(Failure(response.error()));
  return answer ? session.show(*answer, plaintext_table) : session.failed(answer.error());
}

int run_explain(const Session& session, const std::string& source, const std::string& destination) {
  auto answer = session.fetch("/explain?from=" + percent_encoded(source) + "&to=" + percent_encoded(destination));
  if (!answer) return session.failed(answer.error());
  const int shown = session.show(*answer, explanation_text);
  if (shown != kOk) return shown;
  return answer->at("outcome").get<std::string>() == "allowed" ? kOk : kRefused;
}

}  // namespace

void add_queries(CLI::App& app, Session& session) {
  auto* status = app.add_subcommand("status", "whether the agent is ready, and what it holds");
  add_agent_options(*status, session);
  status->callback([&session] { session.action = [&session] { return run_status(session); }; });
  for (const auto& query : kQueries) {
    auto* command = app.add_subcommand(query.name, query.help);
    add_agent_options(*command, session);
    command->callback([&session, &query] { session.action = [&] { return run_query(session, query); }; });
  }
  auto* connections = app.add_subcommand("connections", "the live connections of the node's pods");
  add_agent_options(*connections, session);
  const auto options = std::make_shared<PlaintextOptions>();
  auto* plaintext = connections->add_flag("--plaintext", options->plaintext,
                                          "those with the mesh that no agent carries: older than their pod's "
                                          "enrolment, or let in because no policy speaks of them");
  connections->add_flag("--expire", options->expire, "ends them; applications see a reset")->needs(plaintext);
  connections->add_option("--pod", options->pod, "NAMESPACE/NAME: of this pod alone")->needs(plaintext);
  connections->callback(
      [&session, options] { session.action = [&session, options] { return run_connections(session, *options); }; });
  auto* log_level = app.add_subcommand("log-level", "shows the agent's log level, or sets it");
  add_agent_options(*log_level, session);
  const auto level = std::make_shared<std::string>();
  log_level->add_option("LEVEL", *level, "the new level; reset: that of the agent's start")
      ->check(CLI::IsMember({"error", "warn", "info", "debug", "trace", "reset"}));
  log_level->callback(
      [&session, level] { session.action = [&session, level] { return run_log_level(session, *level); }; });
}

void add_explain(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand(
      "explain", "what would become of a connection: captured? encrypted? allowed, by which rule, to which endpoint?");
  add_agent_options(*command, session);
  struct Parties {
    std::string source, destination;
  };
  const auto parties = std::make_shared<Parties>();
  command->add_option("SRC", parties->source, "NAMESPACE/POD or an address; ask the agent of its node")->required();
  command
      ->add_option("DST:PORT", parties->destination,
                   "ADDRESS:PORT, NAMESPACE/POD:PORT, HOSTNAME:PORT, NAME.NAMESPACE:PORT, or NAME:PORT in the "
                   "source's namespace")
      ->required();
  command->callback([&session, parties] {
    session.action = [&session, parties] { return run_explain(session, parties->source, parties->destination); };
  });
  command->footer(
      "Nothing is sent: the answer follows from the agent's configuration and from what it knows of its node's pods.\n"
      "Exit codes: 0 it would be allowed; 5 it would be refused, at some of its endpoints at least; others as usual.");
}

}  // namespace weft::cli
