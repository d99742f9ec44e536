// SPDX-License-Identifier: Apache-2.0
#include "agent/resource_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <functional>
#include <vector>

#include "tunnel/base/fd.h"

namespace weft::agent {
namespace {

using proxy::MemoryPressure;

constexpr std::uint64_t kMib = 1U << 20;

bool eventually(const std::function<bool()>& holds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

TEST(LimitSizes, DescriptorsAreWhatTheAgentDoesNotNeed) {
  const ResourceConfig config{.workers = 2, .max_pods = 512};
  EXPECT_EQ(descriptors_for_pods(config, 20'000), 20'000U - 256 - 512 * 12);
  EXPECT_EQ(descriptors_for_pods(config, 1'048'576), 1'048'576U - 256 - 512 * 12);
  EXPECT_EQ(descriptors_for_pods(config, 1'024), 512U) << "never less than half";
}

TEST(LimitSizes, ConnectionsFollowDescriptorsAndMemoryUnlessTold) {
  ResourceConfig config{.workers = 2, .max_pods = 10};
  const std::size_t descriptors = descriptors_for_pods(config, 20'000);
  EXPECT_EQ(limit_sizes(config, 20'000, 0).connections, SIZE_MAX) << "descriptors are what limits them";
  EXPECT_EQ(limit_sizes(config, 20'000, 0).connections_per_pod, SIZE_MAX);
  EXPECT_EQ(limit_sizes(config, 20'000, 128 * kMib).connections, 4096U);
  config.max_connections = 99'000;
  config.max_connections_per_pod = 7;
  const auto told = limit_sizes(config, 20'000, 128 * kMib);
  EXPECT_EQ(told.connections, 99'000U);
  EXPECT_EQ(told.connections_per_pod, 7U);
  EXPECT_EQ(told.descriptors, descriptors);
}

TEST(MemoryPressureTest, ComesAndGoesWithADistance) {
  const auto next = [](MemoryPressure now, std::uint64_t percent) {
    return next_pressure(now, {.used = percent * kMib, .limit = 100 * kMib});
  };
  EXPECT_EQ(next(MemoryPressure::kNone, 84), MemoryPressure::kNone);
  EXPECT_EQ(next(MemoryPressure::kNone, 85), MemoryPressure::kHigh);
  EXPECT_EQ(next(MemoryPressure::kHigh, 80), MemoryPressure::kHigh);
  EXPECT_EQ(next(MemoryPressure::kHigh, 79), MemoryPressure::kNone);
  EXPECT_EQ(next(MemoryPressure::kHigh, 93), MemoryPressure::kCritical);
  EXPECT_EQ(next(MemoryPressure::kNone, 200), MemoryPressure::kCritical);
  EXPECT_EQ(next(MemoryPressure::kCritical, 90), MemoryPressure::kCritical);
  EXPECT_EQ(next(MemoryPressure::kCritical, 89), MemoryPressure::kHigh);
  EXPECT_EQ(next(MemoryPressure::kCritical, 50), MemoryPressure::kNone);
  EXPECT_EQ(next_pressure(MemoryPressure::kCritical, {.used = kMib, .limit = 0}), MemoryPressure::kNone);
}

TEST(Budgets, ShrinkWithTheMemoryAndNeverGrow) {
  proxy::WorkerConfig worker;
  const auto before = worker;
  fit_budgets(worker, 2, 0);
  EXPECT_EQ(worker.kept_budget_bytes, before.kept_budget_bytes);
  fit_budgets(worker, 2, 64ULL << 30U);
  EXPECT_EQ(worker.kept_budget_bytes, before.kept_budget_bytes);
  EXPECT_EQ(worker.window_budget_bytes, before.window_budget_bytes);
  fit_budgets(worker, 2, 128 * kMib);
  EXPECT_EQ(worker.kept_budget_bytes, 16 * kMib);
  EXPECT_EQ(worker.window_budget_bytes, 8 * kMib);
}

TEST(OpenFds, AreCounted) {
  const std::size_t before = open_fds();
  EXPECT_GT(before, 2U);
  std::vector<Fd> more;
  for (int i = 0; i < 10; ++i) more.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(open_fds(), before + 10);
}

TEST(ResourceWatchTest, FollowsALimitThatChangesAndTellsOfPressure) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  auto limits = std::make_shared<proxy::Limits>();
  const ResourceConfig config{.memory_limit = kMib, .workers = 1, .max_pods = 1};  // less than any process has
  const ResourceWatch watch(config, limits);
  EXPECT_EQ(limits->memory_pressure(), MemoryPressure::kCritical) << "known before the first connection";
  EXPECT_EQ(watch.status().fd_limit, before.rlim_cur);
  EXPECT_EQ(watch.status().memory.limit, kMib);
  rlimit less = before;
  less.rlim_cur = 600;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &less), 0);
  EXPECT_TRUE(eventually([&] { return limits->sizes().descriptors == descriptors_for_pods(config, 600); }));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(eventually([&] { return limits->sizes().descriptors == descriptors_for_pods(config, before.rlim_cur); }));
}

}  // namespace
}  // namespace weft::agent
