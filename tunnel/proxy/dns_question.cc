// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/dns_question.h"

#include <algorithm>

#include "tunnel/dns/directory.h"

namespace weft::proxy {
namespace {

using Kind = DnsVerdict::Kind;

/// Those of the type, in an order that changes from answer to answer: clients take the first.
std::vector<IpAddress> in_turn(std::vector<IpAddress> addresses, dns::RecordType type, std::uint64_t random) {
  std::erase_if(addresses, [&](const IpAddress& a) { return a.is_v4() != (type == dns::RecordType::kA); });
  if (addresses.empty()) return addresses;
  const auto first = static_cast<std::ptrdiff_t>(random % addresses.size());
  std::rotate(addresses.begin(), addresses.begin() + first, addresses.end());
  return addresses;
}

std::vector<std::byte> answer_from_mesh(WorkerContext& worker, const PodContext& pod, const state::Workload* own,
                                        const dns::Inquiry& inquiry, std::size_t most) {
  const auto type = inquiry.address_type();
  if (!inquiry.is_query || !type) return {};
  const dns::Client client{pod.namespace_name, own != nullptr ? own->network : worker.config.network};
  auto known = dns::find_name(*worker.state, client, inquiry.name, worker.config.cluster_domain);
  if (!known) return {};
  if (inquiry.edns_version != 0) return dns::write_failure(inquiry, dns::ResponseCode::kBadVersion);
  return dns::write_answer(inquiry, in_turn(std::move(known->addresses), *type, worker.random()), kDnsTtlSeconds, most);
}

}  // namespace

DnsVerdict judge_question(WorkerContext& worker, const PodContext& pod, std::span<const std::byte> message,
                          DnsTransport transport) {
  DnsVerdict verdict;
  auto inquiry = dns::read_inquiry(message);
  if (!inquiry) {
    if (inquiry.error().code == ErrorCode::kNotFound) return verdict;
    verdict.kind = Kind::kAnswer;
    verdict.answer = dns::write_format_error(message);
    return verdict;
  }
  verdict.inquiry = std::move(*inquiry);
  const auto own = worker.state->workload_by_uid(pod.workload_uid);
  const bool by_udp = transport == DnsTransport::kUdp;
  verdict.metrics =
      &worker.dns_metrics->handle(own.get(), dns::type_name(verdict.inquiry.type), by_udp ? "udp" : "tcp");
  telemetry::DnsMetrics::requested(*verdict.metrics);
  const std::size_t most = by_udp ? verdict.inquiry.udp_bytes : dns::kStreamBytes;
  verdict.answer = answer_from_mesh(worker, pod, own.get(), verdict.inquiry, most);
  verdict.kind = verdict.answer.empty() ? Kind::kForward : Kind::kAnswer;
  return verdict;
}

}  // namespace weft::proxy
