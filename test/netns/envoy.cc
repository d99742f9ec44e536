// SPDX-License-Identifier: Apache-2.0
#include "test/netns/envoy.h"

#include <unistd.h>

#include <cstdlib>

namespace weft::test {
namespace {

constexpr milliseconds kReady{20'000};
constexpr const char* kAdmin = "127.0.0.1:19000";

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  if (text.find(from) == std::string::npos) throw TestError("Envoy's configuration has no " + from);
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

}  // namespace

std::string Envoy::executable() {
  const char* named = std::getenv("WEFT_ENVOY");
  const std::string path = named != nullptr ? named : "/var/cache/weft/envoy-1.40.0/envoy";
  return ::access(path.c_str(), X_OK) == 0 ? path : "";
}

Envoy::Envoy(const Mesh& mesh, const Pod& pod, std::string configuration,
             const std::vector<std::pair<std::string, std::string>>& values)
    : pod_(&pod) {
  const std::string certificate = mesh.folder().path() + "/envoy-" + pod.name();
  must_run({program("weftctl"), "ca", "issue", mesh.ca_dir(), "--identity", pod.identity(), "--out", certificate});
  for (const auto& [from, to] : values) replace_all(configuration, from, to);
  if (configuration.find("/etc/waypoint") != std::string::npos) {
    replace_all(configuration, "/etc/waypoint", certificate);
  }
  file_ = mesh.folder().write("envoy-" + pod.name() + ".yaml", configuration);
  start();
}

Envoy::Envoy(const Pod& pod, std::string file, std::vector<std::string> launcher)
    : pod_(&pod), launcher_(std::move(launcher)), file_(std::move(file)) {
  start();
}

void Envoy::start() {
  kill();
  std::vector<std::string> command = launcher_;
  for (const std::string& part : {executable(), std::string("-c"), file_, std::string("--disable-hot-restart"),
                                  std::string("--concurrency"), std::string("1"), std::string("--log-level"),
                                  std::string("warning"), std::string("--file-flush-interval-msec"), std::string("50")})
    command.push_back(part);
  process_ = std::make_unique<Process>(pod_->start(command));
  const Endpoint admin = *Endpoint::parse(kAdmin);
  const auto ready = [&] { return !process_->running() || http_get(pod_->netns(), admin, "/ready").has_value(); };
  if (!eventually(kReady, ready) || !process_->running()) throw TestError("Envoy does not serve: " + trouble());
}

void Envoy::kill() {
  if (!process_) return;
  process_->kill();
  ended_log_ += process_->out();
  ended_trouble_ += process_->err();
  process_.reset();
}

std::string Envoy::log() const { return ended_log_ + (process_ ? process_->out() : ""); }
std::string Envoy::trouble() const { return ended_trouble_ + (process_ ? process_->err() : ""); }

std::string example(const std::string& name) { return read_file(WEFT_SOURCES "/manifests/examples/" + name); }

}  // namespace weft::test
