// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"
#include "tunnel/state/workload.h"

namespace weft::hbone {

/// The `baggage` header that describes a workload to the peer; missing values are left out.
[[nodiscard]] std::string baggage(const state::Workload& workload);

/// What the peer said of itself in `baggage`: telemetry only, never used for a decision.
struct PeerDescription {
  std::string cluster, namespace_name, workload_name, workload_type, canonical_name, canonical_revision, region, zone;
};
/// Lenient: keys that are unknown or malformed are skipped.
[[nodiscard]] PeerDescription parse_baggage(std::string_view header);

/// `for="ip:port"` and `;host=SERVICE` where a service is known.
[[nodiscard]] std::string forwarded(const Endpoint& source, std::string_view service_hostname);
/// The endpoint of the first `for=`, where it is one.
[[nodiscard]] std::optional<Endpoint> parse_forwarded(std::string_view header);

/// The value of the first `host=`, empty where there is none.
[[nodiscard]] std::string forwarded_host(std::string_view header);

/// A W3C trace context header: `header` back where it is well-formed, otherwise a new one made from the two numbers.
[[nodiscard]] std::string traceparent(std::string_view header, std::uint64_t random_high, std::uint64_t random_low);

/// The authority of a CONNECT: an address and a port (port 0 is refused), or a hostname and a port.
struct Authority {
  std::string host;  ///< as written, without brackets
  std::optional<IpAddress> address;
  std::uint16_t port = 0;
};
Result<Authority> parse_authority(std::string_view text);

}  // namespace weft::hbone
