// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/cert_manager.h"

#include <algorithm>
#include <exception>
#include <random>
#include <utility>

#include "tunnel/base/log.h"
#include "tunnel/base/rfc3339.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::agent {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongestSleep{60'000};
/// After a success nothing is issued again so soon, whatever the dates say: a CA whose clock is ahead of ours would
/// otherwise be asked without end.
constexpr std::chrono::seconds kShortestLife{30};
/// Renewal falls between 40 % and 50 % of the life that a certificate has when it arrives.
constexpr double kRenewAt = 0.5, kRenewSpread = 0.1;

template <class Duration>
Duration scaled(Duration duration, double factor) {
  return Duration(static_cast<typename Duration::rep>(static_cast<double>(duration.count()) * factor));
}

milliseconds up_to_ms(std::chrono::nanoseconds duration) {
  return std::chrono::ceil<milliseconds>(std::max(duration, std::chrono::nanoseconds(0)));
}

}  // namespace

CertManager::CertManager(CertificateSource& source, hbone::CertStore& store, const Clock& clock,
                         std::function<void(const state::Identity&)> changed, Options options)
    : source_(source), store_(store), clock_(clock), changed_(std::move(changed)), options_(std::move(options)) {}

CertManager::~CertManager() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void CertManager::start() {
  thread_ = std::thread([this] { run(); });
}

void CertManager::want(const state::Identity& identity) {
  {
    const std::lock_guard lock(mutex_);
    auto [entry, inserted] = entries_.try_emplace(identity);
    if (!inserted) return;
    entry->second.status.identity = identity;
    entry->second.generation = ++generations_;
    woken_ = true;
  }
  wake_.notify_all();
}

void CertManager::forget(const state::Identity& identity) {
  const std::lock_guard lock(mutex_);  // held over both, so that a certificate under way cannot slip in between
  if (entries_.erase(identity) != 0) store_.remove(identity);
}

/// Also what is being issued just now counts as never asked for: it may come from what is out of date.
void CertManager::make_due(Entry& entry) {
  entry.generation = ++generations_;
  entry.not_before = clock_.now();
  if (entry.status.renew_at) entry.status.renew_at = clock_.wall_now();
  woken_ = true;
}

void CertManager::renew_all() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [identity, entry] : entries_) make_due(entry);
  }
  wake_.notify_all();
}

void CertManager::retry() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [identity, entry] : entries_) {
      if (entry.status.failures > 0) make_due(entry);
    }
  }
  wake_.notify_all();
}

void CertManager::set_revocations(hbone::RevocationsPtr revocations) {
  {
    const std::lock_guard lock(mutex_);
    revocations_ = std::move(revocations);
    for (auto& [identity, entry] : entries_) {
      const auto held = store_.get(identity);
      const auto why = held && revocations_ ? revocations_->find(held->chain()) : std::nullopt;
      entry.status.revoked = why.value_or("");
      if (why) make_due(entry);
    }
  }
  wake_.notify_all();
}

hbone::RevocationsPtr CertManager::revocations() const {
  const std::lock_guard lock(mutex_);
  return revocations_;
}

CertManager::Counts CertManager::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::vector<CertManager::Status> CertManager::status() const {
  const std::lock_guard lock(mutex_);
  std::vector<Status> out;
  out.reserve(entries_.size());
  for (const auto& [identity, entry] : entries_) out.push_back(entry.status);
  return out;
}

milliseconds CertManager::step() {
  while (const auto job = next_due()) issue(*job);
  const std::lock_guard lock(mutex_);
  milliseconds sleep = kLongestSleep;
  for (const auto& [identity, entry] : entries_) sleep = std::min(sleep, time_until_due(entry));
  return sleep;
}

void CertManager::run() {
  for (;;) {
    const milliseconds sleep = step();
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, sleep, [this] { return woken_ || stopping_; });
    if (stopping_) return;
    woken_ = false;
  }
}

bool CertManager::is_due(const Entry& entry) const { return time_until_due(entry) == milliseconds(0); }

milliseconds CertManager::time_until_due(const Entry& entry) const {
  const milliseconds held_back = up_to_ms(entry.not_before - clock_.now());
  const WallTime now = clock_.wall_now();
  // A certificate of the future means that this node's clock was set back: peers refuse it now.
  const bool usable = entry.status.valid_from && now >= *entry.status.valid_from;
  return usable ? std::max(held_back, up_to_ms(*entry.status.renew_at - now)) : held_back;
}

std::optional<CertManager::Job> CertManager::next_due() {
  const std::lock_guard lock(mutex_);
  const std::pair<const state::Identity, Entry>* chosen = nullptr;
  for (const auto& candidate : entries_) {
    if (stopping_ || !is_due(candidate.second)) continue;
    const bool first = !candidate.second.status.valid_from;
    if (chosen == nullptr || (first && chosen->second.status.valid_from)) chosen = &candidate;
  }
  if (chosen == nullptr) return std::nullopt;
  return Job{chosen->first, chosen->second.generation};
}

void CertManager::issue(const Job& job) {
  const auto made = obtain(job.identity);
  if (!made) {
    record_failure(job, made.error().message());
  } else if (record_success(job, *made) && changed_) {
    changed_(job.identity);
  }
}

Result<std::shared_ptr<const hbone::TlsIdentity>> CertManager::obtain(const state::Identity& identity) {
  try {  // the edge of a client library that may throw
    auto bundle = source_.issue(identity);
    if (!bundle) return Failure(bundle.error());
    if (bundle->identity != identity) {
      return fail(ErrorCode::kInvalid, "the CA issued for " + bundle->identity.to_uri() + " instead");
    }
    auto made = hbone::TlsIdentity::create(std::move(*bundle));
    if (const auto lists = revocations(); made && lists) {
      if (const auto why = lists->find((*made)->chain())) {
        return fail(ErrorCode::kInvalid, "the CA issued what is revoked already: " + *why);
      }
    }
    if (made && (*made)->not_after() <= clock_.wall_now()) {
      return fail(ErrorCode::kInvalid, "the CA issued a certificate that ended at " + rfc3339((*made)->not_after()) +
                                           " already (is a clock wrong?)");
    }
    return made;
  } catch (const std::exception& e) {
    return fail(ErrorCode::kInternal, std::string("the CA client failed: ") + e.what());
  }
}

void CertManager::record_failure(const Job& job, const std::string& text) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(job.identity);
  if (found == entries_.end() || found->second.generation != job.generation) return;
  Entry& entry = found->second;
  ++counts_.failed;
  entry.status.last_error = text;
  const unsigned doublings = std::min(entry.status.failures++, 20U);
  const auto longest = std::min(options_.retry_min * (std::int64_t{1} << doublings), options_.retry_max);
  const auto wait = scaled(longest, 1.0 - random() / 2);  // half to all of it
  entry.not_before = clock_.now() + wait;
  log::warn("certificate not issued identity={} failures={} retry_ms={} error={}", job.identity.to_uri(),
            entry.status.failures, wait.count(), log::quote(text));
}

bool CertManager::record_success(const Job& job, const std::shared_ptr<const hbone::TlsIdentity>& made) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(job.identity);
  if (found == entries_.end() || found->second.generation != job.generation) return false;
  Entry& entry = found->second;
  // Of the life that is left, because a CA may date certificates well back.
  const WallTime start = std::max(made->not_before(), clock_.wall_now());
  const auto lifetime = made->not_after() - start;
  entry.status.valid_from = made->not_before();
  entry.status.valid_until = made->not_after();
  entry.status.renew_at = start + scaled(lifetime, kRenewAt - kRenewSpread * random());
  entry.status.serial = made->serial();
  entry.status.last_error.clear();
  entry.status.revoked.clear();
  entry.status.failures = 0;
  ++counts_.issued;
  entry.not_before = clock_.now() + std::min<std::chrono::nanoseconds>(kShortestLife, lifetime / 4);
  store_.put(made);
  log::info("certificate issued identity={} serial={} valid_until={}", job.identity.to_uri(), made->serial(),
            rfc3339(made->not_after()));
  return true;
}

double CertManager::random() const {
  if (options_.random) return options_.random();
  thread_local std::minstd_rand generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.0, 1.0)(generator);
}

}  // namespace weft::agent
