// SPDX-License-Identifier: Apache-2.0
#include "agent/memory_gauge.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace weft::agent {
namespace {

/// A machine with 1 GiB, made of files.
class MemoryGaugeTest : public ::testing::Test {
 protected:
  MemoryGaugeTest() {
    std::string pattern = ::testing::TempDir() + "/weft-gauge-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    write("/proc/meminfo", "MemTotal:        1048576 kB\nMemFree: 1 kB\n");
    write("/proc/self/statm", "5000 300 200 1 0 100 0\n");
    write("/proc/self/cgroup", "");
    write("/proc/self/mountinfo", "22 1 0:5 / /proc rw shared:1 - proc proc rw\n");
  }
  ~MemoryGaugeTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void group_v2(const std::string& path, const std::string& limit) const {
    write(path + "/memory.max", limit + "\n");
    write(path + "/memory.current", "90000000\n");
    write(path + "/memory.stat", "anon 1\nfile 20000000\ninactive_anon 5\ninactive_file 10000000\nactive_file 7\n");
  }
  [[nodiscard]] MemoryGauge gauge(std::uint64_t own_limit = 0) const { return MemoryGauge(own_limit, root_); }

  std::string root_;
};

TEST_F(MemoryGaugeTest, WithoutAnyCgroupThereIsNoLimitAndTheProcessIsMeasured) {
  const auto reading = gauge().read();
  EXPECT_EQ(reading.limit, 0U);
  EXPECT_EQ(reading.used, 300U * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST_F(MemoryGaugeTest, AContainerSeesItsCgroupAsTheRoot) {
  write("/proc/self/cgroup", "0::/\n");
  write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n");
  group_v2("/sys/fs/cgroup", "100000000");
  const MemoryGauge made = gauge();
  EXPECT_EQ(made.cgroup(), root_ + "/sys/fs/cgroup");
  EXPECT_EQ(made.read().limit, 100'000'000U);
  EXPECT_EQ(made.read().used, 80'000'000U) << "without the pages that the kernel throws away first";
}

TEST_F(MemoryGaugeTest, TheNearestLimitAboveCountsAndMayChange) {
  write("/proc/self/cgroup", "0::/kubepods/pod1/agent\n");
  write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup rw\n");
  group_v2("/sys/fs/cgroup/kubepods/pod1/agent", "max");
  group_v2("/sys/fs/cgroup/kubepods/pod1", "200000000");
  group_v2("/sys/fs/cgroup/kubepods", "500000000");
  const MemoryGauge made = gauge();
  EXPECT_EQ(made.cgroup(), root_ + "/sys/fs/cgroup/kubepods/pod1");
  EXPECT_EQ(made.read().limit, 200'000'000U);
  group_v2("/sys/fs/cgroup/kubepods/pod1", "300000000");
  EXPECT_EQ(made.read().limit, 300'000'000U);
  group_v2("/sys/fs/cgroup/kubepods/pod1", "max");
  EXPECT_EQ(made.read().limit, 0U);
}

TEST_F(MemoryGaugeTest, VersionOneWithAPartOfTheHierarchyMounted) {
  write("/proc/self/cgroup", "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n");
  write("/proc/self/mountinfo",
        "29 23 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        "31 23 0:27 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu,cpuacct\n"
        "32 23 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "64000000\n");
  write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "50000000\n");
  write("/sys/fs/cgroup/memory/memory.stat", "cache 1\ninactive_file 1\ntotal_inactive_file 20000000\n");
  const MemoryGauge made = gauge();
  EXPECT_EQ(made.read().limit, 64'000'000U);
  EXPECT_EQ(made.read().used, 30'000'000U);
}

TEST_F(MemoryGaugeTest, MoreThanTheMachineHasIsNoLimit) {
  write("/proc/self/cgroup", "4:memory:/a\n");
  write("/proc/self/mountinfo", "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(gauge().cgroup(), "");
  EXPECT_EQ(gauge().read().limit, 0U);
}

TEST_F(MemoryGaugeTest, ALimitOfItsOwnIsThatOfTheProcess) {
  write("/proc/self/cgroup", "0::/\n");
  write("/proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
  group_v2("/sys/fs/cgroup", "100000000");
  const MemoryGauge made = gauge(77'000'000);
  EXPECT_EQ(made.cgroup(), "");
  EXPECT_EQ(made.read().limit, 77'000'000U);
  EXPECT_EQ(made.read().used, 300U * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST(MemoryGauge, ReadsThisVeryProcess) { EXPECT_GT(MemoryGauge(1U << 30).read().used, 1'000'000U); }

}  // namespace
}  // namespace weft::agent
