// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "agent/resource_watch.h"
#include "tunnel/proxy/limits.h"

namespace weft::admin {

/// What an agent has for each pod and what it refused, to be added up over the agents of a node: weft_pod_connections,
/// weft_pod_descriptors{namespace,pod}, weft_shed_total{namespace,pod,reason},
/// weft_handshakes_delayed_total{namespace,pod}, weft_accept_pauses_total.
void add_pod_limit_metrics(std::vector<prometheus::MetricFamily>& families, const proxy::Limits& limits);
/// What there is and what is used of it by this agent: weft_connections, weft_connections_limit, weft_descriptors,
/// weft_descriptors_limit, weft_memory_used_bytes, weft_memory_limit_bytes, weft_memory_pressure, process_open_fds,
/// process_max_fds.
void add_limit_metrics(std::vector<prometheus::MetricFamily>& families, const proxy::Limits& limits,
                       const agent::ResourceStatus& resources);

/// The same, without the pods, for /status: connections, descriptors, openFds and memory, each with its limit, null
/// where there is none.
[[nodiscard]] nlohmann::json limits_view(const proxy::Limits& limits, const agent::ResourceStatus& resources);

}  // namespace weft::admin
