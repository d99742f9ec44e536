// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/config_tables.h"

#include "agent/cli/output.h"

namespace weft::cli {
namespace {

using nlohmann::json;
using Rows = std::vector<std::vector<std::string>>;
constexpr std::size_t kShortDigest = 16;

std::string joined(const json& list) { return join(list, ", "); }

std::string name_of(const json& object) { return text_of(object, "namespace") + "/" + text_of(object, "name"); }

/// "NETWORK/ADDRESS", of which the default network's name is empty.
json without_default_network(const json& addresses) {
  json out = json::array();
  for (const auto& address : addresses) {
    const auto text = address.get<std::string>();
    out.push_back(text.starts_with('/') ? text.substr(1) : text);
  }
  return out;
}

std::string waypoint_of(const json& object) {
  std::string text;
  bool weighted = false;  // they go before the one
  for (const auto& one : object.value("weightedWaypoints", json::array())) {
    weighted |= one.at("weight") != 0;
    text += (text.empty() ? "" : ", ") + text_of(one.at("destination"), "destination") + " (" +
            one.at("weight").dump() + ")";
  }
  if (!weighted && object.contains("waypoint")) return text_of(object.at("waypoint"), "destination");
  return or_dash(text);
}

/// "80>8080"; a port that the workloads name themselves has no target here.
std::string ports_of(const json& ports) {
  std::string text;
  for (const auto& [port, target] : ports.items()) {
    text += (text.empty() ? "" : ", ") + port;
    const auto number = target.get<int>();
    if (number != 0 && std::to_string(number) != port) text += ">" + std::to_string(number);
  }
  return or_dash(text);
}

std::string balancing_of(const json& service) {
  if (!service.contains("loadBalancer")) return "Standard";
  const json& balancer = service.at("loadBalancer");
  std::string text = text_of(balancer, "mode");
  const json& scopes = balancer.at("routingPreferences");
  if (!scopes.empty()) text += " by " + joined(scopes);
  if (text_of(balancer, "healthPolicy") == "AllowAll") text += ", unhealthy too";
  return text;
}

std::string all_vips_of(const json& service) {
  json vips = without_default_network(service.at("vips"));
  for (const auto& range : without_default_network(service.at("cidrVips"))) vips.push_back(range);
  return vips.empty() ? "none" : joined(vips);
}

/// The roots that peers are verified against; where there are several, the one that the certificate itself hangs on is
/// told.
std::string roots_of(const json& certificate) {
  std::string text;
  const json& roots = certificate.at("roots");
  for (const auto& root : roots) {
    const std::string digest = text_of(root, "sha256");
    text += (text.empty() ? "" : ", ") + digest.substr(0, kShortDigest) + " until " + text_of(root, "expirationTime");
    if (roots.size() > 1 && certificate.value("issuerRoot", "") == digest) text += " (issuer)";
  }
  return or_dash(text);
}

/// Why there is no new certificate, and before that why the present one is worth nothing.
std::string trouble_of(const json& certificate) {
  const std::string revoked = certificate.value("revoked", ""), error = text_of(certificate, "lastError");
  return or_dash(revoked + (revoked.empty() || error.empty() ? "" : "; ") + error);
}

}  // namespace

Result<std::string> workloads_table(const json& workloads) {
  return understood("workloads", [&] {
    Rows rows;
    for (const auto& w : workloads) {
      const std::string protocol = w.value("nativeTunnel", false) ? "HBONE, its own" : text_of(w, "protocol");
      rows.push_back({name_of(w), joined(w.at("workloadIps")), protocol, or_dash(text_of(w, "node")),
                      text_of(w, "status"), text_of(w, "serviceAccount"), std::to_string(w.at("services").size()),
                      waypoint_of(w), joined(w.at("authorizationPolicies")), joined(w.at("notes"))});
    }
    return table({"WORKLOAD", "ADDRESSES", "PROTOCOL", "NODE", "STATUS", "ACCOUNT", "SERVICES", "WAYPOINT",
                  "OWN POLICIES", "NOTE"},
                 rows);
  });
}

Result<std::string> services_table(const json& services) {
  return understood("services", [&] {
    Rows rows;
    for (const auto& s : services) {
      const json& health = s.at("endpointHealth");
      rows.push_back({text_of(s, "namespace") + "/" + text_of(s, "hostname"), all_vips_of(s), ports_of(s.at("ports")),
                      number_of(health, "healthy") + "/" + number_of(health, "total"), waypoint_of(s), balancing_of(s),
                      text_of(s, "visibility"), s.at("captured").get<bool>() ? "yes" : "no",
                      join(s.at("notes"), "; ")});
    }
    return table({"SERVICE", "VIPS", "PORTS", "HEALTHY", "WAYPOINT", "BALANCING", "VISIBILITY", "CAPTURED", "NOTE"},
                 rows);
  });
}

Result<std::string> policies_table(const json& policies) {
  return understood("policies", [&] {
    Rows rows;
    for (const auto& p : policies) {
      const bool known = p.at("known").get<bool>();
      rows.push_back({name_of(p), known ? text_of(p, "scope") : "-", known ? text_of(p, "action") : "unknown",
                      known ? std::to_string(p.at("rules").size()) : "-", number_of(p, "workloads"),
                      join(p.at("notes"), "; ")});
    }
    return table({"POLICY", "SCOPE", "ACTION", "RULES", "WORKLOADS", "NOTE"}, rows);
  });
}

Result<std::string> certificates_table(const json& certificates) {
  return understood("certificates", [&] {
    Rows rows;
    for (const auto& c : certificates) {
      rows.push_back({text_of(c, "identity"), text_of(c, "state"), or_dash(text_of(c, "serial")),
                      c.value("validFrom", "-"), c.value("validUntil", "-"), roots_of(c), trouble_of(c)});
    }
    return table({"IDENTITY", "STATE", "SERIAL", "VALID FROM", "VALID UNTIL", "ROOTS (SHA-256)", "ERROR"}, rows);
  });
}

}  // namespace weft::cli
