// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/event_dump.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <string>

#include "agent/admin/certificate_dump.h"
#include "tunnel/base/rfc3339.h"

namespace weft::admin {
namespace {

using nlohmann::json;

std::string rfc3339_us(WallTime time) {
  constexpr long kUsPerSecond = 1'000'000;
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(time - whole).count();
  std::string text = rfc3339(whole);
  text.pop_back();  // the Z
  return text + "." + std::to_string(kUsPerSecond + us).substr(1) + "Z";
}

std::string protocol_name(std::uint8_t protocol) {
  switch (protocol) {
    case 0:
      return "";
    case IPPROTO_TCP:
      return "TCP";
    case IPPROTO_UDP:
      return "UDP";
    case IPPROTO_ICMP:
      return "ICMP";
    case IPPROTO_ICMPV6:
      return "ICMPv6";
    case IPPROTO_SCTP:
      return "SCTP";
    default:
      return std::to_string(protocol);
  }
}

std::string flag_names(std::uint8_t flags) {
  static constexpr std::array kNames{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"};
  std::string text;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if ((flags >> i & 1U) != 0) text += (text.empty() ? "" : ",") + std::string(kNames[i]);
  }
  return text;
}

std::string end_of(const Endpoint& end) {
  if (!end.address.valid()) return "";
  return end.port != 0 ? end.to_string() : end.address.to_string();
}

json to_json(const agent::LoggedEvent& logged) {
  const bpf::Event& e = logged.event;
  return {{"sequence", logged.sequence},
          {"time", rfc3339_us(logged.time)},
          {"pod", logged.pod},
          {"program", e.program},
          {"verdict", e.verdict},
          {"reason", e.reason},
          {"source", end_of(e.source)},
          {"destination", end_of(e.destination)},
          {"protocol", protocol_name(e.protocol)},
          {"tcpFlags", flag_names(e.tcp_flags)}};
}

/// The number of a query's parameter; false where it is none.
bool read_number(const HttpRequest& request, const char* name, std::optional<std::uint64_t>& number) {
  const auto found = request.query.find(name);
  if (found == request.query.end()) return true;
  const std::string& text = found->second;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  number = value;
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

json to_json(const agent::EventAnswer& answer) {
  json list = json::array();
  for (const auto& event : answer.events) list.push_back(to_json(event));
  return {{"next", answer.next}, {"lost", answer.lost}, {"events", std::move(list)}};
}

HttpResponse events_response(const HttpRequest& request, const EventFunction& events) {
  agent::EventQuery query;
  std::optional<std::uint64_t> wait_ms;
  if (!read_number(request, "after", query.after) || !read_number(request, "wait_ms", wait_ms)) {
    return HttpResponse::text(400, "after and wait_ms are numbers");
  }
  const auto longest = static_cast<std::uint64_t>(agent::EventLog::kMaxWait.count());
  query.wait = milliseconds(std::min(wait_ms.value_or(0), longest));
  auto answer = events(query);
  if (!answer) {
    const ErrorCode code = answer.error().code;
    const int status = code == ErrorCode::kUnavailable ? 503 : code == ErrorCode::kDenied ? 429 : 500;
    return HttpResponse::text(status, answer.error().message());
  }
  return HttpResponse::json(to_json(*answer).dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace weft::admin
