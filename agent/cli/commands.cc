// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/commands.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <ostream>

#include "agent/cli/ca_commands.h"
#include "agent/cli/output.h"
#include "agent/version.h"

namespace weft::cli {
namespace {

using nlohmann::json;

/// What the command line filled in.
struct Options {
  std::string admin = "127.0.0.1:15000";
  std::string output = "table";
  int timeout_ms = 5'000;
  CaIssue issue;
  std::string ca_directory;
};

int exit_code(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kTimeout ? kUnreachable : kFailed;
}

Result<json> fetch(const Options& options, const std::string& path) {
  auto address = Endpoint::parse(options.admin);
  if (!address) {
    return fail(ErrorCode::kInvalid,
                "--admin: \"" + options.admin + "\": expected ADDRESS:PORT, such as 127.0.0.1:15000");
  }
  auto response = admin::http_request(*address, "GET", path, options.timeout_ms);
  if (!response) return Failure(response.error());
  if (response->status != 200) {
    return fail(ErrorCode::kInternal, "GET " + path + " at " + options.admin + ": status " +
                                          std::to_string(response->status) + ": " + response->body);
  }
  json parsed = json::parse(response->body, nullptr, false);
  if (parsed.is_discarded()) {
    return fail(ErrorCode::kInternal,
                "GET " + path + " at " + options.admin + ": the answer is not JSON (is this weft-agent?)");
  }
  return parsed;
}

class Session {
 public:
  Session(std::ostream& out, std::ostream& err) : out_(out), err_(err) {}

  int failed(const Error& error) const {
    err_ << "weftctl: " << error.message() << "\n";
    return exit_code(error);
  }

  /// Fetches a path and prints it as it is, or as the table made of it.
  int show(const Options& options, const char* path, Result<std::string> (*make)(const json&),
           json (*select)(const json&) = nullptr) const {
    auto answer = fetch(options, path);
    if (!answer) return failed(answer.error());
    if (options.output == "json") {
      out_ << (select != nullptr ? select(*answer) : *answer).dump(2) << "\n";
      return kOk;
    }
    auto text = make(*answer);
    if (!text) return failed(text.error());
    out_ << *text;
    return kOk;
  }

  int status(const Options& options) const {
    auto answer = fetch(options, "/status");
    if (!answer) return failed(answer.error());
    auto text = status_table(*answer);
    if (!text) return failed(text.error());
    out_ << (options.output == "json" ? answer->dump(2) + "\n" : *text);
    return answer->at("ready").get<bool>() ? kOk : kNotReady;
  }

  int done(Result<std::string> result) const {
    if (!result) return failed(result.error());
    out_ << *result;
    return kOk;
  }

 private:
  std::ostream& out_;
  std::ostream& err_;
};

void add_query(CLI::App& app, Options& options, const char* name, const char* help) {
  auto* command = app.add_subcommand(name, help);
  command->add_option("--admin", options.admin, "the agent's admin address")
      ->envname("WEFT_ADMIN")
      ->capture_default_str();
  command->add_option("-o,--output", options.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command->add_option("--timeout-ms", options.timeout_ms, "how long to wait for the agent")
      ->check(CLI::Range(1, 600'000))
      ->capture_default_str();
}

void add_ca(CLI::App& app, Options& options) {
  auto* ca = app.add_subcommand("ca", "the mesh's own CA, for agents with --ca-dir");
  ca->require_subcommand(1);
  auto* init = ca->add_subcommand("init", "make the root of a mesh in DIR; copy DIR to every node");
  init->add_option("DIR", options.ca_directory, "a directory, made if it does not exist")->required();
  auto* issue = ca->add_subcommand("issue", "issue one certificate, to OUT/cert.pem, OUT/key.pem and OUT/roots.pem");
  issue->add_option("DIR", options.issue.directory, "the CA's directory")->required();
  issue->add_option("--identity", options.issue.identity, "spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")->required();
  issue->add_option("--out", options.issue.out, "a directory, made if it does not exist")->required();
  issue->add_option("--ttl", options.issue.ttl_seconds, "validity, such as 3600, 90m, 24h")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, long>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}},
                                        CLI::AsNumberWithUnit::UNIT_OPTIONAL, "DURATION"))
      ->check(CLI::Range(1L, 3650L * 86400))
      ->default_str("24h");
}

int dispatch(const CLI::App& app, const Options& options, const Session& session, std::ostream& out) {
  if (app.got_subcommand("version")) {
    out << "weftctl " << agent::kVersion << "\n";
    return kOk;
  }
  if (app.got_subcommand("status")) return session.status(options);
  if (app.got_subcommand("pods")) return session.show(options, "/pods", pods_table);
  if (app.got_subcommand("connections")) return session.show(options, "/connections", connections_table);
  if (app.got_subcommand("drops")) return session.show(options, "/counters", drops_table, drops_of);
  const auto* ca = app.get_subcommand("ca");
  if (ca->got_subcommand("init")) return session.done(ca_init(options.ca_directory));
  return session.done(ca_issue(options.issue));
}

}  // namespace

int run(int argc, const char* const* argv, std::ostream& out, std::ostream& err) {
  Options options;
  CLI::App app{"weftctl: looks at a weft-agent, and keeps a mesh's own CA"};
  app.name("weftctl");
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done; 1 the command failed; 2 wrong command line; 3 the agent does not answer on the admin "
      "address;\n"
      "4 `status`: the agent answers and is not ready.");
  add_query(app, options, "status", "whether the agent is ready, and what it holds");
  add_query(app, options, "pods", "the wired pods of the node");
  add_query(app, options, "connections", "the live connections of the node's pods");
  add_query(app, options, "drops", "packets that capture dropped, by program and reason");
  add_ca(app, options);
  app.add_subcommand("version", "the version of weftctl");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // Help is an "error" of code 0 here; CLI11 prints the help of the subcommand that was asked.
    return app.exit(e, out, err) == 0 ? kOk : kUsage;
  }
  try {
    return dispatch(app, options, Session(out, err), out);
  } catch (const json::exception& e) {
    err << "weftctl: the agent's answer: " << e.what() << " (are weftctl and weft-agent of different versions?)\n";
    return kFailed;
  }
}

}  // namespace weft::cli
