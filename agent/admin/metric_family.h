// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

/// Metric families that are made at each scrape.
namespace weft::admin {

using Labels = std::vector<std::pair<std::string, std::string>>;

inline prometheus::MetricFamily family(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily made;
  made.name = name;
  made.help = help;
  made.type = type;
  return made;
}

inline void add(prometheus::MetricFamily& to, const Labels& labels, double value) {
  prometheus::ClientMetric metric;
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  if (to.type == prometheus::MetricType::Counter)
    metric.counter.value = value;
  else
    metric.gauge.value = value;
  to.metric.push_back(std::move(metric));
}

/// A family of one metric without labels.
inline prometheus::MetricFamily single(const char* name, const char* help, prometheus::MetricType type, double value) {
  prometheus::MetricFamily made = family(name, help, type);
  add(made, {}, value);
  return made;
}

}  // namespace weft::admin
