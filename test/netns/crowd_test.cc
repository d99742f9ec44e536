// SPDX-License-Identifier: Apache-2.0
/// Thousands of connections at once through two agents: what each costs, and that nothing of them stays. WEFT_CROWD
/// sets how many (default 10,000 where the limit on open files allows it, or else 1,000).

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "test/netns/crowd.h"
#include "test/netns/leftovers.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kSoon{30'000};
/// What one connection may cost each agent. With few connections the share of what is there once is larger.
constexpr std::size_t kBytesEach = 12U << 10;
constexpr int kClients = 2;
constexpr int kWarmUp = 100;
constexpr int kEchoes = 3;

int crowd_size() {
  if (const char* text = std::getenv("WEFT_CROWD")) return std::max(std::atoi(text), kClients);
  constexpr rlim_t kForTenThousand = 16'384;
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max >= kForTenThousand ? 10'000 : 1'000;
}

class CrowdTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    mesh_ = std::make_unique<Mesh>(MeshOptions{.agent_arguments = {"--max-pods", "16"}});
    for (int node : {1, 2}) before_pods_.push_back(left_on(node));
    for (int i = 0; i < kClients; ++i) {
      clients_.push_back(&mesh_->add_pod(1, "shop", "client" + std::to_string(i)));
      servers_.push_back(&mesh_->add_pod(2, "shop", "server" + std::to_string(i)));
      echoes_.push_back(start_echo(*servers_.back()));
    }
  }

  void TearDown() override {
    if (!HasFailure() || !mesh_) return;
    for (int node : {1, 2}) {
      const std::string log = mesh_->node(node).log();
      std::fprintf(stderr, "---- node%d's agent:\n%s", node,
                   log.substr(log.size() - std::min<std::size_t>(log.size(), 8000)).c_str());
    }
  }

  Node& node(int index) { return mesh_->node(index); }
  Leftovers left_on(int index) {
    return leftovers(node(index).netns(), node(index).bpf_root(),
                     mesh_->folder().path() + "/node" + std::to_string(index) + "/run", node(index).agent().pid());
  }
  Endpoint server_of(int client) {
    const Pod& server = *servers_.at(static_cast<std::size_t>(client));
    return GetParam() ? server.v6(kCrowdPort) : server.v4(kCrowdPort);
  }
  std::vector<std::unique_ptr<Crowd>> open(int connections) {
    std::vector<std::unique_ptr<Crowd>> crowds;
    for (int i = 0; i < kClients; ++i) {
      crowds.push_back(
          std::make_unique<Crowd>(*clients_.at(static_cast<std::size_t>(i)), server_of(i), connections / kClients));
    }
    for (auto& crowd : crowds) {
      const CrowdRound round = crowd->opened();
      EXPECT_EQ(round.answered, connections / kClients);
      EXPECT_TRUE(round.ended.empty()) << ::testing::PrintToString(round.ended);
      std::printf("  opened %d in %d ms\n", round.answered, round.ms);
    }
    return crowds;
  }
  static void close(std::vector<std::unique_ptr<Crowd>>& crowds, int connections) {
    for (auto& crowd : crowds) {
      EXPECT_EQ(crowd->close().ended["clean"], connections / kClients);
      EXPECT_EQ(crowd->process().wait(kSoon), 0);
    }
    crowds.clear();
  }
  std::array<double, 2> cpu() { return {cpu_seconds(node(1).agent().pid()), cpu_seconds(node(2).agent().pid())}; }
  std::array<Memory, 2> memory() { return {memory_of(node(1).agent().pid()), memory_of(node(2).agent().pid())}; }
  std::size_t connections(int index) { return nlohmann::json::parse(node(index).admin("/connections")).size(); }

  std::unique_ptr<Mesh> mesh_;
  std::vector<Pod*> clients_, servers_;
  std::vector<Process> echoes_;
  std::vector<Leftovers> before_pods_;
};

TEST_P(CrowdTest, CostsLittleEachAndLeavesNothing) {
  const int count = crowd_size();
  const std::array before{left_on(1), left_on(2)};
  auto warm_up = open(kWarmUp);
  close(warm_up, kWarmUp);
  EXPECT_TRUE(eventually(kSoon, [this] { return connections(1) + connections(2) == 0; }));
  const auto idle = memory();

  const auto cpu_before = cpu();
  auto crowds = open(count);
  const auto cpu_open = cpu();
  for (int round = 0; round < kEchoes; ++round) {
    for (auto& crowd : crowds) EXPECT_EQ(crowd->echo().answered, count / kClients);
  }
  const auto cpu_echoed = cpu();
  const auto full = memory();
  for (std::size_t i = 0; i < full.size(); ++i) {
    const std::size_t each = (full[i].rss - std::min(full[i].rss, idle[i].rss)) / static_cast<std::size_t>(count);
    std::printf("node%zu: Rss %zu KiB idle, %zu KiB with %d connections: %zu bytes each; Pss %zu, %zu KiB\n", i + 1,
                idle[i].rss >> 10, full[i].rss >> 10, count, each, idle[i].pss >> 10, full[i].pss >> 10);
    EXPECT_LE(each, kBytesEach);
    std::printf("       CPU %.1f us to open one, %.1f us an echo\n", (cpu_open[i] - cpu_before[i]) * 1e6 / count,
                (cpu_echoed[i] - cpu_open[i]) * 1e6 / count / kEchoes);
  }
  EXPECT_EQ(connections(1), static_cast<std::size_t>(count));
  EXPECT_EQ(connections(2), static_cast<std::size_t>(count));

  close(crowds, count);
  EXPECT_TRUE(eventually(kSoon, [this] { return connections(1) + connections(2) == 0; }));
  // What stays is tunnels that nobody uses, for a time.
  std::array<std::ptrdiff_t, 2> tunnels{};
  EXPECT_TRUE(eventually(kSoon, [&] {
    bool only_tunnels = true;
    tunnels = {};
    for (const Pod* pod : clients_) {
      const Sockets sockets = sockets_in(pod->netns());
      only_tunnels = only_tunnels && sockets.all == sockets.tunnels;
      tunnels[0] += sockets.tunnels;
    }
    for (const Pod* pod : servers_) {
      const Sockets sockets = sockets_in(pod->netns());
      only_tunnels = only_tunnels && sockets.all == sockets.tunnels;
      tunnels[1] += sockets.tunnels;
    }
    return only_tunnels;
  }));
  for (const std::size_t i : {0U, 1U}) {
    Leftovers now;
    EXPECT_TRUE(eventually(kSoon,
                           [&] {
                             now = left_on(static_cast<int>(i) + 1);
                             return now.descriptors <= before[i].descriptors + tunnels[i];
                           }))
        << now.descriptors << " descriptors, " << before[i].descriptors << " before, " << tunnels[i] << " tunnels";
  }
  const auto after = memory();
  std::printf("closed: node1 Rss %zu KiB, node2 Rss %zu KiB, %td and %td tunnels\n", after[0].rss >> 10,
              after[1].rss >> 10, tunnels[0], tunnels[1]);

  echoes_.clear();
  for (Pod* pod : clients_) mesh_->remove_pod(*pod);
  for (Pod* pod : servers_) mesh_->remove_pod(*pod);
  for (const int i : {1, 2}) {
    EXPECT_TRUE(eventually(kSoon, [&] { return left_on(i).same_as(before_pods_[static_cast<std::size_t>(i) - 1]); }))
        << ::testing::PrintToString(before_pods_[static_cast<std::size_t>(i) - 1]) << " became "
        << ::testing::PrintToString(left_on(i));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, CrowdTest, ::testing::Bool(),
                         [](const auto& param) { return param.param ? "IPv6" : "IPv4"; });

}  // namespace
}  // namespace weft::test
