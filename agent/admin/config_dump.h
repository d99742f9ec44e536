// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/enrolment.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/proxy/worker.h"
#include "tunnel/state/state.h"

namespace weft::admin {

/// The objects of the snapshot in the camelCase shape of ztunnel's local format, with what istioctl reads besides.
[[nodiscard]] nlohmann::json to_json(const state::Workload& workload);
[[nodiscard]] nlohmann::json to_json(const state::Service& service,
                                     const std::vector<state::ServiceEndpoint>& endpoints);
[[nodiscard]] nlohmann::json to_json(const state::Policy& policy);
/// Certificates without their keys: PEM in base64, serial number, validity in RFC 3339.
[[nodiscard]] nlohmann::json to_json(const hbone::TlsIdentity& certificate);
[[nodiscard]] nlohmann::json to_json(const bpf::PodTraffic& traffic);
/// With `traffic` where the pod is wired.
[[nodiscard]] nlohmann::json to_json(const agent::PodStatus& pod);

/// What GET /config_dump answers: `workloads`, `services`, `policies`, `certificates`, and `workloadState` by workload
/// uid: the pods of this node with their connections. `state` may be null.
[[nodiscard]] nlohmann::json config_dump(const state::State* state,
                                         const std::vector<std::shared_ptr<const hbone::TlsIdentity>>& certificates,
                                         const std::vector<agent::PodStatus>& pods,
                                         const std::vector<proxy::ConnectionInfo>& connections);

}  // namespace weft::admin
