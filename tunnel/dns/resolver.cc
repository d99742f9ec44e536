// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/resolver.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "tunnel/base/log.h"
#include "tunnel/dns/lookup.h"
#include "tunnel/dns/servers.h"

namespace weft::dns {
namespace {}  // namespace

/// Everything but find() and names() belongs to the resolver's thread.
class Resolver::Impl {
 public:
  Impl(ResolverConfig config, std::unique_ptr<loop::EventLoop> event_loop, std::function<void()> on_answer)
      : loop_(std::move(event_loop)),
        config_(std::move(config)),
        on_answer_(std::move(on_answer)),
        servers_(config_.resolv_conf, config_.port),
        cache_(config_.cache),
        sweep_timer_(*loop_) {
    thread_ = std::thread([this] { loop_->run(); });
  }
  ~Impl() { stop(); }

  state::NameAnswer find(const std::string& hostname);
  [[nodiscard]] std::size_t names() const {
    const std::scoped_lock lock(mutex_);
    return cache_.size();
  }
  void stop();

 private:
  void look_up(const std::string& name);
  void start_waiting();
  void on_done(const std::string& name, const Outcome& outcome);
  void store(const std::string& name, const Outcome& outcome);
  void sweep();
  void arm_sweep(std::optional<SteadyTime> next);

  std::unique_ptr<loop::EventLoop> loop_;
  ResolverConfig config_;
  std::function<void()> on_answer_;
  Servers servers_;
  mutable std::mutex mutex_;  ///< of cache_; held for moments, also by workers
  NameCache cache_;
  std::unordered_map<std::string, std::unique_ptr<Lookup>> lookups_;
  std::deque<std::string> waiting_;  ///< for a place among lookups_
  loop::Timer sweep_timer_;
  std::thread thread_;
};

state::NameAnswer Resolver::Impl::find(const std::string& hostname) {
  const std::string name = state::canonical_name(hostname);
  if (!state::is_host_name(name)) {
    return {state::NameAnswer::Kind::kFailed, nullptr, "it is no host's name"};
  }
  NameCache::Found found;
  {
    const std::scoped_lock lock(mutex_);
    found = cache_.find(name, loop_->now());
  }
  if (found.look_up) loop_->post([this, name] { look_up(name); });
  return std::move(found.answer);
}

void Resolver::Impl::look_up(const std::string& name) {
  waiting_.push_back(name);
  start_waiting();
}

void Resolver::Impl::start_waiting() {
  while (!waiting_.empty() && lookups_.size() < config_.lookups_max) {
    const std::string name = std::move(waiting_.front());
    waiting_.pop_front();
    auto servers = servers_.get();
    if (!servers) {
      store(name, {{}, {}, false, servers.error().message()});
      continue;
    }
    auto& lookup = lookups_[name];
    lookup = std::make_unique<Lookup>(*loop_, config_.query, *servers, name,
                                      [this, name](const Outcome& outcome) { on_done(name, outcome); });
    lookup->start();
  }
}

void Resolver::Impl::on_done(const std::string& name, const Outcome& outcome) {
  // It is its own caller: it goes when the turn is over.
  if (auto ended = lookups_.extract(name); !ended.empty()) loop_->defer_delete(std::move(ended.mapped()));
  store(name, outcome);
  start_waiting();
}

void Resolver::Impl::store(const std::string& name, const Outcome& outcome) {
  if (outcome.addresses.empty()) {
    log::debug("name not resolved name={} reason={}", name, log::quote(outcome.reason));
  } else {
    log::debug("name resolved name={} addresses={} first={} ttl_s={}", name, outcome.addresses.size(),
               outcome.addresses.front().to_string(), outcome.ttl.count());
  }
  bool awaited = false;
  std::optional<SteadyTime> next;
  {
    const std::scoped_lock lock(mutex_);
    awaited = cache_.store(name, outcome, loop_->now());
    next = cache_.next_sweep(loop_->now());
  }
  arm_sweep(next);
  if (awaited) on_answer_();
}

void Resolver::Impl::sweep() {
  std::vector<std::string> again;
  std::optional<SteadyTime> next;
  {
    const std::scoped_lock lock(mutex_);
    again = cache_.sweep(loop_->now());
    next = cache_.next_sweep(loop_->now());
  }
  arm_sweep(next);
  for (const auto& name : again) look_up(name);
}

void Resolver::Impl::arm_sweep(std::optional<SteadyTime> next) {
  if (!next) return sweep_timer_.cancel();
  // Rounded up: nothing is due a moment before its time.
  const auto wait = std::chrono::ceil<milliseconds>(*next - loop_->now());
  sweep_timer_.arm(std::max(wait, milliseconds(1)), [this] { sweep(); });
}

void Resolver::Impl::stop() {
  if (!thread_.joinable()) return;
  loop_->stop();
  thread_.join();
}

Resolver::Resolver(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Resolver::~Resolver() = default;

Result<std::unique_ptr<Resolver>> Resolver::start(ResolverConfig config, std::function<void()> on_answer) {
  auto loop = loop::EventLoop::create();
  if (!loop) return Failure(loop.error());
  return std::unique_ptr<Resolver>(
      new Resolver(std::make_unique<Impl>(std::move(config), std::move(*loop), std::move(on_answer))));
}

state::NameAnswer Resolver::find(const std::string& hostname) { return impl_->find(hostname); }

std::size_t Resolver::names() const { return impl_->names(); }

void Resolver::stop() { impl_->stop(); }

}  // namespace weft::dns
