// SPDX-License-Identifier: Apache-2.0
#include "test/netns/hbone_flood_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <sstream>

#include "agent/identity/self_signed.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

#ifdef WEFT_SANITIZED
constexpr std::size_t kGrowthLimit = 512U << 20;  // AddressSanitizer keeps 256 MiB of freed memory back
constexpr double kCpuPerTunnelMs = 1000;
#else
constexpr std::size_t kGrowthLimit = 64U << 20;
constexpr double kCpuPerTunnelMs = 100;
#endif
constexpr int kHonestRounds = 5;
constexpr milliseconds kLimitedWithin{10'000};
constexpr milliseconds kIdleWindow{200};
constexpr double kIdleShare = 0.05;

}  // namespace

hbone::OpenSslPtr<SSL_CTX> MeshHboneFlood::context_;
std::optional<Process> MeshHboneFlood::held_db_, MeshHboneFlood::held_web2_;

Repeated::Repeated(std::function<void()> work) : work_(std::move(work)) {
  thread_ = std::thread([this] {
    try {
      while (!stop_) {
        work_();
        ++rounds_;
      }
    } catch (const std::exception& e) {
      ADD_FAILURE() << "the attack broke off: " << e.what();
    }
  });
}

Repeated::~Repeated() {
  stop_ = true;
  thread_.join();
}

void MeshHboneFlood::SetUpTestSuite() {
  MeshTest::SetUpTestSuite();
  if (!mesh_) return;
  const auto ca = agent::SelfSignedCa::load(mesh().ca_dir());
  if (!ca) throw TestError(ca.error().message());
  const auto bundle = (*ca)->issue({"cluster.local", "shop", "peer"});
  if (!bundle) throw TestError(bundle.error().message());
  context_ = raw_context(*bundle);
  held_db_ = client->hold(db->v4());
  held_web2_ = client->hold(web2->v6());
}

void MeshHboneFlood::TearDownTestSuite() {
  held_db_.reset();
  held_web2_.reset();
  context_.reset();
  MeshTest::TearDownTestSuite();
}

void MeshHboneFlood::SetUp() {
  MeshTest::SetUp();
  if (IsSkipped() || HasFatalFailure()) return;
  before_ = use();
}

void MeshHboneFlood::TearDown() {
  if (!IsSkipped() && mesh_) {
    EXPECT_TRUE(held_db_->running()) << held_db_->out();
    EXPECT_TRUE(held_web2_->running()) << held_web2_->out();
    EXPECT_TRUE(node2().agent().running());
    expect_idle();
    const AgentUse after = use();
    EXPECT_LT(after.memory_bytes, before_.memory_bytes + kGrowthLimit);
    std::cout << "agent: " << (before_.memory_bytes >> 20) << " to " << (after.memory_bytes >> 20) << " MiB, "
              << (after.log_bytes - before_.log_bytes) << " bytes of log, " << after.cpu_seconds - before_.cpu_seconds
              << " s of CPU\n";
  }
  MeshTest::TearDown();
}

std::unique_ptr<RawPeer> MeshHboneFlood::dial(RawPeer::Options options) {
  auto peer = std::make_unique<RawPeer>(outside->netns(), db->v4(kHbone), context(), std::move(options));
  if (!peer->accepted()) throw TestError("the agent refused a good peer: " + peer->why());
  return peer;
}

AgentUse MeshHboneFlood::use() {
  constexpr int kBeforeUtime = 11;  // fields between the program's name and utime: proc(5)
  const std::string stat = read_file("/proc/" + std::to_string(node2().agent().pid()) + "/stat");
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < kBeforeUtime; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  AgentUse now;
  now.cpu_seconds = (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  now.memory_bytes = node2().agent_memory_bytes();
  now.log_bytes = node2().log().size();
  return now;
}

double MeshHboneFlood::violations(const std::string& kind) {
  return metric(node2().metrics(), "weft_hbone_violations_total", {"kind=\"" + kind + "\""});
}

void MeshHboneFlood::expect_untouched_beside() {
  for (const Pod* pod : {db, web2}) {
    const Finished answer = client->get(pod->v4());
    ASSERT_THAT(answer, IsAnswer(pod->name(), client->address_v4()));
    EXPECT_LT(std::stod(field(answer.out, "ms")), stretched(kAnswer).count()) << pod->name();
  }
}

void MeshHboneFlood::expect_limited(const std::string& kind, const std::function<void(RawPeer&)>& attack,
                                    RawPeer::Options options, std::size_t log_per_tunnel) {
  const double counted = violations(kind);
  const AgentUse before = use();
  std::size_t most = 0;
  int tunnels = 0, rounds = 0;
  {
    Repeated hostile([&] {
      const auto peer = dial(options);
      attack(*peer);
      EXPECT_TRUE(peer->over() || peer->goaway()) << "the agent goes on to serve the attack";
    });
    EXPECT_TRUE(eventually(kLimitedWithin,
                           [&] {
                             expect_untouched_beside();
                             most = std::max(most, node2().agent_memory_bytes());
                             return ++rounds >= kHonestRounds && violations(kind) > counted;
                           }))
        << "nothing was counted as " << kind;
    tunnels = hostile.rounds();
  }
  const auto limited = [&] { return static_cast<std::size_t>(violations(kind) - counted); };
  const std::vector<std::string> words{"violation=" + kind, "source=" + outside->address_v4().to_string()};
  const auto named = [&] { return log_lines(node2().log(), before.log_bytes, words).size(); };
  EXPECT_TRUE(eventually(kLimitedWithin, [&] { return named() == limited(); })) << named() << " of " << limited();
  const AgentUse after = use();
  const double each_ms = 1000 * (after.cpu_seconds - before.cpu_seconds) / std::max(tunnels, 1);
  EXPECT_LT(each_ms, kCpuPerTunnelMs);
  EXPECT_LT(most, before.memory_bytes + kGrowthLimit);
  EXPECT_LT(after.log_bytes - before.log_bytes, log_per_tunnel * static_cast<std::size_t>(tunnels + rounds));
  std::cout << kind << ": " << tunnels << " tunnels, " << limited() << " cut, " << each_ms
            << " ms of CPU each, at most " << (most >> 20) << " MiB\n";
}

void MeshHboneFlood::expect_idle() {
  AgentUse last = use();
  auto since = std::chrono::steady_clock::now();
  double share = 1;
  EXPECT_TRUE(eventually(kLimitedWithin,
                         [&] {
                           const auto now = std::chrono::steady_clock::now();
                           if (now - since < kIdleWindow) return false;
                           const AgentUse current = use();
                           share = (current.cpu_seconds - last.cpu_seconds) /
                                   std::chrono::duration<double>(now - since).count();
                           last = current;
                           since = now;
                           return share <= kIdleShare;
                         }))
      << "the agent still takes " << share << " of a CPU";
}

}  // namespace weft::test
