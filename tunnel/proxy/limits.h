// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tunnel/proxy/worker.h"

namespace weft::proxy {

/// Why something new of a pod is refused for want of room; kNone: it is not.
enum class Shed : std::uint8_t { kNone, kPodLimit, kFairShare, kDescriptors, kMemory, kHandshakes };
inline constexpr std::size_t kShedReasons = static_cast<std::size_t>(Shed::kHandshakes) + 1;
/// As the label `reason` spells it: "pod_limit", "fair_share", "descriptors", "memory", "handshakes".
[[nodiscard]] const char* to_string(Shed reason);

/// How near the agent is to the limit of its memory.
enum class MemoryPressure : std::uint8_t {
  kNone,
  kHigh,      ///< pods that have more than the average get nothing new
  kCritical,  ///< nobody does
};

/// What there is for all pods together, and for each.
struct LimitSizes {
  std::size_t connections = SIZE_MAX;  ///< tunnels count as one each
  std::size_t connections_per_pod = SIZE_MAX;
  std::size_t descriptors = SIZE_MAX;  ///< of sockets that are somebody's
};

/// True where somebody who has `own` of a stock of `all`, of which `used` are taken, may take `wanted` more: he may not
/// have more than is left to everybody. So one alone gets half of the stock, N who take all they can get an N+1st each,
/// and as much is left for those who come later. Pure.
[[nodiscard]] constexpr bool within_fair_share(std::size_t own, std::size_t wanted, std::size_t used, std::size_t all) {
  return used < all && own + wanted <= all - used;
}

class Limits;

/// What one pod has at all workers. Lives as long as anything that is charged to it. Thread-safe.
class PodUse {
 public:
  PodUse(std::string namespace_name, std::string name)
      : namespace_name_(std::move(namespace_name)), name_(std::move(name)) {}

  [[nodiscard]] const std::string& namespace_name() const { return namespace_name_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::size_t connections() const { return connections_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t descriptors() const { return descriptors_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t shed(Shed reason) const {
    return shed_[static_cast<std::size_t>(reason)].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t delayed_handshakes() const { return delayed_.load(std::memory_order_relaxed); }
  void count_delayed_handshake() { delayed_.fetch_add(1, std::memory_order_relaxed); }
  void count_shed(Shed reason) { shed_[static_cast<std::size_t>(reason)].fetch_add(1, std::memory_order_relaxed); }

 private:
  friend class Limits;
  friend class Charge;
  std::string namespace_name_, name_;
  std::atomic<std::size_t> connections_ = 0, descriptors_ = 0;
  std::array<std::atomic<std::uint64_t>, kShedReasons> shed_{};
  std::atomic<std::uint64_t> delayed_ = 0;
};

/// One connection or tunnel with its descriptors in the books of its pod, as long as this lives. Move-only. The Limits
/// outlive it.
class Charge {
 public:
  Charge() = default;
  Charge(Charge&& other) noexcept;
  Charge& operator=(Charge&& other) noexcept;
  ~Charge() { give_back(); }

  /// It needs so many descriptors now, whether there is room for them or not.
  void resize(std::uint32_t descriptors);

 private:
  friend class Limits;
  Charge(Limits& limits, std::shared_ptr<PodUse> use, std::uint32_t descriptors)
      : limits_(&limits), use_(std::move(use)), descriptors_(descriptors) {}
  void give_back();

  Limits* limits_ = nullptr;
  std::shared_ptr<PodUse> use_;
  std::uint32_t descriptors_ = 0;
};

/// Either a charge, or the reason why there is none.
struct Admission {
  Charge charge;
  Shed refused = Shed::kNone;
};

/// Says whether a pod may have one connection more, so that no pod takes what others need and the agent never runs out
/// of descriptors or memory. One for all workers; a connection costs some relaxed atomic operations. Two workers that
/// admit at the same moment may go over a limit by one. Thread-safe.
class Limits {
 public:
  explicit Limits(const LimitSizes& sizes = {}) { set_sizes(sizes); }
  Limits(const Limits&) = delete;
  Limits& operator=(const Limits&) = delete;

  /// What the pod has; the same object for every worker that asks with the same context.
  [[nodiscard]] std::shared_ptr<PodUse> use_of(const std::shared_ptr<const PodContext>& pod);

  /// Charges one connection or tunnel that will need so many descriptors. A refusal is counted.
  [[nodiscard]] Admission admit(const std::shared_ptr<PodUse>& use, std::uint32_t descriptors);

  /// The refusal in words, for the access log.
  [[nodiscard]] std::string why(Shed reason, const PodUse& use) const;

  void set_sizes(const LimitSizes& sizes);
  void set_memory_pressure(MemoryPressure pressure) { pressure_.store(pressure, std::memory_order_relaxed); }

  /// A listener had to stop for want of descriptors or memory.
  void count_accept_pause() { accept_pauses_.fetch_add(1, std::memory_order_relaxed); }

  [[nodiscard]] LimitSizes sizes() const;
  [[nodiscard]] MemoryPressure memory_pressure() const { return pressure_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t connections() const { return connections_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t descriptors() const { return descriptors_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t accept_pauses() const { return accept_pauses_.load(std::memory_order_relaxed); }
  /// Those pods that have listeners or live connections.
  [[nodiscard]] std::vector<std::shared_ptr<const PodUse>> pods() const;

 private:
  friend class Charge;
  [[nodiscard]] Shed judge(const PodUse& use, std::uint32_t descriptors) const;
  void release(PodUse& use, std::uint32_t descriptors);

  std::atomic<std::size_t> max_connections_, max_per_pod_, max_descriptors_;
  std::atomic<MemoryPressure> pressure_ = MemoryPressure::kNone;
  std::atomic<std::size_t> connections_ = 0, descriptors_ = 0;
  std::atomic<std::size_t> pods_with_connections_ = 0;
  std::atomic<std::uint64_t> accept_pauses_ = 0;
  struct Known {
    std::weak_ptr<const PodContext> pod;  ///< by which it is found
    std::weak_ptr<PodUse> use;
  };
  mutable std::mutex mutex_;
  std::vector<Known> known_;  ///< under mutex
};

}  // namespace weft::proxy
