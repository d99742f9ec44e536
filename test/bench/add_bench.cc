// SPDX-License-Identifier: Apache-2.0
/// What weft-cni adds to the start of a pod: ADDs of the chain ptp + host-local one after another, with and without
/// weft-cni at its end in turn, and the plugin's process alone beside /bin/true. Needs root.

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "test/support/mesh.h"

namespace weft::test {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

/// Above these the run fails: with the agent's round trip and the attaching, and the process alone.
constexpr double kAddedMs = 5.0, kProcessMs = 1.0;

double milliseconds_of(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

struct Times {
  std::vector<double> ms;
  [[nodiscard]] double quantile(double q) const {
    std::vector<double> sorted = ms;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(q * static_cast<double>(sorted.size() - 1))];
  }
};

void print(const char* what, const Times& times) {
  std::printf("%-44s p50 %7.2f ms  p90 %7.2f ms  max %7.2f ms  of %zu\n", what, times.quantile(0.5),
              times.quantile(0.9), times.quantile(1.0), times.ms.size());
}

/// From the start of a process to its end, by posix_spawn: what a runtime pays for it.
double spawn_ms(const std::string& path, const std::vector<std::string>& environment) {
  std::vector<char*> variables;
  for (const auto& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
  variables.push_back(nullptr);
  char* arguments[] = {const_cast<char*>(path.c_str()), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", 1, 0);
  const auto start = Clock::now();
  pid_t pid = 0;
  int status = 0;
  const int error = posix_spawn(&pid, path.c_str(), &actions, nullptr, arguments, variables.data());
  if (error == 0) ::waitpid(pid, &status, 0);
  const auto took = Clock::now() - start;
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0 || status != 0) throw TestError("run " + path + ": failed");
  return milliseconds_of(took);
}

class AddBench {
 public:
  explicit AddBench(int rounds) : rounds_(rounds) {
    MeshOptions options;
    options.nodes = 1;
    mesh_ = std::make_unique<Mesh>(options);
  }

  bool run() {
    Times with, without, plugin, nothing;
    for (int i = 0; i < rounds_; ++i) {
      // Which comes first changes from round to round.
      for (const bool weft : {i % 2 == 0, i % 2 != 0}) (weft ? with : without).ms.push_back(add_and_delete(weft));
      nothing.ms.push_back(spawn_ms("/bin/true", {}));
      plugin.ms.push_back(spawn_ms(program("weft-cni"), {"CNI_COMMAND=VERSION"}));
    }
    print("ADD of ptp + host-local", without);
    print("ADD of ptp + host-local + weft-cni", with);
    print("/bin/true", nothing);
    print("weft-cni, VERSION", plugin);
    const double added = with.quantile(0.5) - without.quantile(0.5);
    const double process = plugin.quantile(0.5) - nothing.quantile(0.5);
    std::printf("added by weft-cni, median: %.2f ms (at most %.1f)\n", added, kAddedMs);
    std::printf("the process alone over /bin/true, median: %.2f ms (at most %.1f)\n", process, kProcessMs);
    return added <= kAddedMs && process <= kProcessMs;
  }

 private:
  /// The time of ADD. The pod's address is the same each time, so that IPAM costs the same.
  double add_and_delete(bool weft) {
    if (pod_ == nullptr) {
      pod_ = &mesh_->plan_pod(1, "shop", "bench");
      json list = json::parse(read_file(mesh_->folder().path() + "/node1/" + pod_->container_id() + ".conflist"));
      lists_[1] = folder_.write("with.conflist", list.dump());
      list["plugins"].erase(list["plugins"].size() - 1);
      lists_[0] = folder_.write("without.conflist", list.dump());
    }
    const auto chain = [&](const char* verb) {
      return weft::test::run({program("weft-chain"), "--cache", folder_.path() + "/chain", verb, lists_[weft ? 1 : 0],
                              pod_->netns().path(), pod_->container_id(), "eth0"},
                             {.netns = &mesh_->node(1).netns(),
                              .environment = {"CNI_PATH=" + program("") + ":/usr/lib/cni:/opt/cni/bin",
                                              "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=bench"},
                              .input = {}});
    };
    const auto start = Clock::now();
    const Finished added = chain("add");
    const double took = milliseconds_of(Clock::now() - start);
    if (!added.ok()) throw TestError("ADD: " + added.out + added.err);
    if (const Finished removed = chain("del"); !removed.ok()) throw TestError("DEL: " + removed.out);
    return took;
  }

  int rounds_;
  ScratchDir folder_;
  std::unique_ptr<Mesh> mesh_;
  Pod* pod_ = nullptr;
  std::string lists_[2];
};

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) {
  if (!weft::test::is_root()) {
    std::puts("skipped: needs root: makes network namespaces");
    return 0;
  }
  try {
    return weft::test::AddBench(argc > 1 ? std::atoi(argv[1]) : 200).run() ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_add: %s\n", e.what());
    return 2;
  }
}
