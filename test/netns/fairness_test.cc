// SPDX-License-Identifier: Apache-2.0
/// One pod that takes all it can get, and nineteen that do not. WEFT_HOG_STREAMS sets the hog's connections (default
/// 1000), WEFT_HOG_SAMPLES the requests that are measured beside it (default 300), WEFT_HOG_RATIO how many times as
/// long they may take as beside the same hog outside the mesh (default: no bound but kBoundMs, since cores that are
/// busy with other work decide that).

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>

#include "test/netns/mesh_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

constexpr std::uint16_t kSinkPort = 9393;
constexpr int kQuietPods = 19;
/// Turns of the agent's loops without a limit on bulk work made it 300 ms and more.
constexpr double kBoundMs = 250;
/// Two workers, 64 MiB kept by each, and what is on its way when that is reached. Without the limit: 419 MiB.
#ifdef WEFT_SANITIZED
constexpr std::size_t kKeptLimit = 900U << 20;
#else
constexpr std::size_t kKeptLimit = 300U << 20;
#endif

class Fairness : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    mesh_ = std::make_unique<Mesh>();
    for (int i = 0; i < kQuietPods; ++i) quiet_.push_back(&mesh_->add_pod(1, "shop", "quiet" + std::to_string(i)));
    hog_ = &mesh_->add_pod(1, "shop", "hog");
    web_ = &mesh_->add_pod(2, "shop", "web");
    web_->serve();
    sink_ = &mesh_->add_pod(2, "shop", "sink");
    plain_hog_ = &mesh_->add_pod(1, "legacy", "plain-hog", {.enrolled = false});
    plain_sink_ = &mesh_->add_pod(2, "legacy", "plain-sink", {.enrolled = false});
    for (Pod* pod : quiet_) {
      Dialled dialled = dial_in(pod->netns(), web_->v4());
      ASSERT_TRUE(dialled.fd) << ::strerror(dialled.error);
      kept_.push_back(std::move(dialled.fd));
    }
  }

  void TearDown() override {
    if (!HasFailure() || !mesh_) return;
    std::fprintf(stderr, "---- node1's agent:\n%s---- node2's agent:\n%s", mesh_->node(1).log().c_str(),
                 mesh_->node(2).log().c_str());
  }

  static void ask(const Fd& fd) {
    send_all(fd, "GET /quiet HTTP/1.1\r\n\r\n");
    for (std::string answer; !answer.ends_with("path=/quiet\n");) answer += read_some(fd, 1);
  }
  /// The 99th percentile of requests of the quiet pods, one after the other, in milliseconds.
  static double p99(const std::vector<Fd>& kept) {
    std::vector<double> times;
    const int samples = from_environment("WEFT_HOG_SAMPLES", 300);
    for (int i = 0; i < samples; ++i) {
      const auto started = std::chrono::steady_clock::now();
      ask(kept[static_cast<std::size_t>(i) % kept.size()]);
      times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started).count());
    }
    std::ranges::sort(times);
    std::printf("  p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n", times[times.size() / 2],
                times[times.size() * 99 / 100], times.back());
    return times[times.size() * 99 / 100];
  }
  /// Measured while the hog is at it.
  double beside(const Pod& hog, const Pod& sink, int streams, const std::vector<Fd>& kept) {
    Process server = sink.start({program("weft-testapp"), "sink", "--port", std::to_string(kSinkPort)});
    if (!server.wait_for_output("serving", milliseconds(10'000))) throw TestError("the sink does not serve");
    Process greedy = hog.start(
        {program("weft-testapp"), "hog", sink.v4(kSinkPort).to_string(), "--connections", std::to_string(streams)});
    if (!greedy.wait_for_output("opened", milliseconds(60'000)))
      throw TestError("the hog did not open: " + greedy.out());
    const double result = p99(kept);
    EXPECT_TRUE(greedy.running()) << greedy.out();
    return result;
  }

  std::unique_ptr<Mesh> mesh_;
  std::vector<Pod*> quiet_;
  std::vector<Fd> kept_;
  Pod *hog_ = nullptr, *web_ = nullptr, *sink_ = nullptr, *plain_hog_ = nullptr, *plain_sink_ = nullptr;
};

TEST_F(Fairness, AHogInTheMeshCostsTheOthersLittleMoreThanOneOutside) {
  std::printf("alone\n");
  p99(kept_);
  const double allowed = std::getenv("WEFT_HOG_RATIO") != nullptr ? from_environment("WEFT_HOG_RATIO", 3) : 0;
  const int streams = from_environment("WEFT_HOG_STREAMS", 1000);
  double best = 0;
  // Interleaved, and the best of three: the machine has other work.
  for (int round = 0; round < 3; ++round) {
    std::printf("beside a hog outside the mesh\n");
    const double outside = beside(*plain_hog_, *plain_sink_, streams, kept_);
    std::printf("beside a hog in the mesh\n");
    const double inside = beside(*hog_, *sink_, streams, kept_);
    std::printf("  %.2f times\n", inside / outside);
    best = allowed > 0 ? inside / outside : inside;
    if (best <= (allowed > 0 ? allowed : kBoundMs)) return;
  }
  ADD_FAILURE() << (allowed > 0 ? "times: " : "ms: ") << best;
}

/// Small requests share a tunnel with bulk that never ends.
TEST_F(Fairness, SmallStreamsPassTheBulkOfTheirOwnPod) {
  sink_->serve();
  std::vector<Fd> own;
  Dialled dialled = dial_in(hog_->netns(), sink_->v4());
  ASSERT_TRUE(dialled.fd) << ::strerror(dialled.error);
  own.push_back(std::move(dialled.fd));
  ask(own.front());
  // The best of three: the machine has other work.
  double best = beside(*hog_, *sink_, 16, own);
  for (int round = 1; round < 3 && best >= kBoundMs; ++round) best = std::min(best, beside(*hog_, *sink_, 16, own));
  EXPECT_LT(best, kBoundMs);
}

/// Streams of 256 KiB windows each, and an application that reads nothing.
TEST_F(Fairness, WhatNobodyReadsIsNotKeptWithoutBound) {
  Process server = sink_->start({program("weft-testapp"), "sink", "--port", std::to_string(kSinkPort)});
  ASSERT_TRUE(server.wait_for_output("serving", milliseconds(10'000)));
  server.signal(SIGSTOP);
  const std::size_t before = mesh_->node(2).agent_memory_bytes();
  Process greedy =
      hog_->start({program("weft-testapp"), "hog", sink_->v4(kSinkPort).to_string(), "--connections", "2000"});
  ASSERT_TRUE(greedy.wait_for_output("opened", milliseconds(60'000)));
  // Until it has been the same for a while.
  std::size_t seen = 0, largest = 0;
  int still = 0;
  ASSERT_TRUE(eventually(milliseconds(60'000), [&] {
    const std::size_t now = mesh_->node(2).agent_memory_bytes();
    still = now <= seen + (1U << 20) && now + (1U << 20) >= seen ? still + 1 : 0;
    seen = now;
    largest = std::max(largest, now);
    return still > 100;
  }));
  std::printf("  %zu MiB, %zu MiB before\n", largest >> 20, before >> 20);
  EXPECT_LT(largest, kKeptLimit);
  EXPECT_LT(p99(kept_), kBoundMs) << "others go on";
  server.signal(SIGCONT);
  EXPECT_LT(p99(kept_), kBoundMs);
  EXPECT_TRUE(greedy.running()) << greedy.out();
}

}  // namespace
}  // namespace weft::test
