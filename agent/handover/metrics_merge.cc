// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/metrics_merge.h"

#include <algorithm>
#include <map>
#include <string>

namespace weft::agent {
namespace {

using nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr const char* kCounter = "counter";
constexpr const char* kGauge = "gauge";

/// Sorted, so that the order in which labels were given does not matter.
std::string labels_text(const ClientMetric& metric) {
  std::map<std::string, std::string> labels;
  for (const auto& label : metric.label) labels.emplace(label.name, label.value);
  return json(labels).dump(-1, ' ', false, json::error_handler_t::replace);
}

double value_of(const ClientMetric& metric, MetricType type) {
  return type == MetricType::Counter ? metric.counter.value : metric.gauge.value;
}

void add_to(ClientMetric& metric, MetricType type, double value) {
  (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) += value;
}

ClientMetric metric_of(const std::string& labels, MetricType type, double value) {
  ClientMetric metric;
  const json parsed = json::parse(labels);
  for (const auto& [name, text] : parsed.items()) metric.label.push_back({name, text.get<std::string>()});
  add_to(metric, type, value);
  return metric;
}

}  // namespace

json metrics_json(const std::vector<MetricFamily>& families) {
  json all = json::object();
  for (const auto& family : families) {
    if (family.type != MetricType::Counter && family.type != MetricType::Gauge) continue;
    json values = json::object();
    for (const auto& metric : family.metric) values[labels_text(metric)] = value_of(metric, family.type);
    all[family.name] = {{"type", family.type == MetricType::Counter ? kCounter : kGauge},
                        {"help", family.help},
                        {"values", std::move(values)}};
  }
  return all;
}

void add_metrics(json& sum, const json& more, bool counters_only) {
  if (!sum.is_object()) sum = json::object();
  for (const auto& [name, family] : more.items()) {
    if (counters_only && family.at("type") != kCounter) continue;
    json& into = sum[name];
    if (into.is_null()) into = {{"type", family.at("type")}, {"help", family.at("help")}, {"values", json::object()}};
    for (const auto& [labels, value] : family.at("values").items()) {
      into["values"][labels] = into["values"].value(labels, 0.0) + value.get<double>();
    }
  }
}

void add_metrics(std::vector<MetricFamily>& families, const json& more) {
  for (const auto& [name, family] : more.items()) {
    const MetricType type = family.at("type") == kCounter ? MetricType::Counter : MetricType::Gauge;
    auto mine = std::ranges::find(families, name, &MetricFamily::name);
    if (mine == families.end()) {
      families.push_back({.name = name, .help = family.at("help").get<std::string>(), .type = type, .metric = {}});
      mine = std::prev(families.end());
    }
    if (mine->type != type) continue;
    std::map<std::string, ClientMetric*> known;
    for (auto& metric : mine->metric) known.emplace(labels_text(metric), &metric);
    std::vector<ClientMetric> unknown;
    for (const auto& [labels, value] : family.at("values").items()) {
      const auto found = known.find(labels);
      if (found == known.end()) {
        unknown.push_back(metric_of(labels, type, value.get<double>()));
      } else {
        add_to(*found->second, type, value.get<double>());
      }
    }
    std::ranges::move(unknown, std::back_inserter(mine->metric));
  }
}

}  // namespace weft::agent
