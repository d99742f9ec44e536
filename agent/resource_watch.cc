// SPDX-License-Identifier: Apache-2.0
#include "agent/resource_watch.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

using proxy::MemoryPressure;

/// Listeners and DNS sockets of a pod at one worker, and what else a pod costs.
constexpr std::uint64_t kListeners = 5, kPodDescriptors = 2;
/// Programs, maps, admin connections, loops.
constexpr std::uint64_t kOwnDescriptors = 256;
/// What a connection costs the agent and the kernel's sockets of it, well rounded up.
constexpr std::uint64_t kConnectionBytes = 16U << 10;
/// In percent of the memory limit: where pressure begins, and where it ends again.
constexpr std::uint64_t kHigh = 85, kHighOver = 80, kCritical = 93, kCriticalOver = 90;
/// In percent of the limit on open files.
constexpr std::uint64_t kFdsShort = 80, kFdsEnough = 70;
constexpr milliseconds kGiveBackEvery{5'000};
/// Descriptors are counted in every so many looks: some kernels list them all.
constexpr std::uint32_t kCountFdsEvery = 20;

std::uint64_t fd_limit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur;
}

const char* name_of(MemoryPressure pressure) {
  switch (pressure) {
    case MemoryPressure::kNone:
      return "none";
    case MemoryPressure::kHigh:
      return "high";
    case MemoryPressure::kCritical:
      return "critical";
  }
  return "none";
}

}  // namespace

std::size_t descriptors_for_pods(const ResourceConfig& config, std::uint64_t limit) {
  const std::uint64_t own = kOwnDescriptors + config.max_pods * (kListeners * config.workers + kPodDescriptors);
  return limit - std::min(own, limit / 2);
}

proxy::LimitSizes limit_sizes(const ResourceConfig& config, std::uint64_t limit, std::uint64_t memory) {
  proxy::LimitSizes sizes;
  sizes.descriptors = descriptors_for_pods(config, limit);
  if (memory != 0) sizes.connections = memory / 2 / kConnectionBytes;
  if (config.max_connections != 0) sizes.connections = config.max_connections;
  if (config.max_connections_per_pod != 0) sizes.connections_per_pod = config.max_connections_per_pod;
  return sizes;
}

MemoryPressure next_pressure(MemoryPressure now, const MemoryGauge::Reading& reading) {
  if (reading.limit == 0) return MemoryPressure::kNone;
  const std::uint64_t percent = reading.used * 100 / reading.limit;
  if (percent >= kCritical) return MemoryPressure::kCritical;
  if (now == MemoryPressure::kCritical && percent >= kCriticalOver) return now;
  if (percent >= kHigh) return MemoryPressure::kHigh;
  return now != MemoryPressure::kNone && percent >= kHighOver ? MemoryPressure::kHigh : MemoryPressure::kNone;
}

void fit_budgets(proxy::WorkerConfig& worker, std::uint32_t workers, std::uint64_t memory) {
  if (memory == 0) return;
  worker.kept_budget_bytes = std::min<std::size_t>(worker.kept_budget_bytes, memory / 4 / workers);
  worker.window_budget_bytes = std::min<std::size_t>(worker.window_budget_bytes, memory / 8 / workers);
}

std::uint64_t raise_fd_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return 0;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) < 0) {
    log::warn("file descriptor limit not raised soft={} hard={}", before, limit.rlim_max);
    return before;
  }
  return limit.rlim_cur;
}

std::size_t open_fds() {
  // Since Linux 6.2 the folder's size is the number of its entries.
  struct stat folder {};
  if (::stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0) return static_cast<std::size_t>(folder.st_size);
  std::error_code error;
  std::filesystem::directory_iterator entries("/proc/self/fd", error);
  if (error) return 0;
  const auto count = std::distance(begin(entries), end(entries));
  return static_cast<std::size_t>(std::max<std::ptrdiff_t>(count - 1, 0));  // without the iterator's own
}

ResourceWatch::ResourceWatch(const ResourceConfig& config, std::shared_ptr<proxy::Limits> limits)
    : config_(config), limits_(std::move(limits)), gauge_(config.memory_limit) {
  look();
  const proxy::LimitSizes sizes = limits_->sizes();
  log::info("limits connections={} descriptors={} of {} memory_mib={} cgroup={}", sizes.connections, sizes.descriptors,
            fd_limit_, memory_limit_ >> 20, log::quote(gauge_.cgroup()));
  if (config_.max_connections > sizes.descriptors) {
    log::warn("--max-connections is more than the file descriptors suffice for max_connections={} descriptors={}",
              config_.max_connections, sizes.descriptors);
  }
  thread_ = std::thread([this] { run(); });
}

ResourceWatch::~ResourceWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

ResourceStatus ResourceWatch::status() const {
  return {.fds = open_fds(), .fd_limit = fd_limit(), .memory = gauge_.read()};
}

void ResourceWatch::run() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kInterval, [this] { return stopping_; })) {
    lock.unlock();
    look();
    lock.lock();
  }
}

void ResourceWatch::look() {
  look_at_memory();
  look_at_descriptors();
  ++looks_;
}

void ResourceWatch::look_at_memory() {
  const auto reading = gauge_.read();
  const std::uint64_t files = fd_limit();
  if (reading.limit != memory_limit_ || files != fd_limit_) {
    memory_limit_ = reading.limit;
    fd_limit_ = files;
    limits_->set_sizes(limit_sizes(config_, files, reading.limit));
  }
  const MemoryPressure before = limits_->memory_pressure();
  const MemoryPressure now = next_pressure(before, reading);
  if (now != before) {
    limits_->set_memory_pressure(now);
    log::warn("memory pressure={} used_mib={} limit_mib={} connections={}", name_of(now), reading.used >> 20,
              reading.limit >> 20, limits_->connections());
  }
  if (now != MemoryPressure::kNone) give_memory_back();
}

/// malloc keeps what was freed between things that live on. Whoever allocates meanwhile waits, 3 ms where 10,000
/// connections had been, so not too often.
void ResourceWatch::give_memory_back() {
  const SteadyTime now = Clock::real().now();
  if (now - given_back_ < kGiveBackEvery) return;
  ::malloc_trim(0);
  given_back_ = Clock::real().now();
  log::debug("memory given back took_us={} used_mib={}",
             std::chrono::duration_cast<std::chrono::microseconds>(given_back_ - now).count(),
             gauge_.read().used >> 20);
}

void ResourceWatch::look_at_descriptors() {
  if (looks_ % kCountFdsEvery != 0 || fd_limit_ == 0) return;
  const std::size_t open = open_fds();
  const std::uint64_t percent = open * 100 / fd_limit_;
  if (fds_short_ ? percent >= kFdsEnough : percent < kFdsShort) return;
  fds_short_ = !fds_short_;
  if (fds_short_) {
    log::warn("file descriptors run short open={} limit={} (raise the agent's limit of open files)", open, fd_limit_);
  } else {
    log::info("file descriptors suffice again open={} limit={}", open, fd_limit_);
  }
}

}  // namespace weft::agent
