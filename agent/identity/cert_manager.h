// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/identity/certificate_source.h"
#include "tunnel/base/clock.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::agent {

/// Keeps a certificate in the store for every identity that this node's pods have: issues on a thread of its own,
/// renews at half-life, tries again after failures. A certificate that cannot be renewed stays until a better one is
/// there; past its end peers refuse it. All public calls are thread-safe.
class CertManager {
 public:
  struct Options {
    std::chrono::milliseconds retry_min{1000};  ///< the first wait after a failure; doubles each time
    std::chrono::milliseconds retry_max{60'000};
    /// A number in [0, 1) that spreads renewals and retries of many nodes.
    std::function<double()> random;  ///< empty: the process's own generator
  };
  /// An identity's certificate, for the admin API.
  struct Status {
    state::Identity identity;
    std::optional<WallTime> valid_from, valid_until;  ///< none until the first was issued
    std::optional<WallTime> renew_at;
    std::string serial;      ///< hex
    std::string last_error;  ///< of the latest attempt; empty when it succeeded
    std::string revoked;     ///< what revokes it, in words; empty: nothing
    unsigned failures = 0;   ///< attempts that failed since the last success
  };

  /// `changed` is called on the manager's thread, without a lock held, after a new certificate is in the store.
  /// `source`, `store` and `clock` must outlive the manager.
  CertManager(CertificateSource& source, hbone::CertStore& store, const Clock& clock,
              std::function<void(const state::Identity&)> changed, Options options);
  CertManager(CertificateSource& source, hbone::CertStore& store, const Clock& clock,
              std::function<void(const state::Identity&)> changed)
      : CertManager(source, store, clock, std::move(changed), Options()) {}
  /// Ends the thread, after an issue() that it may be in. Certificates stay in the store.
  ~CertManager();
  CertManager(const CertManager&) = delete;
  CertManager& operator=(const CertManager&) = delete;

  /// Starts the thread. Once.
  void start();

  /// From now on the store has this identity's certificate, soon. Idempotent; returns at once.
  void want(const state::Identity& identity);
  /// The last pod of the identity is gone: its certificate leaves the store before this returns. Idempotent.
  void forget(const state::Identity& identity);
  /// All certificates are issued anew, at once: what they were issued from is out of date.
  void renew_all();
  /// What failed is tried again at once: its cause may be gone.
  void retry();
  /// What is revoked from now on. A certificate of this node that is has one successor, at once; one that already is
  /// when it comes counts as a failure.
  void set_revocations(hbone::RevocationsPtr revocations);
  /// Ordered by identity.
  [[nodiscard]] std::vector<Status> status() const;
  struct Counts {
    std::uint64_t issued = 0, failed = 0;
  };
  /// Attempts since the start.
  [[nodiscard]] Counts counts() const;

  /// One turn of the thread: issues whatever is due, identities without a certificate first. Returns how long nothing
  /// will be due, at most a minute (the wall clock may be set meanwhile). Tests call it instead of start().
  std::chrono::milliseconds step();

 private:
  struct Entry {
    Status status;
    std::uint64_t generation = 0;  // tells an entry from one that replaced it while it was being issued
    SteadyTime not_before{};       // no attempt before this
  };
  struct Job {
    state::Identity identity;
    std::uint64_t generation = 0;
  };

  void run();
  std::optional<Job> next_due();
  [[nodiscard]] bool is_due(const Entry& entry) const;
  [[nodiscard]] std::chrono::milliseconds time_until_due(const Entry& entry) const;
  void make_due(Entry& entry);
  [[nodiscard]] hbone::RevocationsPtr revocations() const;
  void issue(const Job& job);
  Result<std::shared_ptr<const hbone::TlsIdentity>> obtain(const state::Identity& identity);
  void record_failure(const Job& job, const std::string& text);
  bool record_success(const Job& job, const std::shared_ptr<const hbone::TlsIdentity>& made);
  double random() const;

  CertificateSource& source_;
  hbone::CertStore& store_;
  const Clock& clock_;
  const std::function<void(const state::Identity&)> changed_;
  const Options options_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool woken_ = false;
  bool stopping_ = false;
  std::uint64_t generations_ = 0;
  Counts counts_;
  hbone::RevocationsPtr revocations_;
  std::map<state::Identity, Entry> entries_;
  std::thread thread_;
};

}  // namespace weft::agent
