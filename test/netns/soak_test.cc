// SPDX-License-Identifier: Apache-2.0
/// Everything at once: small requests, new connections, bulk, policies that change, certificates that are renewed, pods
/// that come and go, handovers. WEFT_SOAK_SECONDS sets how long (default 20, of which a handover takes place after each
/// quarter); twenty minutes by hand for a release, with each sanitizer too.

#include <algorithm>
#include <set>

#include "test/netns/steady_load.h"

namespace weft::test {
namespace {

using nlohmann::json;
using Time = std::chrono::steady_clock::time_point;

constexpr int kPhases = 4, kKept = 10;
/// A steady load leaves room for what changes.
constexpr double kPauseS = 0.02;
constexpr const char* kBytesPerSecond = "2000000";
constexpr milliseconds kTransferTime{120'000}, kSoon{20'000};
constexpr std::chrono::seconds kSettled{20};

/// Transfers without end, one after the other; all of them byte-exact.
class Transfers {
 public:
  Transfers(const Pod& from, const Endpoint& to) : from_(from), to_(to) { begin(); }
  /// Looks after the one that runs.
  void look() {
    if (current_->running()) {
      ASSERT_LT(std::chrono::steady_clock::now() - begun_, kTransferTime) << to_.to_string() << " hangs";
      return;
    }
    const Finished ended = current_->finish(kSoon);
    ASSERT_TRUE(ended.ok()) << to_.to_string() << ": " << ended.out << ended.err;
    ASSERT_EQ(field(ended.out, "verdict"), "exact") << ended.out;
    ++done_;
    begin();
  }
  [[nodiscard]] std::size_t done() const { return done_; }

 private:
  static constexpr const char* kBytes = "8000000";
  void begin() {
    current_ = from_.start({program("weft-testapp"), "bulk", to_.to_string(), "--send", kBytes, "--receive", kBytes,
                            "--timeout", "60", "--connect-timeout", "30", "--read-rate", kBytesPerSecond,
                            "--server-read-rate", kBytesPerSecond});
    begun_ = std::chrono::steady_clock::now();
  }
  const Pod& from_;
  Endpoint to_;
  std::optional<Process> current_;
  Time begun_;
  std::size_t done_ = 0;
};

class Soak : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    MeshOptions options;
    // Renewed at half of it: every minute.
    options.agent_arguments = {"--certificate-lifetime", "2m"};
    mesh_ = std::make_unique<Mesh>(options);
    for (int index : {1, 2}) log_less(index);
    client_ = add_serving_pod(*mesh_, 1, "shop", "client", true);
    stranger_ = add_serving_pod(*mesh_, 1, "shop", "stranger", true);
    web1_ = add_serving_pod(*mesh_, 1, "shop", "web1", true);
    web2_ = add_serving_pod(*mesh_, 2, "shop", "web2", true);
  }
  void TearDown() override {
    if (!HasFailure() || !mesh_) return;
    for (int index : {1, 2})
      std::fprintf(stderr, "---- the agents of node %d:\n%s\n", index, mesh_->node(index).log().c_str());
  }

  /// A record of each connection would be gigabytes.
  void log_less(int index) {
    must_run({program("weftctl"), "log-level", "warn"},
             {.netns = &mesh_->node(index).netns(), .environment = {}, .input = {}});
  }
  void change_policies(int round) {
    const bool denied = round % 2 == 0;
    std::vector<json> policies{deny_policy("shop", "others", {{"destinationPorts", json::array({1 + round % 1000})}})};
    if (denied) policies.push_back(deny_policy("shop", "no-stranger", principal(*stranger_)));
    mesh_->set_policies(policies);
    EXPECT_EQ(stranger_->get(web2_->v4()).ok(), !denied) << "round " << round;
    ++policies_;
  }
  void change_pods(int round) {
    PodOptions options;
    options.service_account = "brief";
    // A node has 254 addresses.
    options.number = 100 + round % 100;
    Pod& brief = mesh_->add_pod(1 + round % 2, "shop", "brief", options);
    brief.serve();
    for (const Endpoint& to : {brief.v4(), brief.v6()}) {
      const IpAddress& own = to.address.is_v6() ? client_->address_v6() : client_->address_v4();
      EXPECT_THAT(client_->get(to, {"--connect-timeout", "30", "--timeout", "30"}), IsAnswer("brief", own));
    }
    EXPECT_TRUE(brief.get(web2_->v6()).ok());
    mesh_->remove_pod(brief);
    ++pods_;
  }
  void look_at_certificates() {
    for (int index : {1, 2}) {
      std::optional<std::string> list;
      // On a machine with other work an answer may not come in time.
      ASSERT_TRUE(eventually(kSoon, [&] {
        list = http_get(mesh_->node(index).netns(), *Endpoint::parse("127.0.0.1:15000"), "/certificates");
        return list.has_value();
      }));
      for (const json& one : json::parse(*list)) {
        if (const std::string serial = one.value("serial", ""); !serial.empty()) serials_.insert(serial);
      }
    }
  }
  void hand_over() {
    for (int index : {1, 2}) {
      mesh_->node(index).hand_over_agent();
      log_less(index);
    }
  }
  void look_at_memory() {
    for (int index : {1, 2}) memory_[index].push_back(mesh_->node(index).agent_memory_bytes());
    std::printf("  agents of %.1f and %.1f MiB\n", in_mib(memory_[1].back()), in_mib(memory_[2].back()));
    std::fflush(stdout);
  }
  /// No agent becomes larger than the first one was at its end, nor grows in the second half of its time where half of
  /// it is enough to have had everything once: an agent begins at 30 MiB and settles at 40 to 50 within ten seconds.
  void expect_flat_memory(std::chrono::duration<double> agent_time) const {
    for (const auto& [index, sizes] : memory_) {
      SCOPED_TRACE("node " + std::to_string(index));
      for (std::size_t i = 2; i < sizes.size(); ++i) EXPECT_LT(in_mib(sizes[i]), most_after(sizes[1])) << "look " << i;
      if (agent_time < kSettled * 2) continue;
      for (std::size_t i = 0; i < sizes.size(); i += 2) EXPECT_LT(in_mib(sizes[i + 1]), most_after(sizes[i]));
    }
  }
  static double most_after(std::size_t before) { return in_mib(before) * 1.25 + 8; }
  void expect_no_complaints() {
    for (int index : {1, 2}) {
      const std::string log = mesh_->node(index).log();
      for (const char* word : {"Z error ", "Sanitizer", "runtime error:"}) {
        EXPECT_THAT(log_lines(log, 0, {word}), ::testing::IsEmpty()) << "node " << index;
      }
    }
  }
  static double in_mib(std::size_t bytes) { return static_cast<double>(bytes) / (1U << 20); }

  std::unique_ptr<Mesh> mesh_;
  Pod *client_ = nullptr, *stranger_ = nullptr, *web1_ = nullptr, *web2_ = nullptr;
  std::size_t policies_ = 0, pods_ = 0;
  std::set<std::string> serials_;
  std::map<int, std::vector<std::size_t>> memory_;
};

TEST_F(Soak, NothingFailsAndMemoryStaysFlat) {
  const std::chrono::seconds length(from_environment("WEFT_SOAK_SECONDS", 20));
  SteadyLoad load(kKept, kPauseS);
  std::vector<Transfers> transfers;
  for (const Pod* web : {web1_, web2_}) {
    for (const Endpoint& to : {web->v4(), web->v6()}) {
      for (const bool keep_alive : {true, false}) load.request(*client_, to, keep_alive);
      for (int i = 0; i < 3; ++i) load.hold(*client_, to);
    }
  }
  transfers.emplace_back(*client_, web2_->v4());
  transfers.emplace_back(*web2_, web1_->v6());
  const auto begun = std::chrono::steady_clock::now();
  int round = 0;
  const auto go_on_until = [&](std::chrono::duration<double> end) {
    for (; std::chrono::steady_clock::now() - begun < end && !HasFailure(); ++round) {
      change_policies(round);
      change_pods(round);
      look_at_certificates();
      for (auto& one : transfers) one.look();
      load.expect_all_go_on("round " + std::to_string(round));
    }
  };
  for (int phase = 1; phase <= kPhases; ++phase) {
    if (phase > 1) hand_over();
    for (const double part : {phase - 0.5, phase + 0.0}) {
      go_on_until(length * part / kPhases);
      ASSERT_FALSE(HasFailure());
      look_at_memory();
    }
  }
  std::size_t bulk = 0;
  for (auto& one : transfers) bulk += one.done();
  std::printf(
      "  %zu requests, %zu transfers of 16 MB, %zu changes of policies, %zu pods, %zu certificates, %d handovers of "
      "each agent: none failed\n",
      load.answered(), bulk, policies_, pods_, serials_.size(), kPhases - 1);
#ifndef WEFT_SANITIZED
  expect_flat_memory(length / double{kPhases});
#endif
  load.stop();
  transfers.clear();
  for (int index : {1, 2}) {
    for (auto& agent : mesh_->node(index).retired_agents()) EXPECT_EQ(agent->wait(kSoon), 0) << agent->err();
    mesh_->node(index).stop_agent();
  }
  expect_no_complaints();
}

}  // namespace
}  // namespace weft::test
