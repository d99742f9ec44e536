// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/access_log.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include "tunnel/base/log.h"

namespace weft::telemetry {
namespace {

struct Field {
  const char* name;
  std::string value;
  bool is_number = false;
};

/// Collects the fields that have a value.
class Fields {
 public:
  void text(const char* name, std::string value) {
    if (!value.empty()) fields_.push_back({name, std::move(value)});
  }
  void number(const char* name, std::uint64_t value) { fields_.push_back({name, std::to_string(value), true}); }
  [[nodiscard]] const std::vector<Field>& all() const { return fields_; }

 private:
  std::vector<Field> fields_;
};

void add_party(Fields& fields, const char* const (&names)[4], const Party& party) {
  const auto* workload = party.workload.get();
  fields.text(names[0], workload == nullptr ? "" : !workload->name.empty() ? workload->name : workload->canonical_name);
  fields.text(names[1], workload != nullptr ? workload->namespace_name
                        : party.identity    ? party.identity->namespace_name
                                            : "");
  fields.text(names[2], party.identity ? party.identity->to_uri() : "");
  fields.text(names[3], workload != nullptr ? workload->cluster_id : "");
}

std::string address(const Endpoint& endpoint) { return endpoint.address.valid() ? endpoint.to_string() : ""; }

Fields fields_of(const ConnectionResult& result) {
  const bool outbound = result.reporter == Reporter::kSource;
  const bool tunnelled = result.hbone.address.valid();
  Fields out;
  out.text("src.addr", address(result.source.endpoint));
  add_party(out, {"src.workload", "src.namespace", "src.identity", "src.cluster"}, result.source);
  out.text("dst.addr", address(tunnelled ? result.hbone : result.destination.endpoint));
  if (tunnelled) out.text("dst.hbone_addr", address(result.destination.endpoint));
  out.text("dst.service", result.service ? result.service->hostname : "");
  add_party(out, {"dst.workload", "dst.namespace", "dst.identity", "dst.cluster"}, result.destination);
  out.text("direction", outbound ? "outbound" : "inbound");
  out.number("bytes_sent", outbound ? result.bytes_sent : result.bytes_received);
  out.number("bytes_recv", outbound ? result.bytes_received : result.bytes_sent);
  const auto lasted = std::chrono::duration_cast<milliseconds>(result.ended - result.started).count();
  out.text("duration", std::to_string(std::max<std::int64_t>(lasted, 0)) + "ms");
  if (result.flag != ResponseFlag::kNone) out.text("response_flags", to_string(result.flag));
  out.text("policy", result.policy);
  out.text("traceparent", result.traceparent);
  out.text("error", result.error);
  return out;
}

/// Whether a value can stand behind `key=` as it is. Peers have a say in some of them.
bool is_plain(std::string_view value) {
  return std::ranges::all_of(value,
                             [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '"' && c != '=' && c != '\\'; });
}

/// As a JSON string in ASCII: bytes above it are escaped one by one, since nobody vouches for their being UTF-8.
std::string json_string(std::string_view value) {
  const std::string quoted = log::quote(value);
  std::string out;
  out.reserve(quoted.size());
  for (const char c : quoted) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x7f) {
      out += c;
    } else {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(byte));
      out += escaped;
    }
  }
  return out;
}

}  // namespace

std::string access_line(const ConnectionResult& result) {
  std::string line = "connection complete";
  const Fields fields = fields_of(result);
  for (const auto& field : fields.all()) {
    line += ' ';
    line += field.name;
    line += '=';
    line += is_plain(field.value) ? field.value : log::quote(field.value);
  }
  return line;
}

std::string access_json(const ConnectionResult& result) {
  std::string out = "{";
  const Fields fields = fields_of(result);
  for (const auto& field : fields.all()) {
    if (out.size() > 1) out += ',';
    out += '"';
    out += field.name;
    out += "\":";
    out += field.is_number ? field.value : json_string(field.value);
  }
  return out + '}';
}

void log_access(const ConnectionResult& result) {
  const bool well = result.error.empty() && result.flag == ResponseFlag::kNone;
  if (!log::enabled(well ? log::Severity::kInfo : log::Severity::kWarn)) return;
  const std::string line = access_line(result);
  if (well) {
    log::info("{}", line);
  } else {
    log::warn("{}", line);
  }
}

}  // namespace weft::telemetry
