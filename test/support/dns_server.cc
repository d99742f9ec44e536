// SPDX-License-Identifier: Apache-2.0
#include "test/support/dns_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <span>

// After all others: it makes macros of true and false.
#include <ldns/ldns.h>
#undef true
#undef false

namespace weft::test {
namespace {

using Manner = DnsAnswer::Manner;

struct LdnsDelete {
  void operator()(ldns_pkt* packet) const { ldns_pkt_free(packet); }
};
using Packet = std::unique_ptr<ldns_pkt, LdnsDelete>;
using Bytes = std::vector<std::byte>;

Fd listening(const Endpoint& at, int type) {
  const auto address = at.to_sockaddr();
  Fd fd(::socket(address.storage.ss_family, type | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), address.get(), address.length) != 0) {
    throw TestError("DNS server: bind " + at.to_string() + " failed");
  }
  if (type == SOCK_STREAM && ::listen(fd.get(), 8) != 0) throw TestError("DNS server: listen failed");
  return fd;
}

std::uint16_t port_of(const Fd& fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return Endpoint::from_sockaddr(address).port;
}

Packet parse(const Bytes& bytes) {
  ldns_pkt* packet = nullptr;
  if (ldns_wire2pkt(&packet, reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()) != LDNS_STATUS_OK) {
    return nullptr;
  }
  return Packet(packet);
}

Bytes to_wire(const ldns_pkt& packet) {
  std::uint8_t* wire = nullptr;
  std::size_t size = 0;
  if (ldns_pkt2wire(&wire, &packet, &size) != LDNS_STATUS_OK)
    throw TestError("DNS server: an answer cannot be written");
  const auto view = std::as_bytes(std::span(wire, size));
  Bytes out(view.begin(), view.end());
  std::free(wire);
  return out;
}

/// An answer without records.
Packet empty_answer(const ldns_pkt& question) {
  Packet answer(ldns_pkt_new());
  ldns_pkt_set_id(answer.get(), ldns_pkt_id(&question));
  ldns_pkt_set_qr(answer.get(), 1);
  ldns_pkt_set_rd(answer.get(), 1);
  ldns_pkt_set_ra(answer.get(), 1);
  ldns_pkt_push_rr(answer.get(), LDNS_SECTION_QUESTION,
                   ldns_rr_clone(ldns_rr_list_rr(ldns_pkt_question(&question), 0)));
  return answer;
}

void add_records(ldns_pkt& answer, const std::vector<std::string>& records, ldns_rr_type type) {
  for (const auto& line : records) {
    ldns_rr* record = nullptr;
    if (ldns_rr_new_frm_str(&record, line.c_str(), 0, nullptr, nullptr) != LDNS_STATUS_OK) {
      std::abort();  // the test is wrong
    }
    if (ldns_rr_get_type(record) == type || ldns_rr_get_type(record) == LDNS_RR_TYPE_CNAME) {
      ldns_pkt_push_rr(&answer, LDNS_SECTION_ANSWER, record);
    } else {
      ldns_rr_free(record);
    }
  }
}

Bytes garbage() { return Bytes(40, std::byte{0xc1}); }

/// What looks right but for its id, and for its question.
std::vector<Bytes> lies(const ldns_pkt& question, const Bytes& right) {
  Bytes other_id = right;
  other_id[0] ^= std::byte{0xff};
  other_id.back() ^= std::byte{0xff};  // another address
  Packet other = empty_answer(question);
  ldns_rr* asked = ldns_rr_list_rr(ldns_pkt_question(other.get()), 0);
  ldns_rdf_deep_free(ldns_rr_owner(asked));
  ldns_rr_set_owner(asked, ldns_dname_new_frm_str("other.test."));
  return {garbage(), other_id, to_wire(*other)};
}

}  // namespace

DnsServer::DnsServer(const Endpoint& at, const Netns* netns) : stop_(::eventfd(0, EFD_CLOEXEC)) {
  const auto open = [&] {
    udp_ = listening(at, SOCK_DGRAM);
    port_ = port_of(udp_);
    tcp_ = listening({at.address, port_}, SOCK_STREAM);
  };
  if (netns != nullptr) {
    run_in(*netns, open);
  } else {
    open();
  }
  thread_ = std::thread([this] { serve(); });
}

DnsServer::~DnsServer() {
  ::eventfd_write(stop_.get(), 1);
  thread_.join();
}

void DnsServer::set(const std::string& name, DnsAnswer answer) {
  const std::scoped_lock lock(mutex_);
  names_[name] = std::move(answer);
}

int DnsServer::asked(const std::string& name) const {
  const std::scoped_lock lock(mutex_);
  return asked_[name];
}

void DnsServer::serve() {
  std::array<pollfd, 3> watched{pollfd{udp_.get(), POLLIN, 0}, {tcp_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  while (::poll(watched.data(), watched.size(), -1) > 0 && watched[2].revents == 0) {
    if (watched[0].revents != 0) on_datagram();
    if (watched[1].revents != 0) on_stream();
  }
}

void DnsServer::on_datagram() const {
  Bytes question(4096);
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  const auto got =
      ::recvfrom(udp_.get(), question.data(), question.size(), 0, reinterpret_cast<sockaddr*>(&from), &length);
  if (got < 0) return;
  question.resize(static_cast<std::size_t>(got));
  for (const auto& message : answers(question, false)) {
    ::sendto(udp_.get(), message.data(), message.size(), 0, reinterpret_cast<sockaddr*>(&from), length);
  }
}

void DnsServer::on_stream() const {
  const Fd fd(::accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const timeval patience{.tv_sec = 2, .tv_usec = 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  std::array<std::uint8_t, 2> size{};
  if (::recv(fd.get(), size.data(), size.size(), MSG_WAITALL) != 2) return;
  Bytes question((std::size_t{size[0]} << 8) | size[1]);
  if (::recv(fd.get(), question.data(), question.size(), MSG_WAITALL) != static_cast<ssize_t>(question.size())) return;
  for (const auto& message : answers(question, true)) ::send(fd.get(), message.data(), message.size(), MSG_NOSIGNAL);
}

std::vector<Bytes> DnsServer::answers(const Bytes& bytes, bool by_tcp) const {
  const Packet question = parse(bytes);
  if (!question || ldns_rr_list_rr_count(ldns_pkt_question(question.get())) != 1) return {};
  const ldns_rr* asked = ldns_rr_list_rr(ldns_pkt_question(question.get()), 0);
  char* text = ldns_rdf2str(ldns_rr_owner(asked));
  std::string name = text;
  std::free(text);
  name.pop_back();
  DnsAnswer told{{}, Manner::kNoName};
  {
    const std::scoped_lock lock(mutex_);
    ++asked_[name];
    if (const auto found = names_.find(name); found != names_.end()) told = found->second;
  }
  if (told.manner == Manner::kSilent) return {};
  if (told.manner == Manner::kOnlyV4 && ldns_rr_get_type(asked) == LDNS_RR_TYPE_AAAA) return {};
  if (told.manner == Manner::kGarbage) return {garbage()};
  const Packet answer = empty_answer(*question);
  if (told.manner == Manner::kNoName) ldns_pkt_set_rcode(answer.get(), LDNS_RCODE_NXDOMAIN);
  if (told.manner == Manner::kServerFailure) ldns_pkt_set_rcode(answer.get(), LDNS_RCODE_SERVFAIL);
  if (!by_tcp && (told.manner == Manner::kTruncated || told.manner == Manner::kBrokenStream)) {
    ldns_pkt_set_tc(answer.get(), 1);
  } else {
    add_records(*answer, told.records, ldns_rr_get_type(asked));
  }
  Bytes wire = to_wire(*answer);
  if (by_tcp) {
    wire.insert(wire.begin(), {static_cast<std::byte>(wire.size() >> 8), static_cast<std::byte>(wire.size() & 0xffU)});
    if (told.manner == Manner::kBrokenStream) wire.resize(wire.size() / 2);
    return {wire};
  }
  if (told.manner != Manner::kGarbageFirst) return {wire};
  auto out = lies(*question, wire);
  out.push_back(wire);
  return out;
}

}  // namespace weft::test
