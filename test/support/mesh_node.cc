// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "test/support/mesh.h"

namespace weft::test {
namespace {

IpAddress address(const std::string& text) {
  const auto parsed = IpAddress::parse(text);
  if (!parsed) throw TestError(parsed.error().message());
  return *parsed;
}

std::vector<std::string> joined(std::vector<std::string> first, const std::vector<std::string>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// An instrumented agent starts and ends much slower.
constexpr milliseconds kStartDeadline{20'000};
constexpr milliseconds kStopDeadline{20'000};

bool sanitizer_spoke(const std::string& log) {
  return log.find("Sanitizer") != std::string::npos || log.find("runtime error:") != std::string::npos;
}

}  // namespace

std::string program(const std::string& name) {
  const char* folder = std::getenv("WEFT_BIN");
  return std::string(folder != nullptr ? folder : WEFT_BUILD_BIN) + "/" + name;
}

/// The body behind the headers; nothing where it is not whole.
static std::optional<std::string> whole_body(const std::string& answer, std::size_t headers) {
  std::string rest = answer.substr(headers + 4);
  const auto length = answer.find("Content-Length: ");
  if (length < headers && std::strtoull(answer.c_str() + length + 16, nullptr, 10) != rest.size()) return {};
  if (answer.find("transfer-encoding: chunked") > headers) return rest;
  std::string body;
  for (;;) {
    const auto size = std::strtoull(rest.c_str(), nullptr, 16);
    const auto begin = rest.find("\r\n");
    if (begin == std::string::npos || rest.size() < begin + 2 + size + 2) return {};
    if (size == 0) return body;
    body += rest.substr(begin + 2, size);
    rest.erase(0, begin + 2 + size + 2);
  }
}

std::optional<std::string> http_get(const Netns& netns, const Endpoint& server, const std::string& path) {
  return run_in(netns, [&]() -> std::optional<std::string> {
    const auto to = server.to_sockaddr();
    const Fd fd(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeval timeout{.tv_sec = 2, .tv_usec = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (::connect(fd.get(), to.get(), to.length) != 0) return {};
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return {};
    std::string answer;
    std::vector<char> block(64 * 1024);
    ssize_t got = 0;
    while ((got = ::recv(fd.get(), block.data(), block.size(), 0)) > 0) {
      answer.append(block.data(), static_cast<std::size_t>(got));
    }
    const auto body = answer.find("\r\n\r\n");
    if (got < 0 || body == std::string::npos || !answer.starts_with("HTTP/1.1 200")) return {};
    return whole_body(answer, body);
  });
}

Node::Node(Mesh& mesh, int index)
    : mesh_(&mesh),
      index_(index),
      netns_("n" + std::to_string(index)),
      folder_(mesh.folder().path() + "/node" + std::to_string(index)),
      bpffs_(folder_ + "/bpf") {}

IpAddress Node::address_v4() const { return address("10.70.0." + std::to_string(index_)); }
IpAddress Node::address_v6() const { return address("fd70::" + std::to_string(index_)); }

IpAddress Node::next_pod_address(bool v6, int number) const {
  std::ostringstream text;
  if (v6) {
    text << "fd71:0:0:" << index_ << "::" << std::hex << number;
  } else {
    text << "10.71." << index_ << "." << number;
  }
  return address(text.str());
}

std::vector<std::string> Node::agent_command() const {
  const MeshOptions& options = mesh_->options();
  const auto own = options.node_arguments ? options.node_arguments(*mesh_, index_) : std::vector<std::string>();
  auto command =
      joined(options.agent_launcher, {program("weft-agent"), "--node", name(), "--socket", socket(), "--bpf-root",
                                      bpf_root(), "--run-dir", run_dir(), "--log-level", "debug"});
  if (options.local) {
    command = joined(command, {"--local-config", mesh_->config_path(index_), "--ca-dir", mesh_->ca_dir()});
  }
  return joined(command, joined(own, options.agent_arguments));
}

void Node::start_agent() {
  agent_ =
      std::make_unique<Process>(Process::start(agent_command(), {.netns = &netns_, .environment = {}, .input = {}}));
  const bool ready = eventually(kStartDeadline, [this] {
    return !agent_->running() || http_get(netns_, {address("127.0.0.1"), 15021}, "/healthz/ready").has_value();
  });
  if (!ready || !agent_->running()) {
    throw TestError("weft-agent of " + name() + (ready ? " ended" : " is not ready") + ":\n" + agent_->err());
  }
}

void Node::hand_over_agent(const std::vector<std::string>& arguments) {
  auto next = std::make_unique<Process>(
      Process::start(joined(agent_command(), arguments), {.netns = &netns_, .environment = {}, .input = {}}));
  if (!next->wait_for_output("weft-agent runs", kStartDeadline)) {
    throw TestError("weft-agent of " + name() + " does not take over:\n" + next->err() + "\nthe one before it:\n" +
                    agent().err());
  }
  retired_.push_back(std::exchange(agent_, std::move(next)));
}

void Node::kill_agent() {
  agent().kill();
  ended_logs_ += agent_->err();
  agent_.reset();
}

void Node::stop_agent() {
  agent().signal(SIGTERM);
  const Finished ended = agent_->finish(kStopDeadline);
  ended_logs_ += ended.err;
  agent_.reset();
  if (!ended.ok() || sanitizer_spoke(ended.err)) {
    throw TestError("weft-agent of " + name() + " ended with " + std::to_string(ended.status) + ":\n" + ended.err);
  }
}

Process& Node::agent() {
  if (!agent_) throw TestError(name() + " has no agent now");
  return *agent_;
}

std::string Node::log() const {
  std::string all = ended_logs_;
  for (const auto& retired : retired_) all += retired->err();
  return all + (agent_ ? agent_->err() : "");
}

std::string Node::admin(const std::string& path) const {
  auto body = http_get(netns_, {address("127.0.0.1"), 15000}, path);
  if (!body) throw TestError("GET " + path + " from the agent of " + name() + ": no answer");
  return *body;
}

std::string Node::metrics() const {
  auto body = http_get(netns_, {address("127.0.0.1"), 15020}, "/metrics");
  if (!body) throw TestError("GET /metrics from the agent of " + name() + ": no answer");
  return *body;
}

std::size_t Node::agent_memory_bytes() { return agent_status("VmRSS:"); }
std::size_t Node::agent_peak_memory_bytes() { return agent_status("VmHWM:"); }

std::size_t Node::agent_status(const std::string& key) {
  std::istringstream status(read_file("/proc/" + std::to_string(agent().pid()) + "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10) * 1024;
  }
  throw TestError("the agent of " + name() + " has no " + key);
}

Pod::Pod(Node& node, std::string namespace_name, std::string name, PodOptions options, const std::string& netns_name)
    : node_(&node),
      namespace_(std::move(namespace_name)),
      name_(std::move(name)),
      options_(std::move(options)),
      netns_(netns_name) {}

std::string Pod::identity() const {
  return "spiffe://cluster.local/ns/" + namespace_ + "/sa/" + options_.service_account;
}

Process& Pod::serve(std::uint16_t port, const std::vector<std::string>& arguments) {
  servers_.push_back(std::make_unique<Process>(
      start(joined({program("weft-testapp"), "serve", "--name", name_, "--port", std::to_string(port)}, arguments))));
  if (!servers_.back()->wait_for_output("serving name=", milliseconds(10'000))) {
    throw TestError("the server of " + name_ + " does not listen: " + servers_.back()->out());
  }
  return *servers_.back();
}

Finished Pod::get(const Endpoint& to, const std::vector<std::string>& arguments) const {
  return start(joined({program("weft-testapp"), "get", to.to_string()}, arguments)).finish(milliseconds(60'000));
}

Finished Pod::bulk(const Endpoint& to, const std::vector<std::string>& arguments, milliseconds deadline) const {
  return start(joined({program("weft-testapp"), "bulk", to.to_string()}, arguments)).finish(deadline);
}

Process Pod::hold(const Endpoint& to, const std::vector<std::string>& arguments) const {
  Process process = start(joined({program("weft-testapp"), "hold", to.to_string()}, arguments));
  if (!process.wait_for_output("held ", milliseconds(10'000))) {
    throw TestError("hold from " + name_ + " to " + to.to_string() + ": " + process.out() + process.err());
  }
  return process;
}

bool is_clear_between(const Segment& segment, const Pod& a, const Pod& b) {
  const auto is = [](const IpAddress& address, const Pod& pod) {
    return address == pod.address_v4() || address == pod.address_v6();
  };
  const auto& [from, to] = std::pair{segment.source, segment.destination};
  const bool pair = (is(from.address, a) && is(to.address, b)) || (is(from.address, b) && is(to.address, a));
  return pair && from.port != 15008 && to.port != 15008;
}

Process Pod::start(const std::vector<std::string>& arguments) const {
  return Process::start(arguments, {.netns = &netns_, .environment = {}, .input = {}});
}

}  // namespace weft::test
