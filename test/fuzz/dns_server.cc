// SPDX-License-Identifier: Apache-2.0
/// Messages that a pod sends to a DNS server, and what its resolver sends back. The first byte says how long the
/// question is in words of two bytes, the rest is an answer.
#include <algorithm>
#include <array>

#include "test/fuzz/fuzz.h"
#include "tunnel/dns/directory.h"
#include "tunnel/dns/server_message.h"

namespace weft::fuzz {
namespace {

using dns::Inquiry;
using dns::ResponseCode;
using Bytes = std::vector<std::byte>;

constexpr std::uint32_t kTtl = 30;

IpAddress address(const char* text) { return IpAddress::parse(text).value(); }

state::Service service(const char* namespace_name, const char* hostname, const char* vip) {
  state::Service out;
  out.namespace_name = namespace_name;
  out.name = out.hostname = hostname;
  if (*vip != '\0') out.vips.push_back({"", address(vip)});
  return out;
}

const state::State& mesh() {
  static const auto state = [] {
    state::StateInput input;
    input.services = {service("shop", "web.shop.svc.cluster.local", "10.0.0.1"),
                      service("shop", "*.example.com", "10.0.0.2"), service("bank", "api.example.com", "fd00::3"),
                      service("shop", "pods.shop.svc.cluster.local", "")};
    return state::State::build(std::move(input)).value();
  }();
  return *state;
}

/// A message of ours can be read by a client of ours, and is the answer to its question.
void written(const Bytes& message, const Inquiry& inquiry, std::size_t most) {
  require(message.size() >= dns::kHeaderBytes && message.size() <= most, "an answer is as long as it may be");
  require(dns::is_answer_to(message, inquiry, inquiry.id), "an answer is one to its question", inquiry.name);
  require(dns::read_inquiry(message).error().code == ErrorCode::kNotFound, "an answer is no question", inquiry.name);
  require(!dns::is_answer_to(message, inquiry, static_cast<std::uint16_t>(inquiry.id ^ 1U)),
          "an answer with another number is none");
}

void answers(const Inquiry& inquiry) {
  const std::array both{address("10.1.0.1"), address("10.1.0.2"), address("fd01::1")};
  for (const std::size_t most : {inquiry.udp_bytes, dns::kStreamBytes}) {
    const auto answer = dns::write_answer(inquiry, both, kTtl, most);
    written(answer, inquiry, most);
    const auto type = inquiry.address_type();
    if (!type || !inquiry.is_query) continue;
    const auto reply = dns::decode(answer, {.name = inquiry.name, .type = *type, .id = inquiry.id});
    // Names with odd bytes are escaped, which not every library reads back as it wrote it.
    if (!reply) continue;
    require(reply->addresses.size() == (*type == dns::RecordType::kA ? 2U : 1U), "addresses arrive", inquiry.name);
  }
  for (const auto code : {ResponseCode::kServerFailure, ResponseCode::kBadVersion}) {
    written(dns::write_failure(inquiry, code), inquiry, dns::kPlainUdpBytes);
  }
}

void names(const Inquiry& inquiry) {
  const auto all = dns::spellings(inquiry.name, "shop", "cluster.local");
  require(!all.empty() && all.size() <= 8, "spellings are few", inquiry.name);
  require(std::ranges::find(all, inquiry.name) != all.end(), "a name is spelt as itself, too", inquiry.name);
  const auto known = dns::find_name(mesh(), {"shop", ""}, inquiry.name, "cluster.local");
  if (!known) return;
  require(inquiry.name.find('\\') == std::string::npos || known->service->hostname.starts_with("*."),
          "a name with odd bytes is none of the mesh's", inquiry.name);
}

}  // namespace

void one_input(std::string_view input) {
  const std::size_t length = std::min<std::size_t>(input.size(), std::size_t{take_byte(input)} * 2);
  const auto question = std::as_bytes(std::span(input.substr(0, length)));
  const auto rest = std::as_bytes(std::span(input.substr(std::min(length, input.size()))));
  const auto inquiry = dns::read_inquiry(question);
  if (!inquiry) {
    require_error(inquiry.error(), "DNS question");
    const auto refused = dns::write_format_error(question);
    require(refused.empty() == (question.size() < dns::kHeaderBytes), "what has a header can be refused");
    if (!refused.empty()) require(dns::id_of(refused) == dns::id_of(question), "a refusal has the question's number");
    return;
  }
  require(inquiry->udp_bytes >= dns::kPlainUdpBytes && inquiry->udp_bytes <= dns::kEdnsUdpBytes,
          "datagrams are limited");
  require(is_printable(inquiry->name), "a name is printable", inquiry->name);
  require(is_printable(dns::type_name(inquiry->type)), "a type has a name");
  answers(*inquiry);
  names(*inquiry);
  // The question itself, sent back.
  Bytes echo(question.begin(), question.end());
  require(!dns::is_answer_to(echo, *inquiry, inquiry->id), "a question is no answer");
  echo[2] |= std::byte{0x80};
  require(dns::is_answer_to(echo, *inquiry, inquiry->id), "the question alone is an answer");
  Bytes answer(rest.begin(), rest.end());
  dns::set_id(answer, inquiry->id);
  if (dns::is_answer_to(answer, *inquiry, inquiry->id)) {
    require(answer.size() >= dns::kHeaderBytes, "an answer has a header");
    dns::set_id(answer, static_cast<std::uint16_t>(inquiry->id + 1));
    require(!dns::is_answer_to(answer, *inquiry, inquiry->id), "an answer with another number is none");
  }
}

}  // namespace weft::fuzz
