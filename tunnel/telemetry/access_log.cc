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
  enum class Kind : std::uint8_t { kText, kNumber, kList } kind = Kind::kText;
  const char* name;
  std::string value;                               ///< of a text or a number
  const std::vector<std::string>* list = nullptr;  ///< of a list, which is not empty
};

/// Collects the fields that have a value.
class Fields {
 public:
  void text(const char* name, std::string value) {
    if (!value.empty()) fields_.push_back({Field::Kind::kText, name, std::move(value)});
  }
  void number(const char* name, std::uint64_t value) {
    fields_.push_back({Field::Kind::kNumber, name, std::to_string(value)});
  }
  /// Borrows it.
  void list(const char* name, const std::vector<std::string>& values) {
    if (!values.empty()) fields_.push_back({Field::Kind::kList, name, "", &values});
  }
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

/// The rule where it is a policy, and what else denied; "none" says nothing.
void add_decision(Fields& fields, const PolicyDecision& decision) {
  if (!decision.allowed || decision.rule.find('/') != std::string::npos) fields.text("policy", decision.rule);
  fields.list("dry_run", decision.dry_run_hits);
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
  if (result.decision) add_decision(out, *result.decision);
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

std::string joined(const std::vector<std::string>& values) {
  std::string out;
  for (const auto& value : values) out += (out.empty() ? "" : ",") + value;
  return out;
}

std::string json_value(const Field& field) {
  if (field.kind == Field::Kind::kNumber) return field.value;
  if (field.kind == Field::Kind::kText) return json_string(field.value);
  std::string out;
  for (const auto& value : *field.list) out += (out.empty() ? "[" : ",") + json_string(value);
  return out + ']';
}

constexpr std::string_view kMessage = "connection complete";

/// The members of the JSON object.
std::string json_members(const ConnectionResult& result) {
  std::string out = "\"message\":" + json_string(kMessage);
  const Fields fields = fields_of(result);
  for (const auto& field : fields.all()) {
    out += ",\"";
    out += field.name;
    out += "\":" + json_value(field);
  }
  return out;
}

}  // namespace

std::string access_line(const ConnectionResult& result) {
  std::string line(kMessage);
  const Fields fields = fields_of(result);
  for (const auto& field : fields.all()) {
    const std::string value = field.list != nullptr ? joined(*field.list) : field.value;
    line += ' ';
    line += field.name;
    line += '=';
    line += is_plain(value) ? value : log::quote(value);
  }
  return line;
}

std::string access_json(const ConnectionResult& result) { return '{' + json_members(result) + '}'; }

void log_access(const ConnectionResult& result) {
  const bool well = result.error.empty() && result.flag == ResponseFlag::kNone;
  const auto severity = well ? log::Severity::kInfo : log::Severity::kWarn;
  if (!log::enabled(severity)) return;
  if (log::format() == log::Format::kJson) return log::write_members(severity, json_members(result));
  const std::string line = access_line(result);
  if (well) {
    log::info("{}", line);
  } else {
    log::warn("{}", line);
  }
}

}  // namespace weft::telemetry
