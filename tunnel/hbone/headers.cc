// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/headers.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

namespace weft::hbone {
namespace {

constexpr std::size_t kMaxHeaderBytes = 8192;  // W3C baggage: what every reader must take at least
constexpr int kMaxMembers = 64;
constexpr std::size_t kMaxValueBytes = 256;
constexpr std::size_t kMaxHostBytes = 253;  // RFC 1035, without the trailing dot
constexpr std::size_t kMaxLabelBytes = 63;
constexpr std::array<std::string_view, 4> kWorkloadTypes = {"deployment", "cronjob", "pod", "job"};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); }
bool is_alphanumeric(char c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// Takes the part before the next `separator` off the front of `rest`.
std::string_view next_part(std::string_view& rest, char separator) {
  const auto end = std::min(rest.find(separator), rest.size());
  const auto part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

/// W3C baggage-octet without '%', which encodes the others.
bool stands_for_itself(char c) {
  return c > ' ' && c <= '~' && c != '"' && c != ',' && c != ';' && c != '\\' && c != '%';
}

std::string percent_encode(std::string_view value) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : value) {
    if (stands_for_itself(c)) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
    }
  }
  return out;
}

/// The value decoded and fit for logs and metric labels; empty where it is malformed, too long or not printable ASCII.
std::string percent_decode(std::string_view value) {
  std::string out;
  for (std::size_t i = 0; i < value.size(); ++i) {
    char c = value[i];
    if (c == '%') {
      unsigned byte = 0;
      const auto* hex = value.data() + i + 1;
      if (i + 2 >= value.size() || std::from_chars(hex, hex + 2, byte, 16).ptr != hex + 2) return {};
      c = static_cast<char>(byte);
      i += 2;
    }
    if (c < ' ' || c > '~' || out.size() == kMaxValueBytes) return {};
    out += c;
  }
  return out;
}

void add_member(std::string& out, std::string_view key, std::string_view value) {
  if (value.empty()) return;
  if (!out.empty()) out += ',';
  out.append(key).append("=").append(percent_encode(value));
}

/// "k8s.pod.name" to "pod"; empty for any other key.
std::string_view workload_type_of(std::string_view key) {
  if (!key.starts_with("k8s.") || !key.ends_with(".name")) return {};
  key.remove_prefix(4);
  key.remove_suffix(5);
  return std::ranges::find(kWorkloadTypes, key) == kWorkloadTypes.end() ? std::string_view() : key;
}

void set_member(PeerDescription& out, std::string_view key, std::string value) {
  if (value.empty()) return;
  if (key == "k8s.cluster.name")
    out.cluster = std::move(value);
  else if (key == "k8s.namespace.name")
    out.namespace_name = std::move(value);
  else if (key == "service.name")
    out.canonical_name = std::move(value);
  else if (key == "service.version")
    out.canonical_revision = std::move(value);
  else if (key == "cloud.region")
    out.region = std::move(value);
  else if (key == "cloud.availability_zone")
    out.zone = std::move(value);
  else if (const auto type = workload_type_of(key); !type.empty()) {
    out.workload_name = std::move(value);
    out.workload_type = type;
  }
}

bool is_token(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return is_alphanumeric(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

/// RFC 7230 quoted-string; bytes that cannot stand in a header at all are left out.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (c >= ' ' && c <= '~') out += c;
  }
  return out + '"';
}

/// A forwarded-pair's value at the front of `rest`, unquoted; the value is taken off. Empty where a quote is not
/// closed.
std::string take_value(std::string_view& rest) {
  std::string out;
  if (!rest.starts_with('"')) {
    const auto end = std::min(rest.find_first_of(";, \t"), rest.size());
    out = rest.substr(0, end);
    rest.remove_prefix(end);
    return out;
  }
  rest.remove_prefix(1);
  while (!rest.empty() && rest.front() != '"') {
    if (rest.front() == '\\') rest.remove_prefix(1);
    if (!rest.empty()) out += rest.front();
    rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
  }
  if (rest.empty()) return {};  // the closing quote is missing
  rest.remove_prefix(1);
  return out;
}

/// The value of the first pair with this name in a `forwarded` header.
std::optional<std::string> forwarded_value(std::string_view header, std::string_view wanted) {
  if (header.size() > kMaxHeaderBytes) return std::nullopt;
  std::string_view rest = header;
  while (!rest.empty()) {
    const auto equals = rest.find_first_of("=,;");
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = trim(rest.substr(0, equals));
    const bool has_value = rest[equals] == '=';
    rest.remove_prefix(equals + 1);
    if (!has_value) continue;
    std::string value = take_value(rest);
    if (equals_ignoring_case(name, wanted)) return value;
    const auto next = rest.find_first_of(",;");
    rest.remove_prefix(next == std::string_view::npos ? rest.size() : next + 1);
  }
  return std::nullopt;
}

bool all_zero(std::string_view hex) { return hex.find_first_not_of('0') == std::string_view::npos; }

/// VERSION-TRACE-PARENT-FLAGS of 2, 32, 16 and 2 lower-case hex digits, neither id all zero (W3C trace context, 3.2).
bool is_traceparent(std::string_view text) {
  constexpr std::size_t kLength = 55;
  if (text.size() != kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const auto version = text.substr(0, 2), trace = text.substr(3, 32), parent = text.substr(36, 16),
             flags = text.substr(53);
  for (const auto part : {version, trace, parent, flags}) {
    if (!std::ranges::all_of(part, is_lower_hex)) return false;
  }
  return version == "00" && !all_zero(trace) && !all_zero(parent);
}

bool is_label(std::string_view label) {
  return !label.empty() && label.size() <= kMaxLabelBytes && label.front() != '-' && label.back() != '-' &&
         std::ranges::all_of(label, [](char c) { return is_alphanumeric(c) || c == '-' || c == '_'; });
}

/// A DNS name without a trailing dot. One whose last label is a number ("127.1", "0x7f.1") is an address to some
/// resolvers and is no name.
bool is_hostname(std::string_view host) {
  if (host.empty() || host.size() > kMaxHostBytes || host.back() == '.') return false;
  std::string_view rest = host, label;
  while (!rest.empty()) {
    label = next_part(rest, '.');
    if (!is_label(label)) return false;
  }
  const bool hex_number = label.size() >= 2 && label[0] == '0' && lower(label[1]) == 'x';
  return !hex_number && !std::ranges::all_of(label, is_digit);
}

/// 1 to 65535 in decimal without sign or leading zero; 0 for anything else.
std::uint16_t parse_port(std::string_view text) {
  std::uint16_t port = 0;
  if (text.empty() || text.size() > 5 || text.front() == '0' || !std::ranges::all_of(text, is_digit)) return 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() ? port : std::uint16_t{0};
}

Failure bad_authority(std::string_view text, std::string_view why) {
  return fail(ErrorCode::kInvalid, "authority '" + excerpt(text) + "': " + std::string(why));
}

}  // namespace

std::string baggage(const state::Workload& workload) {
  std::string out;
  add_member(out, "k8s.cluster.name", workload.cluster_id);
  add_member(out, "k8s.namespace.name", workload.namespace_name);
  const auto* type = std::ranges::find_if(
      kWorkloadTypes, [&](std::string_view known) { return equals_ignoring_case(known, workload.workload_type); });
  if (type != kWorkloadTypes.end()) add_member(out, "k8s." + std::string(*type) + ".name", workload.workload_name);
  add_member(out, "service.name", workload.canonical_name);
  add_member(out, "service.version", workload.canonical_revision);
  add_member(out, "cloud.region", workload.locality.region);
  add_member(out, "cloud.availability_zone", workload.locality.zone);
  return out;
}

PeerDescription parse_baggage(std::string_view header) {
  PeerDescription out;
  std::string_view rest = header.substr(0, kMaxHeaderBytes);
  for (int i = 0; i < kMaxMembers && !rest.empty(); ++i) {
    std::string_view member = next_part(rest, ',');
    member = next_part(member, ';');  // properties are of no use here
    const std::string_view key = trim(next_part(member, '='));
    set_member(out, key, percent_decode(trim(member)));
  }
  return out;
}

std::string forwarded(const Endpoint& source, std::string_view service_hostname) {
  std::string out = "for=\"" + source.to_string() + '"';
  if (service_hostname.empty()) return out;
  return out + ";host=" + (is_token(service_hostname) ? std::string(service_hostname) : quoted(service_hostname));
}

std::optional<Endpoint> parse_forwarded(std::string_view header) {
  const auto value = forwarded_value(header, "for");
  if (!value) return std::nullopt;
  const auto endpoint = Endpoint::parse(*value);
  return endpoint && endpoint->port != 0 ? std::optional(*endpoint) : std::nullopt;
}

std::string forwarded_host(std::string_view header) { return forwarded_value(header, "host").value_or(""); }

std::string traceparent(std::string_view header, std::uint64_t random_high, std::uint64_t random_low) {
  if (is_traceparent(header)) return std::string(header);
  if (random_high == 0 && random_low == 0) random_low = 1;  // all zero means "invalid"
  std::uint64_t parent = random_high ^ (random_low * 0x9e3779b97f4a7c15ULL);
  if (parent == 0) parent = 1;
  std::array<char, 56> text{};
  std::snprintf(text.data(), text.size(), "00-%016llx%016llx-%016llx-00", static_cast<unsigned long long>(random_high),
                static_cast<unsigned long long>(random_low), static_cast<unsigned long long>(parent));
  return text.data();
}

Result<Authority> parse_authority(std::string_view text) {
  constexpr std::size_t kMaxPortBytes = 6;
  if (text.size() > kMaxHostBytes + kMaxPortBytes) return bad_authority(text, "too long");
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad_authority(text, "expected HOST:PORT");
  std::string_view host = text.substr(0, colon);
  Authority out;
  out.port = parse_port(text.substr(colon + 1));
  if (out.port == 0) return bad_authority(text, "the port must be 1 to 65535");
  const bool bracketed = host.front() == '[';
  if (bracketed) {
    if (host.size() < 2 || host.back() != ']') return bad_authority(text, "the bracket is not closed before the port");
    host = host.substr(1, host.size() - 2);
  }
  const auto address = IpAddress::parse(host);
  const bool has_colon = host.find(':') != std::string_view::npos;
  if (bracketed) {
    // An IPv4 address in IPv6 clothes is a second spelling; nobody needs it.
    if (!address || !address->is_v6()) return bad_authority(text, "brackets must hold an IPv6 address");
  } else if (has_colon) {
    return bad_authority(text, "an IPv6 address must be in brackets");
  } else if (!address && !is_hostname(host)) {
    return bad_authority(text, "the host is neither an address nor a DNS name");
  }
  out.host = host;
  if (address) out.address = *address;
  return out;
}

}  // namespace weft::hbone
