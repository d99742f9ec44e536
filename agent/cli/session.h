// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/admin/http_server.h"
#include "tunnel/base/error.h"

namespace CLI {
class App;
}

namespace weft::cli {

/// How the agent is asked, and in what form its answer is shown.
struct AgentOptions {
  std::string admin = "127.0.0.1:15000";
  std::string output = "table";
  int timeout_ms = 5'000;
};

/// Whether the error says that the agent cannot be asked: nobody answers there, or not in time.
[[nodiscard]] bool is_unreachable(const Error& error);

/// One run of weftctl: where it writes, what its command line said, and what is to be done. Sub-commands put themselves
/// into `action` when they are chosen; it gives the exit code.
class Session {
 public:
  Session(std::ostream& out, std::ostream& err) : out_(out), err_(err) {}

  AgentOptions agent;
  std::function<int()> action;

  [[nodiscard]] std::ostream& out() const { return out_; }
  [[nodiscard]] std::ostream& err() const { return err_; }
  [[nodiscard]] bool wants_json() const { return agent.output == "json"; }

  /// Writes the error to `err`; gives its exit code.
  [[nodiscard]] int failed(const Error& error) const;
  /// Writes the text to `out`, or the error.
  [[nodiscard]] int done(const Result<std::string>& result) const;
  /// Writes the answer as JSON, or what `make` makes of it.
  [[nodiscard]] int show(const nlohmann::json& answer, Result<std::string> (*make)(const nlohmann::json&)) const;

  /// The answer to a request, whatever its status. Errors: kInvalid (--admin), kUnavailable, kTimeout.
  [[nodiscard]] Result<admin::HttpResponse> ask(const std::string& method, const std::string& path_and_query) const;
  /// What GET answers, parsed. Errors: those of ask(); kInternal with the agent's own words for another status than
  /// 200, and for what is not JSON.
  [[nodiscard]] Result<nlohmann::json> fetch(const std::string& path_and_query) const;
  /// The same of an answer that ask() gave to GET.
  [[nodiscard]] Result<nlohmann::json> parse(const std::string& path_and_query,
                                             const admin::HttpResponse& response) const;

 private:
  std::ostream& out_;
  std::ostream& err_;
};

/// --admin, --timeout-ms and -o for a sub-command that asks the agent.
void add_agent_options(CLI::App& command, Session& session);

/// For a value in a query.
[[nodiscard]] std::string percent_encoded(const std::string& text);

}  // namespace weft::cli
