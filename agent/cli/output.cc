// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/output.h"

#include <algorithm>
#include <cstdio>

namespace weft::cli {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;

std::string joined(const json& list) { return join(list, ","); }

/// The interfaces that lead past the mesh; agents before 0.2 do not tell.
std::string uncaptured_of(const json& pod) { return joined(pod.value("uncapturedInterfaces", json::array())); }

/// What is wrong comes before why the pod is what it is.
std::string reason_of(const json& pod) {
  const json problems = pod.value("problems", json::array());
  return problems.empty() ? or_dash(text_of(pod, "reason")) : joined(problems);
}

/// What is used of what has a limit.
std::string in_use(const json& limits) {
  const auto part = [&limits](const char* key, const char* what, std::uint64_t unit) {
    const json& entry = limits.at(key);
    std::string text = std::to_string(entry.at("used").get<std::uint64_t>() / unit);
    if (!entry.at("limit").is_null()) text += " of " + std::to_string(entry.at("limit").get<std::uint64_t>() / unit);
    return text + what;
  };
  return part("connections", " connections, ", 1) + part("descriptors", " descriptors for pods, ", 1) +
         part("openFds", " in all, ", 1) + part("memoryBytes", " MiB, ", 1U << 20) + number_of(limits, "shed") +
         " refused";
}

template <class... Args>
std::string format(const char* pattern, Args... args) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, pattern, args...);
  return buffer;
}

/// How long ago it was registered; agents before 0.2, and pods taken up from their records, do not tell.
std::string since_of(const json& pod) {
  return pod.contains("ageSeconds") ? human_age(pod.at("ageSeconds").get<double>()) + " ago" : "-";
}

/// The last look at its wiring.
std::string verified_of(const json& pod) {
  if (!pod.contains("verified")) return "not yet";
  const json& look = pod.at("verified");
  const auto problems = look.at("problems").size();
  return human_age(look.at("ageSeconds").get<double>()) + " ago, " +
         (problems == 0 ? "well" : std::to_string(problems) + (problems == 1 ? " problem" : " problems"));
}

/// "2 enrolled, 1 wired"
std::string counts_of(const json& by_state) {
  std::string text;
  for (const auto& [state, count] : by_state.items()) {
    text += (text.empty() ? "" : ", ") + std::to_string(count.get<int>()) + " " + state;
  }
  return text;
}

/// Agents before 0.2 tell only how many there are.
std::string certificates_of(const json& status) {
  const json states = status.value("certificateStates", json::object());
  return states.empty() ? number_of(status, "certificates") : counts_of(states);
}

/// What of the CA and the revocation lists is to be known, and what is wrong with them.
std::vector<std::pair<const char*, std::string>> ca_lines(const json& status) {
  std::vector<std::pair<const char*, std::string>> lines;
  if (!status.contains("ca")) return lines;
  const json& ca = status.at("ca");
  const auto plural = [](std::size_t n, const char* what) {
    return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
  };
  lines.emplace_back("CA", text_of(ca, "directory") + ", " + plural(ca.at("roots").size(), "root"));
  if (!ca.at("usable").get<bool>()) lines.emplace_back("  problem", text_of(ca, "problem"));
  const json& crl = ca.at("crl");
  std::uint64_t revoked = 0;
  for (const auto& list : crl.at("lists")) revoked += list.at("revoked").get<std::uint64_t>();
  const std::size_t lists = crl.at("lists").size();
  lines.emplace_back("CRL", lists == 0 ? "none"
                                       : text_of(crl, "file") + ", " + plural(lists, "list") + ", " +
                                             plural(revoked, "certificate") + " revoked");
  if (!crl.at("usable").get<bool>()) lines.emplace_back("  problem", text_of(crl, "problem"));
  for (const auto& note : crl.at("notes")) lines.emplace_back("  note", note.get<std::string>());
  return lines;
}

std::string outbound_of(const json& policy) {
  const json& exempt = policy.at("exempt");
  return text_of(policy, "mode") + (exempt.empty() ? "" : ", exempt " + joined(exempt));
}

}  // namespace

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

std::string text_of(const json& object, const char* key) { return object.at(key).get<std::string>(); }

std::string number_of(const json& object, const char* key) {
  return std::to_string(object.at(key).get<std::uint64_t>());
}

std::string join(const json& list, const char* separator) {
  std::string text;
  for (const auto& item : list) text += (text.empty() ? "" : separator) + item.get<std::string>();
  return or_dash(text);
}

std::string human_age(double seconds) {
  constexpr double kMinute = 60;
  constexpr double kHour = 60 * kMinute;
  constexpr double kDay = 24 * kHour;
  if (seconds < kMinute) return format("%.0fs", std::max(seconds, 0.0));
  if (seconds < kHour) return format("%.0fm", seconds / kMinute);
  if (seconds < kDay) return format("%.0fh", seconds / kHour);
  return format("%.0fd", seconds / kDay);
}

std::string table(const std::vector<std::string>& header, const Rows& rows) {
  std::vector<std::size_t> width(header.size(), 0);
  const auto measure = [&width](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size() && i < width.size(); ++i) width[i] = std::max(width[i], row[i].size());
  };
  measure(header);
  for (const auto& row : rows) measure(row);
  std::string out;
  const auto print = [&](const std::vector<std::string>& row) {
    std::string line;
    for (std::size_t i = 0; i < row.size() && i < width.size(); ++i) {
      line += row[i] + std::string(width[i] - row[i].size() + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  print(header);
  for (const auto& row : rows) print(row);
  return out;
}

std::string human_bytes(double bytes) {
  const char* unit = "";
  for (const char* next : {"K", "M", "G", "T"}) {
    if (bytes < 1024) break;
    bytes /= 1024;
    unit = next;
  }
  return format(*unit == '\0' ? "%.0f%s" : "%.1f%s", bytes, unit);
}

Result<std::string> status_table(const json& status) {
  return understood("its status", [&] {
    const std::string pods = counts_of(status.at("pods"));
    const bool ready = status.at("ready").get<bool>();
    std::string out;
    const auto line = [&out](const char* name, const std::string& value) {
      out += std::string(name) + std::string(16 - std::string_view(name).size(), ' ') + value + "\n";
    };
    line("node", text_of(status, "node"));
    line("version", text_of(status, "version"));
    line("ready", ready ? "yes" : "no");
    for (const auto& missing : status.at("missing")) line("  missing", missing.get<std::string>());
    line("pods", pods.empty() ? "none" : pods);
    line("connections", number_of(status, "connections"));
    const json& generations = status.at("generations");
    for (const auto& g : generations) {
      const bool current = &g == &generations.back();
      if (current && generations.size() == 1) break;
      line("generation", number_of(g, "generation") + (current ? " (serves): " : " (drains): ") + "pid " +
                             number_of(g, "pid") + ", version " + text_of(g, "version") + ", started " +
                             text_of(g, "started") + ", " + number_of(g, "connections") + " connections");
    }
    line("configuration", text_of(status, "source"));
    line("workloads", number_of(status, "workloads"));
    line("services", number_of(status, "services"));
    line("policies", number_of(status, "policies"));
    line("certificates", certificates_of(status));
    for (const auto& [name, value] : ca_lines(status)) line(name, value);
    if (status.contains("outboundTrafficPolicy")) line("outbound", outbound_of(status.at("outboundTrafficPolicy")));
    line("workers", number_of(status, "workers"));
    line("open fds", number_of(status, "openFds"));
    if (status.contains("limits")) line("in use", in_use(status.at("limits")));
    line("log level", text_of(status, "logLevel"));
    return out;
  });
}

Result<std::string> pods_table(const json& pods) {
  return understood("its pods", [&] {
    Rows rows;
    for (const auto& pod : pods) {
      rows.push_back({text_of(pod, "namespace") + "/" + text_of(pod, "name"), text_of(pod, "state"),
                      pod.value("captured", false) ? "yes" : "no", since_of(pod), verified_of(pod),
                      joined(pod.at("addresses")), number_of(pod, "slot"), pod.at("guarded").get<bool>() ? "yes" : "no",
                      text_of(pod, "inboundPlaintext"), or_dash(text_of(pod, "identity")), uncaptured_of(pod),
                      reason_of(pod)});
    }
    return table({"POD", "STATE", "CAPTURED", "SINCE", "VERIFIED", "ADDRESSES", "SLOT", "GUARDED", "PLAINTEXT",
                  "IDENTITY", "UNCAPTURED", "REASON"},
                 rows);
  });
}

Result<std::string> connections_table(const json& connections) {
  return understood("its connections", [&] {
    Rows rows;
    for (const auto& c : connections) {
      rows.push_back({text_of(c, "pod"), text_of(c, "direction"), text_of(c, "source"), text_of(c, "destination"),
                      or_dash(c.value("hbone", "")), or_dash(text_of(c, "service")),
                      human_bytes(c.at("bytesSent").get<double>()), human_bytes(c.at("bytesReceived").get<double>()),
                      format("%.1fs", c.at("ageSeconds").get<double>()),
                      c.contains("generation") ? number_of(c, "generation") : "-"});
    }
    return table(
        {"POD", "DIRECTION", "SOURCE", "DESTINATION", "TUNNEL", "SERVICE", "SENT", "RECEIVED", "AGE", "DRAINS"}, rows);
  });
}

Result<std::string> plaintext_table(const json& connections) {
  return understood("its plaintext connections", [&]() -> std::string {
    if (connections.empty()) return "none\n";
    Rows rows;
    for (const auto& c : connections) {
      rows.push_back({text_of(c, "pod"), text_of(c, "direction"), text_of(c, "application"), text_of(c, "peer"),
                      c.at("expired").get<bool>() ? "expired" : "live"});
    }
    return table({"POD", "DIRECTION", "APPLICATION", "PEER", "STATE"}, rows);
  });
}

json drops_of(const json& counters) {
  json drops = json::array();
  for (const auto& c : counters) {
    if (c.value("verdict", "") == "drop" && c.value("packets", std::uint64_t{0}) > 0) drops.push_back(c);
  }
  std::stable_sort(drops.begin(), drops.end(), [](const json& a, const json& b) {
    return a["packets"].get<std::uint64_t>() > b["packets"].get<std::uint64_t>();
  });
  return drops;
}

Result<std::string> drops_table(const json& counters) {
  return understood("its counters", [&]() -> std::string {
    Rows rows;
    for (const auto& c : drops_of(counters)) {
      rows.push_back({text_of(c, "program"), text_of(c, "reason"), number_of(c, "packets")});
    }
    if (rows.empty()) return "nothing was dropped\n";
    return table({"PROGRAM", "REASON", "PACKETS"}, rows);
  });
}

}  // namespace weft::cli
