// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "agent/directory_watch.h"
#include "agent/identity/certificate_source.h"
#include "agent/identity/self_signed.h"
#include "tunnel/hbone/revocation.h"

namespace weft::agent {

/// Where certificates come from and what is revoked, for the admin API.
struct CaStatus {
  struct Root {
    std::string subject;
    std::string sha256;  ///< of the certificate, hex
    WallTime not_after;
    bool signs = false;
  };
  std::string directory;
  std::string problem;  ///< why nothing can be issued now; empty: all is well
  std::vector<Root> roots;
  struct Crl {
    std::string file;
    std::string problem;             ///< why the file's content does not count; empty: it does, or there is none
    std::vector<std::string> notes;  ///< lists that are kept, old or expired
    std::vector<hbone::RevocationLists::List> lists;
    std::uint64_t refused = 0;  ///< versions of the file
  } crl;
};

/// The local CA as long as the agent runs: a directory that is watched. While it can be read certificates are issued
/// from it, with its roots; while it cannot, none are, and whoever asks is told why. Beside it the revocation lists: a
/// version that cannot be used changes nothing.
class LocalCa final : public CertificateSource {
 public:
  struct Options {
    std::string directory;
    std::string crl_file;  ///< empty: crl.pem in the directory
    std::chrono::seconds lifetime = SelfSignedCa::kDefaultTtl;
    milliseconds poll_interval{5'000};
  };
  /// What happened, told on the watching thread.
  struct Events {
    std::function<void()> replaced;  ///< other roots, or another one signs: what was issued before is out of date
    std::function<void()> back;      ///< it can be used again
    std::function<void(const hbone::RevocationsPtr&)> revoked;  ///< other certificates are revoked
  };

  /// Reads CA and revocation lists. Errors: those of SelfSignedCa::load; of the lists where the file is there and
  /// cannot be used: without a last good version, going on would open what it closes.
  static Result<std::unique_ptr<LocalCa>> open(Options options, const Clock& clock = Clock::real());
  ~LocalCa() override;

  /// Watches from now on. Once. Errors: errno.
  Result<void> start(Events events);
  /// No event comes after it. Idempotent.
  void stop();

  /// Errors: kUnavailable while the directory cannot be used; those of SelfSignedCa::issue.
  Result<hbone::CertificateBundle> issue(const state::Identity& identity) override;
  /// Null where nothing was ever listed.
  [[nodiscard]] hbone::RevocationsPtr revocations() const;
  [[nodiscard]] CaStatus status() const;

 private:
  LocalCa(Options options, const Clock& clock);
  void look();
  [[nodiscard]] std::string fingerprint() const;
  void load_ca();
  Result<void> load_crl();
  [[nodiscard]] Result<hbone::RevocationsPtr> read_crl() const;
  void tell_notes();
  /// Those of the last load, and the lists that are past their next update. Under mutex_.
  [[nodiscard]] std::vector<std::string> notes() const;

  const Options options_;
  const Clock& clock_;
  DirectoryWatch watch_;
  Events events_;
  std::string known_;              ///< fingerprint of what was loaded
  std::vector<std::string> told_;  ///< notes that are in the log
  mutable std::mutex mutex_;
  std::shared_ptr<SelfSignedCa> ca_;    ///< under mutex_: the last that could be read
  std::string problem_, crl_problem_;   ///< under mutex_
  hbone::RevocationsPtr revocations_;   ///< under mutex_
  std::vector<std::string> crl_notes_;  ///< under mutex_
  std::uint64_t crl_refused_ = 0;       ///< under mutex_
  std::thread thread_;
};

}  // namespace weft::agent
