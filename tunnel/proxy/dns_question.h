// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tunnel/dns/server_message.h"
#include "tunnel/proxy/context.h"

namespace weft::proxy {

/// How long an answer of ours counts, in seconds.
inline constexpr std::uint32_t kDnsTtlSeconds = 30;

enum class DnsTransport : std::uint8_t { kUdp, kTcp };

/// What becomes of a message that a pod sent to a DNS server.
struct DnsVerdict {
  enum class Kind : std::uint8_t {
    kDrop,     ///< it is nothing that could be answered to
    kAnswer,   ///< `answer` is all there is to say
    kForward,  ///< it is the server's that was asked
  } kind = Kind::kDrop;
  std::vector<std::byte> answer;
  dns::Inquiry inquiry;                              ///< but for kDrop and what cannot be read
  telemetry::DnsMetrics::Handle* metrics = nullptr;  ///< as `inquiry`
};

/// Decides by the worker's snapshot, of which there must be one. Questions for A and AAAA of the mesh's names are
/// answered, all else is forwarded; what cannot be read is told so.
[[nodiscard]] DnsVerdict judge_question(WorkerContext& worker, const PodContext& pod,
                                        std::span<const std::byte> message, DnsTransport transport);

}  // namespace weft::proxy
