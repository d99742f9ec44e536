// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/mesh_views.h"

#include <algorithm>

#include "agent/admin/certificate_dump.h"
#include "agent/admin/certificate_metrics.h"
#include "agent/admin/config_dump.h"
#include "agent/explain/policy_notes.h"
#include "tunnel/base/rfc3339.h"
#include "tunnel/state/captured.h"
#include "tunnel/state/waypoint.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using state::State;

/// Adds why a waypoint cannot be used, by a client in its network, where that is so.
void note_waypoint(const State& state, const std::string& network, const state::GatewayAddress& waypoint, json& notes) {
  state::Workload client;
  client.network = network;
  const auto found = state::choose_waypoint(state, client, waypoint, {}, 0, nullptr);
  if (!found.choice.workload) notes.push_back(found.choice.reason + ": connections are refused");
}

json notes_of(const State& state, const state::Service& service) {
  json notes = json::array();
  const std::string network = service.vips.empty() ? "" : service.vips.front().network;
  const auto waypoints = state::waypoints_of(service);
  for (const auto& [waypoint, weight] : waypoints) note_waypoint(state, network, waypoint, notes);
  if (waypoints.empty() && state::has_waypoint(service)) {
    notes.push_back("its waypoints all have weight 0: connections are refused");
  }
  return notes;
}

json notes_of(const State& state, const state::Workload& workload) {
  json notes = json::array();
  for (const auto& key : workload.authorization_policies) {
    if (!state.policy_by_key(key)) {
      notes.push_back("names policy " + key + ", which is not known: all connections to it are denied");
    }
  }
  if (workload.protocol == state::TunnelProtocol::kTcp && !workload.native_tunnel && workload.waypoint) {
    notes.push_back("has a waypoint, and is outside the mesh itself");
  }
  if (workload.waypoint) note_waypoint(state, workload.network, *workload.waypoint, notes);
  return notes;
}

json unknown_policy(const std::string& key, const std::vector<std::string>& named_by) {
  const auto slash = key.find('/');
  json notes = json::array();
  for (const auto& uid : named_by) {
    notes.push_back("not received, and named by " + uid + ": all connections to it are denied");
  }
  return {{"namespace", key.substr(0, slash)},
          {"name", slash == std::string::npos ? "" : key.substr(slash + 1)},
          {"known", false},
          {"workloads", named_by.size()},
          {"notes", std::move(notes)}};
}

}  // namespace

json workloads_view(const State& state) {
  json list = json::array();
  for (const auto& workload : state.workloads()) {
    json object = to_json(*workload);
    object["captured"] = state::is_captured(*workload);
    object["notes"] = notes_of(state, *workload);
    list.push_back(std::move(object));
  }
  return list;
}

json services_view(const State& state) {
  json list = json::array();
  for (const auto& service : state.services()) {
    const auto& endpoints = state.endpoints(service->key());
    json object = to_json(*service, endpoints);
    object["captured"] = state::is_captured(state, *service);
    object["notes"] = notes_of(state, *service);
    object["endpointHealth"] = {
        {"healthy", std::ranges::count_if(
                        endpoints, [](const auto& e) { return e.workload->status == state::HealthStatus::kHealthy; })},
        {"total", endpoints.size()}};
    list.push_back(std::move(object));
  }
  return list;
}

json policies_view(const State& state) {
  json list = json::array();
  for (const auto& policy : state.policies()) {
    json object = to_json(*policy);
    object["known"] = true;
    object["workloads"] = agent::workloads_under(state, *policy);
    object["notes"] = agent::policy_notes(state, *policy);
    list.push_back(std::move(object));
  }
  for (const auto& [key, named_by] : agent::unknown_policies(state)) list.push_back(unknown_policy(key, named_by));
  return list;
}

json certificates_view(const std::vector<agent::CertManager::Status>& wanted,
                       const std::vector<std::shared_ptr<const hbone::TlsIdentity>>& certificates, WallTime now) {
  json list = json::array();
  for (const auto& status : wanted) {
    json object = {{"identity", status.identity.to_uri()}, {"state", state_of(status, now)}, {"serial", status.serial},
                   {"failures", status.failures},          {"lastError", status.last_error}, {"roots", json::array()}};
    if (!status.revoked.empty()) object["revoked"] = status.revoked;
    const auto put = [&object](const char* key, const std::optional<WallTime>& time) {
      if (time) object[key] = rfc3339(*time);
    };
    put("validFrom", status.valid_from);
    put("validUntil", status.valid_until);
    put("renewAt", status.renew_at);
    const auto held = std::ranges::find(certificates, status.identity,
                                        [](const auto& certificate) { return certificate->bundle().identity; });
    if (held != certificates.end()) {
      object["roots"] = certificate_summaries((*held)->bundle().roots_pem);
      object["issuerRoot"] = hbone::certificate_digest((*held)->chain().back());
    }
    list.push_back(std::move(object));
  }
  return list;
}

}  // namespace weft::admin
