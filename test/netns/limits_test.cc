// SPDX-License-Identifier: Apache-2.0
/// One pod takes all it can get of what its agent has: connections, descriptors, memory, handshakes. It is refused, at
/// once and by name, and its neighbours are not.

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "test/netns/crowd.h"
#include "test/netns/memory_cgroup.h"
#include "test/netns/mesh_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;

constexpr milliseconds kSoon{10'000};
constexpr int kAnswerMs = 5'000;  ///< a refusal takes milliseconds; one that is waited for takes 10 s
constexpr int kFew = 20;

class Limits : public ::testing::Test {
 protected:
  void SetUp() override { WEFT_NEEDS_ROOT(); }
  void TearDown() override {
    if (!HasFailure() || !mesh_) return;
    for (int node : {1, 2}) {
      const std::string log = mesh_->node(node).log();
      std::fprintf(stderr, "---- node%d's agent:\n%s", node,
                   log.substr(log.size() - std::min<std::size_t>(log.size(), 8'000)).c_str());
    }
  }

  void make_mesh(std::vector<std::string> arguments, const MemoryCgroup* first_agent_in = nullptr) {
    arguments.insert(arguments.end(), {"--max-pods", "16"});
    mesh_ = std::make_unique<Mesh>(MeshOptions{.start_agents = false, .agent_arguments = std::move(arguments)});
    {
      std::optional<MemoryCgroup::Inside> inside;
      if (first_agent_in != nullptr) inside.emplace(*first_agent_in);
      node1().start_agent();
    }
    node2().start_agent();
    hog_ = &mesh_->add_pod(1, "shop", "hog");
    quiet_ = &mesh_->add_pod(1, "shop", "quiet");
    // One server for each, so that it is the client's side that decides.
    server_ = &mesh_->add_pod(2, "shop", "server");
    other_ = &mesh_->add_pod(2, "shop", "other");
    for (const Pod* pod : {server_, other_}) echoes_.push_back(start_echo(*pod));
  }
  Node& node1() { return mesh_->node(1); }
  Node& node2() { return mesh_->node(2); }

  static double shed(const Node& node, const Pod& pod, const std::string& reason) {
    return metric(node.metrics(), "weft_shed_total", {"pod=\"" + pod.name() + "\"", "reason=\"" + reason + "\""});
  }
  /// For any reason.
  static double shed(const Node& node, const Pod& pod) {
    return metric(node.metrics(), "weft_shed_total", {"pod=\"" + pod.name() + "\""});
  }
  static double gauge(const Node& node, const std::string& name) { return metric(node.metrics(), name, {}); }
  /// Lines of refused connections of a pod.
  static std::vector<std::string> refusals(const Node& node, const Pod& pod, const std::string& why) {
    return log_lines(node.log(), 0, {"response_flags=UO", "src.addr=" + pod.address_v4().to_string() + ":", why});
  }
  /// A few connections of a pod are opened and answered.
  static void expect_served(const Pod& pod, const Endpoint& to) {
    Crowd crowd(pod, to, kFew);
    const CrowdRound round = crowd.opened();
    EXPECT_EQ(round.answered, kFew) << pod.name() << ": " << ::testing::PrintToString(round.ended);
    EXPECT_LT(round.longest_ms, kAnswerMs);
    EXPECT_EQ(crowd.close().ended["clean"], kFew);
  }
  static int resets(const CrowdRound& round) {
    const auto found = round.ended.find("reset");
    return found == round.ended.end() ? 0 : found->second;
  }
  /// All were answered or reset, none waited.
  static void expect_answers(const CrowdRound& round, int connections) {
    EXPECT_EQ(round.answered + resets(round), connections) << ::testing::PrintToString(round.ended);
    EXPECT_LT(round.longest_ms, kAnswerMs);
    std::printf("  %d opened, %d reset in %d ms, the longest wait %d ms\n", round.answered, resets(round), round.ms,
                round.longest_ms);
  }

  /// Every reset is in the count, which may be a moment behind.
  static void expect_counted(const CrowdRound& round, const std::function<double()>& count) {
    EXPECT_TRUE(eventually(kSoon, [&] { return count() >= resets(round); }))
        << count() << " counted of " << resets(round) << " resets";
  }

  std::unique_ptr<MemoryCgroup> cgroup_;  ///< goes when the agent in it has gone
  std::unique_ptr<Mesh> mesh_;
  Pod *hog_ = nullptr, *quiet_ = nullptr, *server_ = nullptr, *other_ = nullptr;
  std::vector<Process> echoes_;
};

TEST_F(Limits, OfConnectionsLeaveAShareToOthers) {
  make_mesh({"--max-connections", "400"});
  constexpr int kTried = 600, kHalf = 200;
  Crowd hog(*hog_, server_->v4(kCrowdPort), kTried);
  const CrowdRound round = hog.opened();
  expect_answers(round, kTried);
  // Its tunnels count too.
  EXPECT_LE(round.answered, kHalf);
  EXPECT_GE(round.answered, kHalf - 20);
  expect_counted(round, [&] { return shed(node1(), *hog_) + shed(node2(), *server_); });
  EXPECT_GE(shed(node1(), *hog_, "fair_share"), 1);
  EXPECT_GE(refusals(node1(), *hog_, "(--max-connections)").size(), 1U);
  EXPECT_LE(refusals(node1(), *hog_, "").size(), 2 * 200 + 100U) << "lines are limited";
  expect_served(*quiet_, other_->v4(kCrowdPort));
  expect_served(*quiet_, other_->v6(kCrowdPort));
  EXPECT_EQ(shed(node1(), *quiet_, "fair_share"), 0);
  EXPECT_EQ(hog.echo().answered, round.answered) << "those that it has live on";

  const auto status = nlohmann::json::parse(node1().admin("/status")).at("limits");
  EXPECT_EQ(status.at("connections").at("limit"), 400);
  EXPECT_GE(status.at("shed").get<int>(), 1);
  // What it closes it may have again.
  EXPECT_EQ(hog.close().ended["clean"], round.answered);
  EXPECT_TRUE(eventually(kSoon, [&] { return gauge(node1(), "weft_connections") < 20; }));
  expect_served(*hog_, server_->v4(kCrowdPort));
}

// Two clients, each within its own share, together are too many for the server's agent.
TEST_F(Limits, OfAServersConnectionsAreAnsweredWith503) {
  make_mesh({"--max-connections-per-pod", "150"});
  constexpr int kEach = 100;
  Crowd first(*hog_, server_->v4(kCrowdPort), kEach);
  EXPECT_EQ(first.opened().answered, kEach);
  Crowd second(*quiet_, server_->v4(kCrowdPort), kEach);
  const CrowdRound round = second.opened();
  expect_answers(round, kEach);
  EXPECT_GE(round.answered, 30);
  EXPECT_LE(round.answered, 50);
  expect_counted(round, [&] { return shed(node2(), *server_, "pod_limit"); });
  EXPECT_GE(refusals(node2(), *quiet_, "--max-connections-per-pod").size(), 1U);
  EXPECT_GE(log_lines(node1().log(), 0, {"response_flags=CONNECT", "status 503"}).size(), 1U);
  EXPECT_EQ(first.echo().answered, kEach);
  expect_served(*quiet_, other_->v4(kCrowdPort));
}

/// Sets the soft limit on open files of a process.
void set_fd_limit(pid_t pid, rlim_t limit) {
  rlimit now{};
  if (::prlimit(pid, RLIMIT_NOFILE, nullptr, &now) != 0) throw TestError("prlimit: it is not told");
  now.rlim_cur = limit;
  if (::prlimit(pid, RLIMIT_NOFILE, &now, nullptr) != 0) throw TestError("prlimit: it is not taken");
}

/// The numbers of its open descriptors.
std::vector<rlim_t> fds_of(pid_t pid) {
  std::vector<rlim_t> numbers;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd")) {
    numbers.push_back(std::stoul(entry.path().filename()));
  }
  return numbers;
}

// Attack case 19: one pod may not eat all descriptors.
TEST_F(Limits, OfDescriptorsHoldAndNothingSpins) {
  make_mesh({});
  constexpr rlim_t kFiles = 800;
  constexpr int kTried = 1500;
  const pid_t agent = node1().agent().pid();
  set_fd_limit(agent, kFiles);
  EXPECT_TRUE(eventually(kSoon, [&] {
    return gauge(node1(), "process_max_fds") == kFiles && gauge(node1(), "weft_descriptors_limit") < kFiles;
  }));
  const double stock = gauge(node1(), "weft_descriptors_limit");
  Crowd hog(*hog_, server_->v4(kCrowdPort), kTried);
  const CrowdRound round = hog.opened();
  expect_answers(round, kTried);
  EXPECT_LE(round.answered, stock / 2);
  EXPECT_GE(round.answered, stock / 4);
  EXPECT_GE(shed(node1(), *hog_, "descriptors"), 1);
  EXPECT_GE(refusals(node1(), *hog_, "file descriptors").size(), 1U);
  EXPECT_LT(fds_of(agent).size(), kFiles);
  EXPECT_EQ(gauge(node1(), "weft_accept_pauses_total"), 0) << "it never came to that";
  expect_served(*quiet_, other_->v4(kCrowdPort));

  // Somebody lowers the limit to what is open: who comes now is refused at once, and it costs no more than that.
  set_fd_limit(agent, std::ranges::max(fds_of(agent)) + 20);
  EXPECT_TRUE(eventually(kSoon, [&] { return gauge(node1(), "weft_descriptors_limit") < stock; }));
  constexpr int kLate = 50;
  Crowd late(*quiet_, other_->v4(kCrowdPort), kLate);
  const CrowdRound refused = late.opened();
  expect_answers(refused, kLate);
  EXPECT_EQ(refused.answered, 0);
  const std::string warning = "file descriptors run short";
  EXPECT_TRUE(eventually(kSoon, [&] { return node1().log().find(warning) != std::string::npos; }));
  EXPECT_TRUE(becomes_idle(agent, kSoon));
  set_fd_limit(agent, kFiles);
  EXPECT_TRUE(eventually(kSoon, [&] { return gauge(node1(), "weft_descriptors_limit") == stock; }));
  expect_served(*quiet_, other_->v4(kCrowdPort));
  EXPECT_EQ(hog.echo().answered, round.answered);
}

// An instrumented agent needs ten times as much for itself.
#ifndef WEFT_SANITIZED
TEST_F(Limits, OfMemoryShedInsteadOfBeingKilled) {
  constexpr std::uint64_t kMemory = 48U << 20;
  constexpr int kTried = 8'000;
  cgroup_ = MemoryCgroup::make(kMemory);
  if (cgroup_ == nullptr) GTEST_SKIP() << "no cgroup with a memory limit can be made here";
  make_mesh({"--max-connections", "100000"}, cgroup_.get());
  EXPECT_EQ(gauge(node1(), "weft_memory_limit_bytes"), kMemory);
  std::vector<std::unique_ptr<Crowd>> hogs;
  // Two, so that the servers' ends do not run out of descriptors.
  for (const Pod* server : {server_, other_}) {
    hogs.push_back(std::make_unique<Crowd>(*hog_, server->v4(kCrowdPort), kTried / 2));
  }
  int answered = 0;
  for (auto& hog : hogs) {
    const CrowdRound round = hog->opened();
    expect_answers(round, kTried / 2);
    answered += round.answered;
  }
  std::printf("  %.1f MiB used of %.1f with %d connections\n", gauge(node1(), "weft_memory_used_bytes") / (1U << 20),
              static_cast<double>(kMemory) / (1U << 20), answered);
  EXPECT_TRUE(node1().agent().running());
  EXPECT_GE(shed(node1(), *hog_, "memory"), 1);
  EXPECT_GE(refusals(node1(), *hog_, "too little memory").size(), 1U);
  int echoed = 0;
  for (auto& hog : hogs) echoed += hog->echo().answered;
  EXPECT_EQ(echoed, answered) << "those that it has live on";
  for (auto& hog : hogs) hog->close();
  EXPECT_TRUE(eventually(kSoon, [&] { return gauge(node1(), "weft_memory_pressure") == 0; }))
      << gauge(node1(), "weft_memory_used_bytes");
  expect_served(*quiet_, other_->v4(kCrowdPort));
  expect_served(*hog_, server_->v4(kCrowdPort));
}
#endif

// A pod that opens tunnels to very many: its handshakes have a budget, others go on.
TEST_F(Limits, OfHandshakesLetOthersThrough) {
  make_mesh({});
  constexpr int kNowhere = 700;
  // Nobody answers there, so each handshake takes as long as it may.
  node2().netns().ip("route add blackhole 10.72.0.0/16");
  node1().netns().ip("route add 10.72.0.0/16 via " + node2().address_v4().to_string());
  std::vector<nlohmann::json> workloads;
  std::vector<Endpoint> nowhere;
  for (int i = 0; i < kNowhere; ++i) {
    nowhere.push_back({*IpAddress::parse("10.72." + std::to_string(i / 250) + "." + std::to_string(1 + i % 250)), 80});
    workloads.push_back({{"uid", "weftt//Pod/far/" + std::to_string(i)},
                         {"name", "far" + std::to_string(i)},
                         {"namespace", "far"},
                         {"serviceAccount", "default"},
                         {"trustDomain", "cluster.local"},
                         {"workloadIps", {nowhere.back().address.to_string()}},
                         {"protocol", "HBONE"},
                         {"node", "node3"},
                         {"network", ""}});
  }
  mesh_->set_workloads(workloads);
  std::vector<Fd> greedy;
  for (const Endpoint& to : nowhere) greedy.push_back(dial_in(hog_->netns(), to).fd);
  EXPECT_TRUE(eventually(
      kSoon, [&] { return metric(node1().metrics(), "weft_handshakes_delayed_total", {"pod=\"hog\""}) >= 1; }));
  const std::uint32_t workers = nlohmann::json::parse(node1().admin("/status")).at("workers");
  EXPECT_LE(metric(node1().metrics(), "weft_pod_descriptors", {"pod=\"hog\""}), kNowhere + 256.0 * workers);
  expect_served(*quiet_, other_->v4(kCrowdPort));
}

}  // namespace
}  // namespace weft::test
