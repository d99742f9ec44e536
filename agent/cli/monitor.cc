// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/monitor.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <csignal>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "agent/cli/commands.h"

namespace weft::cli {
namespace {

using nlohmann::json;

/// How long the agent may hold a query: so long an interrupt may have to wait.
constexpr int kWaitMs = 500;
constexpr int kStatusUnavailable = 503;

volatile std::sig_atomic_t interrupted = 0;

/// SIGINT and SIGTERM set `interrupted`, and do what they did before once this is gone.
class InterruptScope {
 public:
  InterruptScope() {
    interrupted = 0;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = 1; };
    for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &before_[i]);
  }
  ~InterruptScope() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  }
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM};
  std::array<struct sigaction, kSignals.size()> before_{};
};

struct MonitorOptions {
  std::string pod;     ///< NAMESPACE/NAME; empty: all
  bool drops = false;  ///< nothing else
  long count = 0;      ///< ends after as many events; 0: does not end by itself
};

class Monitor {
 public:
  Monitor(const Session& session, const MonitorOptions& options) : session_(session), options_(options) {}

  int run() {
    const InterruptScope scope;
    const int wait_ms = std::min(kWaitMs, session_.agent.timeout_ms / 2);
    std::string path = "/events";  // the first answer says where we begin
    bool followed = false;
    while (!done()) {
      auto answer = fetch(path);
      if (!answer) {
        Error& error = answer.error();
        if (followed && is_unreachable(error)) error.context = "the agent went away: " + error.context;
        return session_.failed(error);
      }
      show(*answer);
      path = "/events?wait_ms=" + std::to_string(wait_ms) +
             "&after=" + std::to_string(answer->at("next").get<std::uint64_t>());
      followed = true;
    }
    return kOk;
  }

 private:
  /// kUnavailable also from an agent that is about to stop.
  [[nodiscard]] Result<json> fetch(const std::string& path) const {
    auto response = session_.ask("GET", path);
    if (!response) return Failure(response.error());
    auto answer = session_.parse(path, *response);
    if (response->status == kStatusUnavailable) answer.error().code = ErrorCode::kUnavailable;
    return answer;
  }

  [[nodiscard]] bool done() const {
    return interrupted != 0 || !session_.out() || (options_.count != 0 && shown_ >= options_.count);
  }

  void show(const json& answer) {
    if (const auto lost = answer.at("lost").get<std::uint64_t>(); lost != 0) {
      session_.err() << "weftctl: " << lost << " events were lost, they came too fast\n" << std::flush;
    }
    for (const json& event : answer.at("events")) {
      if (done()) break;
      if (!options_.pod.empty() && event.at("pod") != options_.pod) continue;
      if (options_.drops && event.at("verdict") != "drop") continue;
      session_.out() << (session_.wants_json() ? event.dump() : line_of(event)) << "\n";
      ++shown_;
    }
    session_.out() << std::flush;
  }

  static std::string text_of(const json& event, const char* key, std::size_t width) {
    std::string text = event.at(key).get<std::string>();
    if (text.empty()) text = "-";
    if (text.size() < width) text.resize(width, ' ');
    return text + " ";
  }

  /// "12:34:56.789012 shop/client from_pod capture TCP 10.0.0.1:40000 -> 10.0.1.1:80 SYN  a new connection to the mesh"
  static std::string line_of(const json& event) {
    constexpr std::size_t kPod = 24, kProgram = 11, kVerdict = 7, kProtocol = 4, kEnd = 21, kFlags = 3, kDate = 11;
    std::string time = event.at("time").get<std::string>();
    if (time.size() > kDate) time = time.substr(kDate, time.size() - kDate - 1);
    return time + " " + text_of(event, "pod", kPod) + text_of(event, "program", kProgram) +
           text_of(event, "verdict", kVerdict) + text_of(event, "protocol", kProtocol) +
           text_of(event, "source", kEnd) + "-> " + text_of(event, "destination", kEnd) +
           text_of(event, "tcpFlags", kFlags) + " " + event.at("reason").get<std::string>();
  }

  const Session& session_;
  const MonitorOptions& options_;
  long shown_ = 0;
};

/// CLI11 shows the text to whoever gives something else.
std::string check_pod(const std::string& text) {
  const auto slash = text.find('/');
  const bool fits = slash != std::string::npos && slash != 0 && slash + 1 != text.size();
  return fits ? "" : "\"" + text + "\": expected NAMESPACE/NAME, such as shop/web-7d4b";
}

}  // namespace

void add_monitor(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand(
      "monitor", "follow the verdicts on new connections, and the drops, until interrupted; on the agent's node only");
  add_agent_options(*command, session);
  const auto options = std::make_shared<MonitorOptions>();
  command->add_option("--pod", options->pod, "only of this pod: NAMESPACE/NAME")->check(check_pod);
  command->add_flag("--drops", options->drops, "only what is dropped");
  command->add_option("--count", options->count, "end after so many events")->check(CLI::Range(1L, 1'000'000'000L));
  command->callback(
      [&session, options] { session.action = [&session, options] { return Monitor(session, *options).run(); }; });
  command->footer(
      "With -o json each line is an object. Exit codes: 0 also when interrupted; 3 also when the agent goes.");
}

}  // namespace weft::cli
