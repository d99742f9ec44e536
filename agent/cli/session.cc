// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/session.h"

#include <CLI/CLI.hpp>
#include <cctype>
#include <ostream>

#include "agent/cli/commands.h"

namespace weft::cli {
namespace {

using nlohmann::json;
constexpr int kStatusNotFound = 404;

/// The agent says why; a path that it does not have says nothing of use.
Error unexpected(const AgentOptions& agent, const std::string& path, const admin::HttpResponse& response) {
  std::string said = response.body.substr(0, response.body.find_last_not_of('\n') + 1);
  const bool no_such_path =
      response.status == kStatusNotFound && said.starts_with("GET " + path.substr(0, path.find('?')));
  if (no_such_path) said = "not known there (is weft-agent older than weftctl?)";
  return {ErrorCode::kInternal, 0,
          "GET " + path + " at " + agent.admin + ": status " + std::to_string(response.status) + ": " + said};
}

}  // namespace

bool is_unreachable(const Error& error) {
  return error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kTimeout;
}

int Session::failed(const Error& error) const {
  err_ << "weftctl: " << error.message() << "\n";
  return is_unreachable(error) ? kUnreachable : kFailed;
}

int Session::done(const Result<std::string>& result) const {
  if (!result) return failed(result.error());
  out_ << *result;
  return kOk;
}

int Session::show(const json& answer, Result<std::string> (*make)(const json&)) const {
  return done(wants_json() ? Result<std::string>(answer.dump(2) + "\n") : make(answer));
}

Result<admin::HttpResponse> Session::ask(const std::string& method, const std::string& path_and_query) const {
  auto address = Endpoint::parse(agent.admin);
  if (!address) {
    return fail(ErrorCode::kInvalid,
                "--admin: \"" + agent.admin + "\": expected ADDRESS:PORT, such as 127.0.0.1:15000");
  }
  return admin::http_request(*address, method, path_and_query, agent.timeout_ms);
}

Result<json> Session::fetch(const std::string& path_and_query) const {
  auto response = ask("GET", path_and_query);
  if (!response) return Failure(response.error());
  return parse(path_and_query, *response);
}

Result<json> Session::parse(const std::string& path_and_query, const admin::HttpResponse& response) const {
  if (response.status != admin::kHttpOk) return Failure(unexpected(agent, path_and_query, response));
  json parsed = json::parse(response.body, nullptr, false);
  if (parsed.is_discarded()) {
    return fail(ErrorCode::kInternal,
                "GET " + path_and_query + " at " + agent.admin + ": the answer is not JSON (is this weft-agent?)");
  }
  return parsed;
}

void add_agent_options(CLI::App& command, Session& session) {
  command.add_option("--admin", session.agent.admin, "the agent's admin address")
      ->envname("WEFT_ADMIN")
      ->capture_default_str();
  command.add_option("-o,--output", session.agent.output, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command.add_option("--timeout-ms", session.agent.timeout_ms, "how long to wait for the agent")
      ->check(CLI::Range(1, 600'000))
      ->capture_default_str();
}

std::string percent_encoded(const std::string& text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || std::string_view("-._~").find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += {'%', kHex[byte >> 4U], kHex[byte & 0xfU]};
    }
  }
  return out;
}

}  // namespace weft::cli
