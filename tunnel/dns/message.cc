// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/message.h"

#include <sys/random.h>

#include <algorithm>

#include "tunnel/dns/ldns_owned.h"

namespace weft::dns {
namespace {

ldns_rr_type to_ldns(RecordType type) { return type == RecordType::kA ? LDNS_RR_TYPE_A : LDNS_RR_TYPE_AAAA; }

/// Null where it is none. ldns would take what stands before a NUL for the whole.
Owned<ldns_rdf> parse_name(const std::string& name) {
  if (name.find('\0') != std::string::npos) return nullptr;
  return Owned<ldns_rdf>(ldns_dname_new_frm_str(name.c_str()));
}

std::string rcode_name(ldns_pkt_rcode rcode) {
  const Owned<char> text(ldns_pkt_rcode2str(rcode));
  return text ? text.get() : "rcode " + std::to_string(rcode);
}

bool is_answer_to(const ldns_pkt& packet, const Question& question, const ldns_rdf& name) {
  if (!ldns_pkt_qr(&packet) || ldns_pkt_id(&packet) != question.id) return false;
  const ldns_rr_list* asked = ldns_pkt_question(&packet);
  if (asked == nullptr || ldns_rr_list_rr_count(asked) != 1) return false;
  const ldns_rr* record = ldns_rr_list_rr(asked, 0);
  return ldns_rr_get_type(record) == to_ldns(question.type) && ldns_rr_get_class(record) == LDNS_RR_CLASS_IN &&
         ldns_dname_compare(ldns_rr_owner(record), &name) == 0;
}

/// The answer section of one message.
class Records {
 public:
  explicit Records(const ldns_rr_list& list) : list_(list) {}

  template <class Visit>
  void each(const ldns_rdf& owner, ldns_rr_type type, const Visit& visit) const {
    for (std::size_t i = 0; i < ldns_rr_list_rr_count(&list_); ++i) {
      const ldns_rr* record = ldns_rr_list_rr(&list_, i);
      if (ldns_rr_get_type(record) != type || ldns_rr_get_class(record) != LDNS_RR_CLASS_IN) continue;
      if (ldns_rr_rd_count(record) == 0 || ldns_dname_compare(ldns_rr_owner(record), &owner) != 0) continue;
      visit(*ldns_rr_rdf(record, 0), std::chrono::seconds(ldns_rr_ttl(record)));
    }
  }

 private:
  const ldns_rr_list& list_;
};

/// Follows the aliases of one message to their end, and takes the addresses there. `is_complete`: where they end in
/// none, there are none.
Reply read_records(const Records& records, const ldns_rdf& asked, RecordType type, bool is_complete) {
  Reply reply;
  reply.ttl = std::chrono::seconds::max();
  const ldns_rdf* at = &asked;
  for (; reply.aliases <= kAliasesMax; ++reply.aliases) {
    records.each(*at, to_ldns(type), [&](const ldns_rdf& data, std::chrono::seconds ttl) {
      const auto address = IpAddress::from_bytes(std::as_bytes(std::span(ldns_rdf_data(&data), ldns_rdf_size(&data))));
      if (!address.valid() || reply.addresses.size() >= kAddressesMax) return;
      reply.addresses.push_back(address);
      reply.ttl = std::min(reply.ttl, ttl);
    });
    if (!reply.addresses.empty()) break;
    const ldns_rdf* target = nullptr;
    std::chrono::seconds target_ttl{0};
    records.each(*at, LDNS_RR_TYPE_CNAME, [&](const ldns_rdf& data, std::chrono::seconds ttl) {
      target = &data;
      target_ttl = ttl;
    });
    if (target == nullptr) break;
    at = target;
    reply.ttl = std::min(reply.ttl, target_ttl);
  }
  if (!reply.addresses.empty()) {
    reply.kind = Reply::Kind::kAddresses;
  } else if (reply.aliases > 0 && !is_complete) {
    reply.kind = Reply::Kind::kAlias;
    reply.alias = to_text(at);
  } else {
    reply.kind = Reply::Kind::kNoAddress;
  }
  return reply;
}

Failure no_message(const std::string& why) { return fail(ErrorCode::kInvalid, "read a DNS message: " + why); }

}  // namespace

std::uint16_t random_id() {
  std::uint16_t id = 0;
  // Two bytes are never refused once the kernel has started.
  if (::getrandom(&id, sizeof id, 0) != sizeof id) return 0;
  return id;
}

Result<std::vector<std::byte>> encode(const Question& question) {
  auto name = parse_name(question.name);
  if (!name) return fail(ErrorCode::kInvalid, in_quotes(question.name) + " is no name that DNS could know");
  const Owned<ldns_pkt> packet(
      ldns_pkt_query_new(name.get(), to_ldns(question.type), LDNS_RR_CLASS_IN, static_cast<std::uint16_t>(LDNS_RD)));
  if (!packet) return fail(ErrorCode::kInternal, "make a DNS question for " + excerpt(question.name));
  static_cast<void>(name.release());  // the packet has it
  ldns_pkt_set_id(packet.get(), question.id);
  std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  const ldns_status status = ldns_pkt2wire(&bytes, packet.get(), &size);
  const Owned<std::uint8_t> owned(bytes);
  if (status != LDNS_STATUS_OK) {
    return fail(ErrorCode::kInvalid,
                "write a DNS question for " + excerpt(question.name) + ": " + ldns_get_errorstr_by_id(status));
  }
  const auto view = std::as_bytes(std::span(bytes, size));
  return std::vector<std::byte>(view.begin(), view.end());
}

Result<Reply> decode(std::span<const std::byte> message, const Question& question) {
  const auto name = parse_name(question.name);
  if (!name) return no_message(in_quotes(question.name) + " is no name");
  ldns_pkt* read = nullptr;
  const ldns_status status =
      ldns_wire2pkt(&read, reinterpret_cast<const std::uint8_t*>(message.data()), message.size());
  if (status != LDNS_STATUS_OK) return no_message(ldns_get_errorstr_by_id(status));
  const Owned<ldns_pkt> packet(read);
  if (!is_answer_to(*packet, question, *name)) return no_message("it is no answer to the question asked");
  Reply reply;
  const ldns_pkt_rcode rcode = ldns_pkt_get_rcode(packet.get());
  if (ldns_pkt_tc(packet.get())) {
    reply.kind = Reply::Kind::kTruncated;
  } else if (rcode == LDNS_RCODE_NXDOMAIN) {
    reply.kind = Reply::Kind::kNoName;
  } else if (rcode != LDNS_RCODE_NOERROR) {
    reply.kind = Reply::Kind::kFailure;
    reply.rcode = rcode_name(rcode);
  } else {
    // RFC 2308: with the zone's SOA it is the whole answer.
    const ldns_rr_list* authority = ldns_pkt_authority(packet.get());
    bool has_soa = false;
    for (std::size_t i = 0; i < ldns_rr_list_rr_count(authority); ++i) {
      has_soa = has_soa || ldns_rr_get_type(ldns_rr_list_rr(authority, i)) == LDNS_RR_TYPE_SOA;
    }
    reply = read_records(Records(*ldns_pkt_answer(packet.get())), *name, question.type, has_soa);
  }
  return reply;
}

}  // namespace weft::dns
