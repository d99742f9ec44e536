// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/limits.h"

#include <algorithm>
#include <utility>

namespace weft::proxy {
namespace {

/// While memory is short, who has no more than this is no cause of it.
constexpr std::size_t kAlwaysFew = 16;

bool same_object(const std::weak_ptr<const PodContext>& a, const std::shared_ptr<const PodContext>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

}  // namespace

const char* to_string(Shed reason) {
  switch (reason) {
    case Shed::kNone:
      return "none";
    case Shed::kPodLimit:
      return "pod_limit";
    case Shed::kFairShare:
      return "fair_share";
    case Shed::kDescriptors:
      return "descriptors";
    case Shed::kMemory:
      return "memory";
    case Shed::kHandshakes:
      return "handshakes";
  }
  return "none";
}

Charge::Charge(Charge&& other) noexcept
    : limits_(std::exchange(other.limits_, nullptr)),
      use_(std::move(other.use_)),
      descriptors_(std::exchange(other.descriptors_, 0)) {}

Charge& Charge::operator=(Charge&& other) noexcept {
  if (this == &other) return *this;
  give_back();
  limits_ = std::exchange(other.limits_, nullptr);
  use_ = std::move(other.use_);
  descriptors_ = std::exchange(other.descriptors_, 0);
  return *this;
}

void Charge::give_back() {
  if (limits_ == nullptr) return;
  std::exchange(limits_, nullptr)->release(*use_, descriptors_);
  use_.reset();
}

void Charge::resize(std::uint32_t descriptors) {
  if (limits_ == nullptr || descriptors == descriptors_) return;
  // Less is more than there are numbers: the sum wraps around.
  const std::size_t more = std::size_t{descriptors} - std::exchange(descriptors_, descriptors);
  use_->descriptors_.fetch_add(more, std::memory_order_relaxed);
  limits_->descriptors_.fetch_add(more, std::memory_order_relaxed);
}

std::shared_ptr<PodUse> Limits::use_of(const std::shared_ptr<const PodContext>& pod) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(known_, [](const Known& known) { return known.use.expired(); });
  for (const Known& known : known_) {
    if (!same_object(known.pod, pod)) continue;
    if (auto use = known.use.lock()) return use;
  }
  auto use = std::make_shared<PodUse>(pod->namespace_name, pod->name);
  known_.push_back({pod, use});
  return use;
}

Shed Limits::judge(const PodUse& use, std::uint32_t descriptors) const {
  const std::size_t own = use.connections();
  const std::size_t all = connections();
  switch (memory_pressure()) {
    case MemoryPressure::kNone:
      break;
    case MemoryPressure::kHigh:
      if (own > kAlwaysFew && own * pods_with_connections_.load(std::memory_order_relaxed) >= all) return Shed::kMemory;
      break;
    case MemoryPressure::kCritical:
      return Shed::kMemory;
  }
  if (own >= max_per_pod_.load(std::memory_order_relaxed)) return Shed::kPodLimit;
  if (!within_fair_share(own, 1, all, max_connections_.load(std::memory_order_relaxed))) return Shed::kFairShare;
  if (!within_fair_share(use.descriptors(), descriptors, this->descriptors(),
                         max_descriptors_.load(std::memory_order_relaxed))) {
    return Shed::kDescriptors;
  }
  return Shed::kNone;
}

Admission Limits::admit(const std::shared_ptr<PodUse>& use, std::uint32_t descriptors) {
  if (const Shed refused = judge(*use, descriptors); refused != Shed::kNone) {
    use->count_shed(refused);
    return {{}, refused};
  }
  if (use->connections_.fetch_add(1, std::memory_order_relaxed) == 0) {
    pods_with_connections_.fetch_add(1, std::memory_order_relaxed);
  }
  connections_.fetch_add(1, std::memory_order_relaxed);
  use->descriptors_.fetch_add(descriptors, std::memory_order_relaxed);
  descriptors_.fetch_add(descriptors, std::memory_order_relaxed);
  return {Charge(*this, use, descriptors)};
}

std::string Limits::why(Shed reason, const PodUse& use) const {
  const LimitSizes all = sizes();
  const auto of = [](std::size_t own, std::size_t used, std::size_t size) {
    return std::to_string(own) + " of the agent's " + std::to_string(size) + ", and " +
           std::to_string(size - std::min(used, size)) + " are left for everybody";
  };
  switch (reason) {
    case Shed::kNone:
      break;
    case Shed::kPodLimit:
      return "too many connections: the pod has " + std::to_string(use.connections()) + " (--max-connections-per-pod)";
    case Shed::kFairShare:
      return "too many connections: the pod has " + of(use.connections(), connections(), all.connections) +
             " (--max-connections)";
    case Shed::kDescriptors:
      return "too many file descriptors: the pod has " + of(use.descriptors(), descriptors(), all.descriptors) +
             " (raise the agent's limit of open files)";
    case Shed::kMemory:
      return "too little memory: the agent is near its limit, and the pod has " + std::to_string(use.connections()) +
             " of " + std::to_string(connections()) + " connections";
    case Shed::kHandshakes:
      return "too many handshakes: the pod has " + std::to_string(use.connections()) + " connections and tunnels";
  }
  return {};
}

void Limits::release(PodUse& use, std::uint32_t descriptors) {
  if (use.connections_.fetch_sub(1, std::memory_order_relaxed) == 1) {
    pods_with_connections_.fetch_sub(1, std::memory_order_relaxed);
  }
  connections_.fetch_sub(1, std::memory_order_relaxed);
  use.descriptors_.fetch_sub(descriptors, std::memory_order_relaxed);
  descriptors_.fetch_sub(descriptors, std::memory_order_relaxed);
}

void Limits::set_sizes(const LimitSizes& sizes) {
  max_connections_.store(sizes.connections, std::memory_order_relaxed);
  max_per_pod_.store(sizes.connections_per_pod, std::memory_order_relaxed);
  max_descriptors_.store(sizes.descriptors, std::memory_order_relaxed);
}

LimitSizes Limits::sizes() const {
  return {.connections = max_connections_.load(std::memory_order_relaxed),
          .connections_per_pod = max_per_pod_.load(std::memory_order_relaxed),
          .descriptors = max_descriptors_.load(std::memory_order_relaxed)};
}

std::vector<std::shared_ptr<const PodUse>> Limits::pods() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::shared_ptr<const PodUse>> live;
  for (const Known& known : known_) {
    if (auto use = known.use.lock()) live.push_back(std::move(use));
  }
  return live;
}

}  // namespace weft::proxy
