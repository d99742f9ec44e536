// SPDX-License-Identifier: Apache-2.0
/// Answers of a DNS server, or of who can write to the node's socket. The first line is the question: A or AAAA, a
/// blank, the name. The message behind it has any number: the question's is taken from it, so that it is never wrong.
#include <algorithm>
#include <array>
#include <limits>

#include "test/fuzz/fuzz.h"
#include "tunnel/dns/message.h"
#include "tunnel/dns/servers.h"
#include "tunnel/state/names.h"

namespace weft::fuzz {
namespace {

using dns::Question;
using dns::RecordType;
using dns::Reply;
using Kind = dns::Reply::Kind;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

/// What is asked can be sent, and is no answer to itself.
void asked(const Question& question) {
  const auto message = dns::encode(question);
  require(message || !state::is_host_name(question.name), "a host's name can be asked for", question.name);
  if (!message) return require_error(message.error());
  require(question.name.find('\0') == std::string::npos, "what is asked for is the whole name", question.name);
  require(message->size() <= 512, "a question fits a datagram", question.name);
  const auto itself = dns::decode(*message, question);
  require(!itself, "a question is no answer", question.name);
  require_error(itself.error(), "DNS message");
  std::vector<std::byte> empty = *message;
  empty[2] |= std::byte{0x80};
  const auto answer = dns::decode(empty, question);
  require(answer && answer->kind == Kind::kNoAddress && answer->aliases == 0, "an empty answer has no address",
          question.name);
}

void check(const Reply& reply, const Question& question) {
  require((reply.kind == Kind::kAddresses) == !reply.addresses.empty(), "addresses come as such");
  require(reply.addresses.size() <= dns::kAddressesMax, "addresses are limited");
  require(reply.aliases >= 0 && reply.aliases <= dns::kAliasesMax + 1, "aliases are limited");
  require(reply.ttl.count() >= 0, "a time to live is none in the past");
  for (const auto& address : reply.addresses) {
    require(address.valid() && (question.type == RecordType::kAaaa || address.is_v4()), "an address is of its family",
            address.to_string());
  }
  if (!reply.addresses.empty()) {
    require(reply.ttl.count() <= std::numeric_limits<std::uint32_t>::max(), "a time to live is the record's");
  }
  if (reply.kind == Kind::kFailure) require_text(reply.rcode);
  require((reply.kind == Kind::kAlias) == !reply.alias.empty(), "an alias comes as such", reply.alias);
  if (reply.kind != Kind::kAlias) return;
  require(is_printable(reply.alias), "an alias is printable", reply.alias);
  // The next question is for it.
  asked({.name = reply.alias, .type = question.type, .id = question.id});
}

void servers(std::string_view input) {
  const auto found = dns::parse_resolv_conf(input);
  require(found.size() <= 3, "servers are limited", input);
  require(std::ranges::all_of(found, &IpAddress::valid), "a server has an address", input);
}

}  // namespace

void one_input(std::string_view input) {
  servers(input);
  std::string_view line = take_line(input);
  Question question;
  question.type = line.starts_with("AAAA ") ? RecordType::kAaaa : RecordType::kA;
  question.name = line.substr(std::min(line.size(), line.find(' ') + 1));
  if (input.size() >= 2) {
    question.id =
        static_cast<std::uint16_t>(static_cast<std::uint8_t>(input[0]) << 8U | static_cast<std::uint8_t>(input[1]));
  }
  asked(question);
  const auto reply = dns::decode(bytes_of(input), question);
  if (!reply) return require_error(reply.error(), "DNS message");
  check(*reply, question);
  Question other = question;
  ++other.id;
  require(!dns::decode(bytes_of(input), other), "an answer with another number is none");
  other = question;
  other.type = question.type == RecordType::kA ? RecordType::kAaaa : RecordType::kA;
  require(!dns::decode(bytes_of(input), other), "an answer for another type is none");
}

}  // namespace weft::fuzz
