// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace weft::agent {

/// Counters and gauges of several agents of a node, so that a scraper sees one: no counter begins anew because another
/// agent has taken over. As JSON: {family: {type, help, values: {labels: number}}}, labels being their own JSON text.

/// Of one agent.
[[nodiscard]] nlohmann::json metrics_json(const std::vector<prometheus::MetricFamily>& families);
/// Adds `more` to `sum`; `counters_only` for an agent that has ended, whose gauges say nothing any more. Errors:
/// nlohmann::json::exception.
void add_metrics(nlohmann::json& sum, const nlohmann::json& more, bool counters_only);
/// Adds `more` to what this agent is about to tell. Errors: as above.
void add_metrics(std::vector<prometheus::MetricFamily>& families, const nlohmann::json& more);

}  // namespace weft::agent
