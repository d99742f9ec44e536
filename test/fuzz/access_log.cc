// SPDX-License-Identifier: Apache-2.0
/// Access records of connections whose peers, policies and workloads are called anything: what reads the log must find
/// the same fields again, and no line that was never written. Each line of the input is a value.
#include "tunnel/telemetry/access_log.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using nlohmann::json;
using telemetry::ConnectionResult;

std::string value(std::string_view& input) { return std::string(take_line(input)); }

std::shared_ptr<const state::Workload> workload(std::string_view& input) {
  auto out = std::make_shared<state::Workload>();
  out->name = value(input);
  out->namespace_name = value(input);
  out->cluster_id = value(input);
  return out;
}

ConnectionResult result_of(std::string_view input) {
  const std::uint8_t form = take_byte(input);
  ConnectionResult r;
  r.reporter = (form & 1U) != 0 ? telemetry::Reporter::kDestination : telemetry::Reporter::kSource;
  r.source.endpoint = {IpAddress::parse("10.0.0.1").value(), 40000};
  r.destination.endpoint = {IpAddress::parse("2001:db8::2").value(), 80};
  if ((form & 2U) != 0) r.hbone = {IpAddress::parse("10.0.0.2").value(), 15008};
  r.flag = static_cast<telemetry::ResponseFlag>(form >> 4U & 7U);
  r.ended = r.started + milliseconds(form);
  // What is set by peers comes first.
  r.traceparent = value(input);
  r.error = value(input);
  r.source.identity = state::Identity{value(input), value(input), value(input)};
  if ((form & 4U) != 0) r.source.workload = workload(input);
  if ((form & 8U) != 0)
    r.decision = telemetry::PolicyDecision{(form & 16U) != 0, value(input), {value(input), value(input)}};
  auto service = std::make_shared<state::Service>();
  service->hostname = value(input);
  r.service = service;
  r.destination.workload = workload(input);
  return r;
}

/// What `log::quote` has written, read back; the rest of the line stays in `rest`.
std::string unquoted(std::string_view& rest) {
  std::string out;
  rest.remove_prefix(1);
  while (!rest.empty() && rest.front() != '"') {
    char c = rest.front();
    if (c == '\\') {
      require(rest.size() >= 2, "an escape is whole");
      rest.remove_prefix(1);
      c = rest.front();
      if (c == 'n') c = '\n';
      if (c == 'u') {
        require(rest.size() >= 5, "an escape is whole");
        c = static_cast<char>(std::stoi(std::string(rest.substr(1, 4)), nullptr, 16));
        rest.remove_prefix(4);
      }
    }
    out += c;
    rest.remove_prefix(1);
  }
  require(rest.starts_with('"'), "a quote is closed");
  rest.remove_prefix(1);
  return out;
}

std::map<std::string, std::string> fields_of_line(std::string_view line) {
  std::map<std::string, std::string> fields;
  constexpr std::string_view kMessage = "connection complete";
  require(line.starts_with(kMessage), "a line says what it is", line);
  std::string_view rest = line.substr(kMessage.size());
  while (!rest.empty()) {
    const auto equals = rest.find('=');
    require(rest.starts_with(' ') && equals != std::string_view::npos, "a line is made of key=value", line);
    const std::string key(rest.substr(1, equals - 1));
    require(key.find_first_not_of("abcdefghijklmnopqrstuvwxyz._") == std::string::npos, "a key is one of ours", line);
    rest.remove_prefix(equals + 1);
    std::string found;
    if (rest.starts_with('"')) {
      found = unquoted(rest);
    } else {
      found = rest.substr(0, rest.find(' '));
      rest.remove_prefix(found.size());
    }
    require(fields.emplace(key, found).second, "a key occurs once", line);
  }
  return fields;
}

/// Bytes that are no ASCII stand for the code point of their number.
std::string latin1(const std::string& utf8) {
  std::string out;
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto byte = static_cast<unsigned char>(utf8[i]);
    out += byte < 0x80 ? utf8[i] : static_cast<char>((byte & 3U) << 6U | (static_cast<unsigned char>(utf8[++i]) & 63U));
  }
  return out;
}

std::map<std::string, std::string> fields_of_json(const std::string& text) {
  std::map<std::string, std::string> fields;
  const json object = json::parse(text, nullptr, false);
  require(object.is_object(), "a record is a JSON object", text);
  require(std::ranges::count(text, '\n') == 0, "a record is one line", text);
  for (const auto& [key, member] : object.items()) {
    if (key == "message") continue;
    std::string& into = fields[key];
    if (member.is_array()) {
      for (const auto& one : member) into += (into.empty() ? "" : ",") + latin1(one.get<std::string>());
    } else {
      into = member.is_string() ? latin1(member.get<std::string>()) : member.dump();
    }
  }
  return fields;
}

}  // namespace

void one_input(std::string_view input) {
  const ConnectionResult result = result_of(input);
  const std::string line = telemetry::access_line(result);
  require(std::ranges::none_of(line, [](unsigned char c) { return c < ' '; }), "a record is one line", line);
  require(line.size() <= 6 * input.size() + 1000, "a record stays in proportion", line);
  const auto fields = fields_of_line(line);
  require(fields_of_json(telemetry::access_json(result)) == fields, "both formats say the same", line);
  const auto said = [&](const char* key, const std::string& wanted) {
    const auto found = fields.find(key);
    require(wanted.empty() ? found == fields.end() : found != fields.end() && found->second == wanted,
            "a field is what it was", line);
  };
  said("traceparent", result.traceparent);
  said("error", result.error);
  said("src.identity", result.source.identity->to_uri());
  said("dst.service", result.service->hostname);
  said("dst.namespace", result.destination.workload->namespace_name);
}

}  // namespace weft::fuzz
