// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>

#include "tunnel/base/ip.h"
#include "tunnel/base/rate_limit.h"
#include "tunnel/proxy/worker.h"
#include "tunnel/telemetry/connection_result.h"

namespace weft::proxy {

/// The access lines of connections that were never served: those into pods that were refused, failed or given up, and
/// those out of pods that were refused for want of room. Whoever makes such
/// connections pays almost nothing for them, so each source has only so many lines; what it makes beyond is told once a
/// second, by number, and counted as the violation "refusal_flood". One thread.
class RefusalLog {
 public:
  explicit RefusalLog(telemetry::ConnectionMetrics& metrics) : metrics_(metrics) {}
  void write(const PodContext& pod, const telemetry::ConnectionResult& result);

 private:
  struct Source {
    RateLimit lines{200, 20};
    std::size_t not_logged = 0;  ///< since `told`
    SteadyTime told, last;
  };
  Source& source_of(const IpAddress& address, SteadyTime now);

  telemetry::ConnectionMetrics& metrics_;
  std::map<IpAddress, Source> sources_;
  Source others_;  ///< shared by those for whom there is no place
};

}  // namespace weft::proxy
