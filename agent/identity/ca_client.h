// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <mutex>
#include <string>
#include <vector>

#include "agent/identity/certificate_source.h"
#include "agent/identity/local_ca.h"
#include "agent/istiod_address.h"
#include "tunnel/base/clock.h"

namespace grpc {
class ClientContext;
}

namespace weft::agent {

/// Certificates from istiod's CA: the key is made here and never leaves, istiod signs a request for it, for an identity
/// that is not the agent's own. It does that for the pods of the node that the agent's token is bound to. What comes
/// back is checked before it is used. issue() on one thread; the rest thread-safe.
class CaClient final : public CertificateSource {
 public:
  struct Options {
    IstiodAddress istiod;
    std::chrono::seconds lifetime{86'400};
    milliseconds timeout{10'000};  ///< of one call, the connection included
  };

  explicit CaClient(Options options) : options_(std::move(options)) {}
  ~CaClient() override = default;
  CaClient(const CaClient&) = delete;
  CaClient& operator=(const CaClient&) = delete;

  /// Roots are the last part of istiod's answer; where its certificates are among those of the root file, that is the
  /// mesh's own list of roots, and the others in it are roots too. Errors: kUnavailable and kTimeout where istiod is
  /// away; kDenied and what else istiod says, in its own words; kInvalid for an answer that does not fit the request.
  Result<hbone::CertificateBundle> issue(const state::Identity& identity) override;
  /// Ends a call that is under way; none succeeds from now on. Idempotent.
  void stop();
  /// As the admin API shows it: what was the matter with the last call, and the roots of the last answer.
  [[nodiscard]] CaStatus status() const;

 private:
  Result<std::vector<std::string>> call(const std::string& uri, const std::string& request_pem);
  Result<hbone::CertificateBundle> ask(const state::Identity& identity);

  const Options options_;
  mutable std::mutex mutex_;
  bool stopping_ = false;                ///< under mutex_
  grpc::ClientContext* call_ = nullptr;  ///< under mutex_: to be cancelled by stop()
  std::string problem_;                  ///< under mutex_
  std::string roots_pem_;                ///< under mutex_: of the last answer
};

}  // namespace weft::agent
