// SPDX-License-Identifier: Apache-2.0
#include "agent/control/local_config.h"

#include <unordered_map>

#include "agent/control/local_parts.h"
#include "agent/control/yaml_tree.h"

namespace weft::control {
namespace {

/// Hands the endpoints that services list to the workloads, which is where the state looks for them.
void place_endpoints(Problems& problems, const std::vector<ServiceWithEndpoints>& services,
                     std::vector<state::Workload>& workloads) {
  std::unordered_map<std::string_view, state::Workload*> by_uid;
  for (auto& workload : workloads) by_uid.emplace(workload.uid, &workload);
  for (const auto& [service, endpoints] : services) {
    for (const auto& endpoint : endpoints) {
      const auto found = by_uid.find(endpoint.uid);
      if (found == by_uid.end()) {
        problems.add(endpoint.field.node->line, endpoint.field.name,
                     "\"" + endpoint.uid + "\" is the uid of no workload");
        continue;
      }
      // The workload's own word on a port goes first.
      found->second->services[service.key()].insert(endpoint.ports.begin(), endpoint.ports.end());
    }
  }
}

}  // namespace

Result<state::StateInput> parse_local_config(const std::string& path, std::string_view text) {
  if (text.size() > kMaxConfigBytes) {
    return fail(ErrorCode::kInvalid, path + ": " + std::to_string(text.size()) + " bytes: expected at most " +
                                         std::to_string(kMaxConfigBytes));
  }
  auto root = parse_yaml(path, text);
  if (!root) return Failure(root.error());
  if (!*root || (*root)->kind == YamlNode::Kind::kNull) {
    return fail(ErrorCode::kInvalid, path + ": empty: expected workloads, services or policies ({} for none)");
  }
  Problems problems(path);
  ObjectReader object(problems, {*root, ""});
  state::StateInput out;
  const auto each = [&](std::string_view name, const auto& read) {
    for (const auto& field : object.list(name)) {
      if (problems.exhausted()) return;
      read(field);
    }
  };
  each("workloads", [&](const Field& field) { out.workloads.push_back(read_workload(problems, field)); });
  std::vector<ServiceWithEndpoints> services;
  each("services", [&](const Field& field) { services.push_back(read_service(problems, field)); });
  each("policies", [&](const Field& field) { out.policies.push_back(read_policy(problems, field)); });
  object.done();
  if (problems.none()) place_endpoints(problems, services, out.workloads);
  if (!problems.none()) return fail(ErrorCode::kInvalid, problems.text());
  for (auto& service : services) out.services.push_back(std::move(service.service));
  return out;
}

}  // namespace weft::control
