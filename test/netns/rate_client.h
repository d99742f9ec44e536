// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "test/support/netns.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/ip.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::test {

/// New connections at a rate, all from one address, through HBONE tunnels of the test's own: as a busy client agent
/// would ask for them, without the cost of its applications.
struct RateOptions {
  Endpoint gateway;      ///< podIP:15008
  Endpoint application;  ///< weft-testapp serve
  int per_second = 3000;
  milliseconds duration{3000};
  bool client_closes_first = false;
  int open_at_once = 400;  ///< at most; what is due waits
};
struct RateResult {
  std::uint64_t answered = 0, failed = 0;
  double seconds = 0;         ///< until the last one had ended
  std::string first_failure;  ///< a status, or how the stream ended
};
/// Runs in the namespace; the certificate is the peer's, whatever the server proves is taken.
RateResult run_at_rate(const Netns& from, const hbone::CertificateBundle& bundle, const std::string& server_identity,
                       const RateOptions& options);

}  // namespace weft::test
