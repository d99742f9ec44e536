// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/explain_view.h"

namespace weft::admin {
namespace {

using nlohmann::json;

void put(json& object, const char* key, const std::string& text) {
  if (!text.empty()) object[key] = text;
}

json endpoint(const agent::ExplainedEndpoint& e) {
  json object = {{"target", e.target.to_string()},
                 {"weight", e.weight},
                 {"encrypted", e.encrypted},
                 {"allowed", e.allowed},
                 {"reason", e.reason}};
  put(object, "workload", e.workload);
  put(object, "workloadUid", e.workload_uid);
  put(object, "policy", e.policy);
  put(object, "waypoint", e.waypoint);
  put(object, "inboundPlaintext", e.inbound);
  if (e.hbone.address.valid()) object["hbone"] = e.hbone.to_string();
  if (!e.dry_runs.empty()) object["dryRun"] = e.dry_runs;
  return object;
}

}  // namespace

json to_json(const agent::Explanation& explanation) {
  json source = {{"name", explanation.source}, {"state", explanation.source_state}};
  put(source, "workloadUid", explanation.source_uid);
  put(source, "identity", explanation.source_identity);
  if (explanation.source_address.valid()) source["address"] = explanation.source_address.to_string();
  json destination = {{"asked", explanation.destination}};
  if (explanation.original.address.valid()) destination["address"] = explanation.original.to_string();
  put(destination, "service", explanation.service);

  json object = {{"source", std::move(source)},          {"destination", std::move(destination)},
                 {"captured", explanation.captured},     {"capture", explanation.capture},
                 {"encrypted", explanation.encrypted()}, {"outcome", agent::to_string(explanation.outcome())},
                 {"endpoints", json::array()},           {"notes", explanation.notes}};
  put(object, "refusal", explanation.refusal);
  for (const auto& e : explanation.endpoints) object["endpoints"].push_back(endpoint(e));
  return object;
}

}  // namespace weft::admin
