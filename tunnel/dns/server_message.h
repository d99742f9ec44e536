// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"
#include "tunnel/dns/message.h"

/// DNS messages as a server reads and writes them (RFC 1035, RFC 6891). ldns does the wire format. Pure.
namespace weft::dns {

/// Each message has one; it is what can be answered to.
inline constexpr std::size_t kHeaderBytes = 12;
/// The longest answer that goes by UDP to who says nothing of EDNS, and to who does.
inline constexpr std::size_t kPlainUdpBytes = 512, kEdnsUdpBytes = 1232;
/// By TCP.
inline constexpr std::size_t kStreamBytes = 65'535;
/// Addresses of one answer; those that come first stay.
inline constexpr std::size_t kAnswersMax = 1'000;

/// What becomes of a message as such.
enum class ResponseCode : std::uint8_t { kNoError = 0, kFormatError = 1, kServerFailure = 2, kBadVersion = 16 };

/// One question, as it came.
struct Inquiry {
  std::uint16_t id = 0;
  std::string name;  ///< in small letters, without a dot at the end; what is no plain text is escaped with a backslash
  std::uint16_t type = 0;
  bool is_query = true;  ///< a standard query for class IN: anything else is none of ours
  bool has_edns = false;
  std::uint8_t edns_version = 0;
  std::size_t udp_bytes = kPlainUdpBytes;  ///< the longest answer of ours to it by UDP
  std::uint16_t flags = 0;                 ///< of the header
  std::vector<std::byte> question;         ///< the section, letters as they came

  /// A or AAAA, where it is one of them.
  [[nodiscard]] std::optional<RecordType> address_type() const;
};

/// Reads a question. Errors: kNotFound for what must not be answered at all (too short for a header, or an answer
/// itself), kInvalid for what can be told that it is no question, with why.
Result<Inquiry> read_inquiry(std::span<const std::byte> message);

/// An answer with these addresses, of which those of the question's type count. One that is longer than `most` bytes
/// says so (TC) and has none. The owner is the name as it was asked for.
std::vector<std::byte> write_answer(const Inquiry& inquiry, std::span<const IpAddress> addresses,
                                    std::uint32_t ttl_seconds, std::size_t most);
/// An answer without records that says what is wrong.
std::vector<std::byte> write_failure(const Inquiry& inquiry, ResponseCode code);
/// FORMERR to a message of which no more than the header can be read.
std::vector<std::byte> write_format_error(std::span<const std::byte> message);

/// Whether this is an answer to what was asked under the number `id`: the same question, or none with an error.
[[nodiscard]] bool is_answer_to(std::span<const std::byte> message, const Inquiry& inquiry, std::uint16_t id);
/// The first two bytes.
[[nodiscard]] std::uint16_t id_of(std::span<const std::byte> message);
void set_id(std::span<std::byte> message, std::uint16_t id);

/// "a", "aaaa", "srv" …; "other" for types that nobody asks for.
[[nodiscard]] const char* type_name(std::uint16_t type);

}  // namespace weft::dns
