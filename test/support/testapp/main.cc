// SPDX-License-Identifier: Apache-2.0
/// weft-testapp: a plain TCP server and client, and a client of DNS, for the demo and the tests. It knows nothing of
/// the mesh.

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

struct DialArguments {
  std::string to, from, ip_options_hex;
  std::uint32_t mark = 0;
  bool transparent = false;
  double connect_timeout_s = 5, answer_timeout_s = 5;

  void add_to(CLI::App& app) {
    app.add_option("to", to, "ADDRESS:PORT, IPv6 in brackets")->required();
    app.add_option("--from", from, "source ADDRESS, or ADDRESS:PORT");
    app.add_option("--mark", mark, "SO_MARK of the socket");
    app.add_option("--ip-options", ip_options_hex, "raw IP options, in hexadecimal");
    app.add_flag("--transparent", transparent, "IP_TRANSPARENT: --from may be foreign");
    app.add_option("--connect-timeout", connect_timeout_s, "seconds")->capture_default_str();
    app.add_option("--timeout", answer_timeout_s, "seconds, for each later read and write")->capture_default_str();
  }

  [[nodiscard]] Result<DialOptions> parse() const {
    DialOptions options;
    auto target = Endpoint::parse(to);
    if (!target) return Failure(target.error());
    options.to = *target;
    if (!from.empty()) {
      if (const auto address = IpAddress::parse(from)) {
        options.from = Endpoint{*address, 0};
      } else {
        auto endpoint = Endpoint::parse(from);
        if (!endpoint) return Failure(endpoint.error());
        options.from = *endpoint;
      }
    }
    if (ip_options_hex.size() % 2 != 0 ||
        ip_options_hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      return fail(ErrorCode::kInvalid, "--ip-options \"" + ip_options_hex + "\": expected pairs of hexadecimal digits");
    }
    for (std::size_t i = 0; i < ip_options_hex.size(); i += 2) {
      options.ip_options.push_back(static_cast<char>(std::stoi(ip_options_hex.substr(i, 2), nullptr, 16)));
    }
    options.mark = mark;
    options.transparent = transparent;
    options.connect_timeout = std::chrono::milliseconds(static_cast<int>(connect_timeout_s * 1000));
    options.answer_timeout = std::chrono::milliseconds(static_cast<int>(answer_timeout_s * 1000));
    return options;
  }
};

Exit usage(const std::string& text) {
  std::fprintf(stderr, "weft-testapp: %s\n", text.c_str());
  return Exit::kUsage;
}

/// Makes dial options of the arguments and goes on with them, or says what is wrong with them.
template <class Run>
Exit with_dial(const DialArguments& arguments, Run run) {
  const auto options = arguments.parse();
  return options ? run(*options) : usage(options.error().message());
}

std::chrono::milliseconds to_ms(double seconds) { return std::chrono::milliseconds(static_cast<int>(seconds * 1000)); }

struct ServeCommand {
  ServeOptions options;
  std::string address;
  CLI::App* app;

  explicit ServeCommand(CLI::App& parent)
      : app(parent.add_subcommand("serve", "answer GET, HOLD and BULK requests until killed")) {
    app->add_option("--port", options.port)->capture_default_str();
    app->add_option("--name", options.name, "what answers call this server")->capture_default_str();
    app->add_option("--address", address, "listen on this address alone");
    app->add_option("--backlog", options.backlog)->capture_default_str();
  }
  Exit run() {
    if (!address.empty()) {
      const auto parsed = IpAddress::parse(address);
      if (!parsed) return usage(parsed.error().message());
      options.address = *parsed;
    }
    return serve(options);
  }
};

struct GetCommand {
  DialArguments dial;
  GetOptions options;
  double interval_s = 0;
  CLI::App* app;

  explicit GetCommand(CLI::App& parent) : app(parent.add_subcommand("get", "send requests and print the answers")) {
    dial.add_to(*app);
    app->add_option("--marker", options.marker, "the path of the request")->capture_default_str();
    app->add_option("--header", options.headers, "\"name: value\"; any number of them");
    app->add_option("--count", options.count, "requests")->capture_default_str();
    app->add_option("--every", options.every, "of so many answers one is printed")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app->add_flag("--keep-alive", options.keep_alive, "all requests on one connection");
    app->add_option("--interval", interval_s, "seconds between an answer and the next request");
    app->add_option("--read-rate", options.read_rate, "bytes a second that are read of an answer; 0: all");
    app->add_flag("--to-end", options.to_end, "read each connection to its end, which must be a plain one")
        ->excludes("--keep-alive");
  }
  Exit run() {
    return with_dial(dial, [this](const DialOptions& parsed) {
      options.dial = parsed;
      options.interval = to_ms(interval_s);
      return get(options);
    });
  }
};

struct HoldCommand {
  DialArguments dial;
  double interval_s = 0.1, duration_s = 0;
  CLI::App* app;

  explicit HoldCommand(CLI::App& parent)
      : app(parent.add_subcommand("hold", "keep one connection with a heartbeat and print how it ended")) {
    dial.add_to(*app);
    app->add_option("--interval", interval_s, "seconds between heartbeats")->capture_default_str();
    app->add_option("--for", duration_s, "seconds to hold; 0: until cut")->capture_default_str();
  }
  Exit run() {
    return with_dial(dial, [this](const DialOptions& parsed) {
      HoldOptions options{.dial = parsed, .interval = to_ms(interval_s), .duration = {}};
      if (duration_s > 0) options.duration = to_ms(duration_s);
      return hold(options);
    });
  }
};

struct BulkCommand {
  DialArguments dial;
  BulkPlan plan;
  CLI::App* app;

  explicit BulkCommand(CLI::App& parent)
      : app(parent.add_subcommand("bulk", "send and receive at once, byte-exact, with half-close")) {
    dial.add_to(*app);
    app->add_option("--send", plan.send, "bytes to the server")->capture_default_str();
    app->add_option("--receive", plan.receive, "bytes from the server")->capture_default_str();
    app->add_option("--seed", plan.seed)->capture_default_str();
    app->add_option("--read-rate", plan.client_rate, "bytes a second that this side reads; 0: all");
    app->add_option("--server-read-rate", plan.server_rate, "the same for the server");
  }
  Exit run() {
    return with_dial(dial, [this](const DialOptions& parsed) { return bulk({.dial = parsed, .plan = plan}); });
  }
};

struct SinkCommand {
  std::uint16_t port = 8080;
  CLI::App* app;

  explicit SinkCommand(CLI::App& parent)
      : app(parent.add_subcommand("sink", "take any number of connections and throw away what comes")) {
    app->add_option("--port", port)->capture_default_str();
  }
  Exit run() const { return sink(port); }
};

struct HogCommand {
  DialArguments dial;
  int connections = 1000;
  CLI::App* app;

  explicit HogCommand(CLI::App& parent)
      : app(parent.add_subcommand("hog", "open connections and send on all of them as fast as possible")) {
    dial.add_to(*app);
    app->add_option("--connections", connections)->capture_default_str();
  }
  Exit run() {
    return with_dial(dial,
                     [this](const DialOptions& parsed) { return hog({.to = parsed.to, .connections = connections}); });
  }
};

struct EchoCommand {
  std::uint16_t port = 8080;
  CLI::App* app;

  explicit EchoCommand(CLI::App& parent)
      : app(parent.add_subcommand("echo", "give back what comes on any number of connections")) {
    app->add_option("--port", port)->capture_default_str();
  }
  Exit run() const { return echo(port); }
};

struct CrowdCommand {
  DialArguments dial;
  int connections = 1000, opening = 256;
  CLI::App* app;

  explicit CrowdCommand(CLI::App& parent)
      : app(parent.add_subcommand("crowd", "open connections to an echo server and hold them")) {
    dial.add_to(*app);
    app->add_option("--connections", connections)->capture_default_str();
    app->add_option("--opening", opening, "attempts that are under way at once")->capture_default_str();
  }
  Exit run() {
    return with_dial(dial, [this](const DialOptions& parsed) {
      return crowd({.to = parsed.to, .connections = connections, .opening = opening});
    });
  }
};

struct DnsCommand {
  std::string to;
  DnsOptions options;
  double duration_s = 1, timeout_s = 5;
  CLI::App* app;

  explicit DnsCommand(CLI::App& parent)
      : app(parent.add_subcommand("dns", "ask for names by UDP at an even rate and measure the answers")) {
    app->add_option("to", to, "ADDRESS:PORT, IPv6 in brackets")->required();
    app->add_option("--name", options.names, "one or more, in turn")->required();
    app->add_option("--rate", options.rate, "questions a second")->check(CLI::PositiveNumber)->capture_default_str();
    app->add_option("--for", duration_s, "seconds")->capture_default_str();
    app->add_option("--timeout", timeout_s, "seconds that the last answers may take")->capture_default_str();
    app->add_option("--sockets", options.sockets)->check(CLI::PositiveNumber)->capture_default_str();
  }
  Exit run() {
    const auto parsed = Endpoint::parse(to);
    if (!parsed) return usage(parsed.error().message());
    options.to = *parsed;
    options.duration = to_ms(duration_s);
    options.timeout = to_ms(timeout_s);
    return dns(options);
  }
};

Exit run(int argc, char** argv) {
  CLI::App app{"A plain TCP server and client for the demo and the tests.", "weft-testapp"};
  app.require_subcommand(1);
  ServeCommand serve_command(app);
  GetCommand get_command(app);
  HoldCommand hold_command(app);
  BulkCommand bulk_command(app);
  SinkCommand sink_command(app);
  HogCommand hog_command(app);
  EchoCommand echo_command(app);
  CrowdCommand crowd_command(app);
  DnsCommand dns_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    app.exit(help);
    return Exit::kOk;
  } catch (const CLI::ParseError& error) {
    return usage(error.what());
  }
  if (serve_command.app->parsed()) return serve_command.run();
  if (get_command.app->parsed()) return get_command.run();
  if (hold_command.app->parsed()) return hold_command.run();
  if (sink_command.app->parsed()) return sink_command.run();
  if (hog_command.app->parsed()) return hog_command.run();
  if (echo_command.app->parsed()) return echo_command.run();
  if (crowd_command.app->parsed()) return crowd_command.run();
  if (dns_command.app->parsed()) return dns_command.run();
  return bulk_command.run();
}

}  // namespace
}  // namespace weft::testapp

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return static_cast<int>(weft::testapp::run(argc, argv));
}
