// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/admin/agent_metrics.h"
#include "agent/admin/event_dump.h"
#include "agent/admin/http_server.h"
#include "agent/enrolment.h"
#include "agent/handover/messages.h"
#include "agent/identity/cert_manager.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/proxy/worker.h"
#include "tunnel/state/state.h"

namespace weft::admin {

/// What the admin API reads and does. Every function is called from the servers' threads.
struct AdminSources {
  std::string node;
  std::string network;
  std::uint32_t workers = 0;
  std::function<std::shared_ptr<const state::State>()> state;
  state::EgressPolicy egress;
  std::function<bool()> captures_all;  ///< as Enrolment::captures_all
  bool on_demand = false;              ///< the state has only what the control plane was asked for
  std::function<std::vector<std::shared_ptr<const hbone::TlsIdentity>>()> certificates;
  std::function<std::vector<agent::CertManager::Status>()> certificate_status;
  std::function<std::vector<proxy::ConnectionInfo>()> connections;
  /// As Enrolment::plaintext.
  std::function<Result<std::vector<std::pair<std::string, agent::PlainConnection>>>(const std::string& pod, bool end)>
      plaintext;
  std::function<std::vector<agent::Generation>()> generations;  ///< this agent, and those before it that still carry
  std::function<std::vector<std::string>()> not_ready;          ///< what is still missing; empty: ready
  std::function<std::string()> source_status;                   ///< one line about where the configuration comes from
  std::function<void()> quit;                                   ///< begins an orderly stop and returns
  std::shared_ptr<prometheus::Registry> registry;               ///< the connection metrics
  std::function<nlohmann::json()> inherited_metrics;            ///< of the agents before this one, see metrics_merge.h
  MetricSources metrics;                                        ///< also the pods and the packet counters
  EventFunction events;                                         ///< waits as long as the query says
};

/// The admin address: GET /connections/plaintext, and POST to it, which ends what it lists, both with
/// ?pod=NAMESPACE/NAME where one is meant; GET /config_dump, /pods, /workloads, /services, /policies, /certificates,
/// /connections, /counters, /events (event_dump.h), /status, /explain?from=…&to=…, /healthz/ready, /metrics; POST
/// /logging with ?level=LEVEL (or level=reset), POST /quitquitquit. POST, and /events, which has the capture programs
/// write, are refused with 403 unless the peer is on loopback.
[[nodiscard]] HttpRoutes admin_routes(const std::shared_ptr<const AdminSources>& sources);
/// The metrics address: GET /metrics.
[[nodiscard]] HttpRoutes metrics_routes(const std::shared_ptr<const AdminSources>& sources);
/// The readiness address: GET /healthz/ready, 200, or 503 with what is missing, one a line.
[[nodiscard]] HttpRoutes ready_routes(const std::shared_ptr<const AdminSources>& sources);

}  // namespace weft::admin
