// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

/// DNS messages (RFC 1035, RFC 3596), as far as looking up addresses needs them. ldns does the wire format. Pure.
namespace weft::dns {

enum class RecordType : std::uint16_t { kA = 1, kAaaa = 28 };

/// Aliases (CNAME) that are followed for one name. A loop ends there, too.
inline constexpr int kAliasesMax = 16;
/// Addresses that are kept of one answer.
inline constexpr std::size_t kAddressesMax = 64;

struct Question {
  std::string name;  ///< absolute, with or without a dot at the end
  RecordType type = RecordType::kA;
  std::uint16_t id = 0;
};

/// What one message answers.
struct Reply {
  enum class Kind : std::uint8_t {
    kAddresses,  ///< `addresses`
    kAlias,      ///< `alias` is the name to ask for instead
    kNoName,     ///< NXDOMAIN
    kNoAddress,  ///< the name exists and has none of this type
    kTruncated,  ///< TC: to be asked by TCP
    kFailure,    ///< the server could not or would not: `rcode`
  } kind = Kind::kFailure;
  std::vector<IpAddress> addresses;
  std::chrono::seconds ttl{0};  ///< the least of the records used
  std::string alias;
  int aliases = 0;    ///< followed within this message, or to get to `alias`
  std::string rcode;  ///< as DNS names it: "SERVFAIL"
};

/// For a question: what an answer must repeat, and nobody else can guess. From any thread.
[[nodiscard]] std::uint16_t random_id();
/// The question as bytes to send. Errors: kInvalid where the name is none.
Result<std::vector<std::byte>> encode(const Question& question);
/// Reads an answer to just this question. Errors: kInvalid for anything else: it is no message, not an answer, or one
/// to another question.
Result<Reply> decode(std::span<const std::byte> message, const Question& question);

}  // namespace weft::dns
