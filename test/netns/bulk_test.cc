// SPDX-License-Identifier: Apache-2.0
/// Much data through the mesh, byte-exact, and what it costs the agents in memory.
/// WEFT_BULK_BYTES sets the size of one transfer in bytes (default 32 MiB).

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr std::uint64_t kDefaultBytes = 32U << 20;
#ifdef WEFT_SANITIZED
constexpr std::size_t kMemoryLimit = 640U << 20;  // AddressSanitizer keeps 256 MiB of freed memory back
#else
constexpr std::size_t kMemoryLimit = 64U << 20;
#endif

std::uint64_t bulk_bytes() {
  const char* text = std::getenv("WEFT_BULK_BYTES");
  return text == nullptr ? kDefaultBytes : std::strtoull(text, nullptr, 10);
}

/// At least 5 MB/s, for slow machines and instrumented builds.
milliseconds deadline_for(std::uint64_t bytes) { return milliseconds(30'000 + bytes / 5'000); }

/// The first whole line of `text` from `offset` on that starts with `word`; empty where there is none.
std::string line_with(const std::string& text, std::size_t offset, const std::string& word) {
  std::istringstream lines(text.substr(offset));
  for (std::string line; std::getline(lines, line) && !lines.eof();) {
    if (line.starts_with(word)) return line;
  }
  return {};
}

class MeshBulk : public MeshTest {
 protected:
  static constexpr std::uint16_t kBulkPort = 9090;
  /// Adds a server that only this case talks to.
  void SetUp() override {
    MeshTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    server_.emplace(db->start({program("weft-testapp"), "serve", "--name", "bulk", "--port", "9090"}));
    ASSERT_TRUE(server_->wait_for_output("serving", milliseconds(10'000)));
  }
  void TearDown() override {
    server_.reset();
    MeshTest::TearDown();
  }

  /// Transfers and compares the bytes and the checksums of both ends.
  void transfer(std::uint64_t send, std::uint64_t receive, bool v6) {
    const Endpoint to = v6 ? db->v6(kBulkPort) : db->v4(kBulkPort);
    const std::size_t before = server_->out().size();
    const Finished client_end =
        client->bulk(to, {"--send", std::to_string(send), "--receive", std::to_string(receive), "--timeout", "60"},
                     deadline_for(send + receive));
    ASSERT_TRUE(client_end.ok()) << ::testing::PrintToString(client_end);
    const std::string here = line_with(client_end.out, 0, "bulk ");
    std::string there;
    ASSERT_TRUE(eventually(milliseconds(10'000),
                           [&] {
                             there = line_with(server_->out(), before, "bulk ");
                             return !there.empty();
                           }))
        << here << "\n"
        << server_->out();
    EXPECT_EQ(field(here, "verdict"), "exact") << here;
    EXPECT_EQ(field(there, "verdict"), "exact") << there;
    EXPECT_EQ(field(here, "sent"), std::to_string(send));
    EXPECT_EQ(field(there, "received"), std::to_string(send));
    EXPECT_EQ(field(there, "sent"), std::to_string(receive));
    EXPECT_EQ(field(here, "received"), std::to_string(receive));
    EXPECT_EQ(field(here, "sent_sha256"), field(there, "received_sha256"));
    EXPECT_EQ(field(here, "received_sha256"), field(there, "sent_sha256"));
    const double seconds = std::stod(field(here, "ms")) / 1000;
    std::cout << (v6 ? "IPv6" : "IPv4") << " sent " << send << " received " << receive << " bytes in " << seconds
              << " s, " << static_cast<double>(send + receive) / 1e6 / seconds << " MB/s; agents' memory "
              << (node1().agent_memory_bytes() >> 20) << " and " << (node2().agent_memory_bytes() >> 20) << " MiB\n";
    EXPECT_LT(node1().agent_memory_bytes(), kMemoryLimit);
    EXPECT_LT(node2().agent_memory_bytes(), kMemoryLimit);
  }

  /// Watches the agents' memory while one end reads slowly what the other would send at once.
  void expect_bounded(const std::vector<std::string>& arguments);

  std::optional<Process> server_;
};

TEST_F(MeshBulk, ToTheServerIsExact) { transfer(bulk_bytes(), 1000, false); }
TEST_F(MeshBulk, ToTheClientIsExact) { transfer(1000, bulk_bytes(), true); }
TEST_F(MeshBulk, InBothDirectionsAtOnceIsExact) {
  transfer(bulk_bytes(), bulk_bytes(), false);
  transfer(bulk_bytes(), bulk_bytes(), true);
}

// The end of one direction while the other still carries data, whichever closes first.
TEST_F(MeshBulk, HalfCloseLeavesTheOtherDirectionOpen) {
  for (const bool v6 : {false, true}) {
    transfer(0, bulk_bytes() / 4, v6);
    transfer(bulk_bytes() / 4, 0, v6);
    transfer(1, 0, v6);
    transfer(0, 1, v6);
    transfer(0, 0, v6);
  }
}

void MeshBulk::expect_bounded(const std::vector<std::string>& arguments) {
  constexpr std::size_t kMinimumSamples = 100;
  constexpr std::size_t kRate = 4U << 20, kOffered = 256U << 20;
  std::vector<std::string> command{program("weft-testapp"), "bulk", db->v4(kBulkPort).to_string(), "--timeout", "60"};
  for (const auto& argument : arguments) command.push_back(argument);
  Process slow = client->start(command);
  std::size_t most = 0, samples = 0;
  // Long enough for an agent without backpressure to take in all of it.
  const auto until = std::chrono::steady_clock::now() + milliseconds(4000);
  while (std::chrono::steady_clock::now() < until && slow.running()) {
    most = std::max({most, node1().agent_memory_bytes(), node2().agent_memory_bytes()});
    ++samples;
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_TRUE(slow.running()) << "the reader was not slow: " << slow.out();
  EXPECT_GE(samples, kMinimumSamples);
  EXPECT_LT(most, kMemoryLimit);
  std::cout << "offered " << kOffered << " bytes to a reader of " << kRate << " bytes/s: at most " << (most >> 20)
            << " MiB in an agent\n";
  slow.kill();
  EXPECT_TRUE(client->get(db->v4()).ok());
}

TEST_F(MeshBulk, ASlowServerDoesNotFillTheAgents) {
  expect_bounded({"--send", "268435456", "--receive", "0", "--server-read-rate", "4194304"});
}

TEST_F(MeshBulk, ASlowClientDoesNotFillTheAgents) {
  expect_bounded({"--send", "0", "--receive", "268435456", "--read-rate", "4194304"});
}

}  // namespace
}  // namespace weft::test
