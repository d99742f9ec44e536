// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/server_message.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "tunnel/state/names.h"

#include "tunnel/dns/ldns_owned.h"

namespace weft::dns {
namespace {

constexpr std::size_t kFlagsAt = 2, kQuestionsAt = 4;
constexpr std::uint16_t kAnswerFlag = 0x8000, kOpcode = 0x7800, kRecursionDesired = 0x0100,
                        kRecursionAvailable = 0x0080, kChecksDisabled = 0x0010, kResponseCode = 0x000f;
constexpr std::size_t kTypeAndClass = 4, kLabelMax = 63;

std::uint16_t word_at(std::span<const std::byte> message, std::size_t at) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(message[at]) << 8U |
                                    std::to_integer<unsigned>(message[at + 1]));
}

void put_word(std::span<std::byte> message, std::size_t at, std::uint16_t value) {
  message[at] = static_cast<std::byte>(value >> 8U);
  message[at + 1] = static_cast<std::byte>(value & 0xffU);
}

/// The length of the one question behind the header; 0 where its name is not written out to its end.
std::size_t question_bytes(std::span<const std::byte> message) {
  for (std::size_t at = kHeaderBytes; at < message.size();) {
    const auto label = std::to_integer<std::size_t>(message[at]);
    if (label > kLabelMax) return 0;
    at += label + 1;
    if (label != 0) continue;
    return at + kTypeAndClass <= message.size() ? at + kTypeAndClass - kHeaderBytes : 0;
  }
  return 0;
}

char small(std::byte b) { return static_cast<char>(std::tolower(std::to_integer<int>(b))); }

/// Names are the same in small and capital letters, types and classes are no letters.
bool same_question(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.size() != b.size() || a.size() < kTypeAndClass) return false;
  const auto name = a.size() - kTypeAndClass;
  return std::ranges::equal(a.first(name), b.first(name), {}, small, small) &&
         std::ranges::equal(a.subspan(name), b.subspan(name));
}

void take_edns(Inquiry& inquiry, const ldns_pkt& packet) {
  inquiry.has_edns = ldns_pkt_edns(&packet);
  if (!inquiry.has_edns) return;
  inquiry.edns_version = ldns_pkt_edns_version(&packet);
  inquiry.udp_bytes =
      std::clamp<std::size_t>(ldns_pkt_edns_udp_size(&packet), kPlainUdpBytes, std::size_t{kEdnsUdpBytes});
}

/// The header of an answer, and the question.
Owned<ldns_pkt> begin_answer(const Inquiry& inquiry, ResponseCode code) {
  Owned<ldns_pkt> packet(ldns_pkt_new());
  if (!packet) return packet;
  const auto number = static_cast<std::uint8_t>(code);
  ldns_pkt_set_id(packet.get(), inquiry.id);
  ldns_pkt_set_qr(packet.get(), 1);
  ldns_pkt_set_opcode(packet.get(), static_cast<ldns_pkt_opcode>((inquiry.flags & kOpcode) >> 11U));
  ldns_pkt_set_aa(packet.get(), code == ResponseCode::kNoError);
  ldns_pkt_set_rd(packet.get(), (inquiry.flags & kRecursionDesired) != 0);
  ldns_pkt_set_cd(packet.get(), (inquiry.flags & kChecksDisabled) != 0);
  ldns_pkt_set_ra(packet.get(), 1);
  ldns_pkt_set_rcode(packet.get(), number & kResponseCode);
  if (inquiry.has_edns) {
    ldns_pkt_set_edns_udp_size(packet.get(), kEdnsUdpBytes);
    ldns_pkt_set_edns_extended_rcode(packet.get(), number >> 4U);
  }
  std::size_t at = 0;
  ldns_rr* question = nullptr;
  // From the bytes that came, so that letters keep their case.
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(inquiry.question.data());
  if (ldns_wire2rr(&question, bytes, inquiry.question.size(), &at, LDNS_SECTION_QUESTION) != LDNS_STATUS_OK) return {};
  if (!ldns_pkt_push_rr(packet.get(), LDNS_SECTION_QUESTION, question)) {
    ldns_rr_free(question);
    return {};
  }
  return packet;
}

void add_address(ldns_pkt& packet, const ldns_rdf& owner, ldns_rr_type type, std::uint32_t ttl_seconds,
                 const IpAddress& address) {
  Owned<ldns_rr> record(ldns_rr_new());
  ldns_rdf* name = ldns_rdf_clone(&owner);
  ldns_rdf* data = ldns_rdf_new_frm_data(type == LDNS_RR_TYPE_A ? LDNS_RDF_TYPE_A : LDNS_RDF_TYPE_AAAA,
                                         address.bytes().size(), address.bytes().data());
  ldns_rr_set_owner(record.get(), name);
  ldns_rr_set_ttl(record.get(), ttl_seconds);
  ldns_rr_set_type(record.get(), type);
  ldns_rr_set_class(record.get(), LDNS_RR_CLASS_IN);
  ldns_rr_push_rdf(record.get(), data);
  if (ldns_pkt_push_rr(&packet, LDNS_SECTION_ANSWER, record.get())) static_cast<void>(record.release());
}

std::vector<std::byte> to_wire(const ldns_pkt* packet) {
  std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  if (packet == nullptr) return {};
  const ldns_status status = ldns_pkt2wire(&bytes, packet, &size);
  const Owned<std::uint8_t> owned(bytes);
  if (status != LDNS_STATUS_OK) return {};
  const auto view = std::as_bytes(std::span(bytes, size));
  return {view.begin(), view.end()};
}

Failure no_question(const std::string& why) { return fail(ErrorCode::kInvalid, "read a DNS question: " + why); }

}  // namespace

std::optional<RecordType> Inquiry::address_type() const {
  for (const auto one : {RecordType::kA, RecordType::kAaaa}) {
    if (type == static_cast<std::uint16_t>(one)) return one;
  }
  return {};
}

Result<Inquiry> read_inquiry(std::span<const std::byte> message) {
  if (message.size() < kHeaderBytes) {
    return fail(ErrorCode::kNotFound,
                "read a DNS question: " + std::to_string(message.size()) + " bytes are less than a header");
  }
  Inquiry inquiry;
  inquiry.id = id_of(message);
  inquiry.flags = word_at(message, kFlagsAt);
  if ((inquiry.flags & kAnswerFlag) != 0) return fail(ErrorCode::kNotFound, "read a DNS question: it is an answer");
  ldns_pkt* read = nullptr;
  const ldns_status status =
      ldns_wire2pkt(&read, reinterpret_cast<const std::uint8_t*>(message.data()), message.size());
  if (status != LDNS_STATUS_OK) return no_question(ldns_get_errorstr_by_id(status));
  const Owned<ldns_pkt> packet(read);
  const ldns_rr_list* questions = ldns_pkt_question(packet.get());
  const std::size_t count = ldns_rr_list_rr_count(questions);
  if (count != 1) return no_question("it has " + std::to_string(count) + " questions");
  const std::size_t length = question_bytes(message);
  if (length == 0) return no_question("its name is not written out");
  const ldns_rr* asked = ldns_rr_list_rr(questions, 0);
  inquiry.name = state::canonical_name(to_text(ldns_rr_owner(asked)));
  inquiry.type = static_cast<std::uint16_t>(ldns_rr_get_type(asked));
  inquiry.is_query = (inquiry.flags & kOpcode) == 0 && ldns_rr_get_class(asked) == LDNS_RR_CLASS_IN;
  const auto section = message.subspan(kHeaderBytes, length);
  inquiry.question.assign(section.begin(), section.end());
  take_edns(inquiry, *packet);
  return inquiry;
}

std::vector<std::byte> write_answer(const Inquiry& inquiry, std::span<const IpAddress> addresses,
                                    std::uint32_t ttl_seconds, std::size_t most) {
  const auto write = [&](bool truncated) {
    const auto packet = begin_answer(inquiry, ResponseCode::kNoError);
    if (!packet) return std::vector<std::byte>();
    ldns_pkt_set_tc(packet.get(), truncated);
    const auto type = static_cast<ldns_rr_type>(inquiry.type);
    const ldns_rdf* owner = ldns_rr_owner(ldns_rr_list_rr(ldns_pkt_question(packet.get()), 0));
    std::size_t taken = 0;
    for (const auto& address : addresses) {
      const bool fits = address.valid() && address.is_v4() == (type == LDNS_RR_TYPE_A);
      if (!truncated && fits && taken++ < kAnswersMax) add_address(*packet, *owner, type, ttl_seconds, address);
    }
    return to_wire(packet.get());
  };
  auto whole = write(false);
  return whole.size() <= most ? whole : write(true);
}

std::vector<std::byte> write_failure(const Inquiry& inquiry, ResponseCode code) {
  return to_wire(begin_answer(inquiry, code).get());
}

std::vector<std::byte> write_format_error(std::span<const std::byte> message) {
  std::vector<std::byte> out(kHeaderBytes);
  if (message.size() < kHeaderBytes) return {};
  std::ranges::copy(message.first(kFlagsAt), out.begin());
  const std::uint16_t kept = word_at(message, kFlagsAt) & (kOpcode | kRecursionDesired);
  put_word(out, kFlagsAt,
           static_cast<std::uint16_t>(kept | kAnswerFlag | kRecursionAvailable |
                                      static_cast<std::uint16_t>(ResponseCode::kFormatError)));
  return out;
}

bool is_answer_to(std::span<const std::byte> message, const Inquiry& inquiry, std::uint16_t id) {
  if (message.size() < kHeaderBytes || id_of(message) != id) return false;
  const std::uint16_t flags = word_at(message, kFlagsAt);
  if ((flags & kAnswerFlag) == 0 || (flags & kOpcode) != (inquiry.flags & kOpcode)) return false;
  const std::uint16_t questions = word_at(message, kQuestionsAt);
  // What a server could not read it does not repeat.
  if (questions == 0) return (flags & kResponseCode) != 0;
  const std::size_t length = question_bytes(message);
  return questions == 1 && length != 0 && same_question(message.subspan(kHeaderBytes, length), inquiry.question);
}

std::uint16_t id_of(std::span<const std::byte> message) { return message.size() < 2 ? 0 : word_at(message, 0); }

void set_id(std::span<std::byte> message, std::uint16_t id) {
  if (message.size() >= 2) put_word(message, 0, id);
}

const char* type_name(std::uint16_t type) {
  constexpr std::array<std::pair<std::uint16_t, const char*>, 14> kNames{{{1, "a"},
                                                                          {2, "ns"},
                                                                          {5, "cname"},
                                                                          {6, "soa"},
                                                                          {12, "ptr"},
                                                                          {15, "mx"},
                                                                          {16, "txt"},
                                                                          {28, "aaaa"},
                                                                          {33, "srv"},
                                                                          {35, "naptr"},
                                                                          {43, "ds"},
                                                                          {64, "svcb"},
                                                                          {65, "https"},
                                                                          {255, "any"}}};
  const auto* found = std::ranges::find(kNames, type, &std::pair<std::uint16_t, const char*>::first);
  return found == kNames.end() ? "other" : found->second;
}

}  // namespace weft::dns
