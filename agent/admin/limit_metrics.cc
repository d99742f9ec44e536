// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/limit_metrics.h"

#include <array>
#include <cmath>
#include <map>
#include <string>

#include "agent/admin/metric_family.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using prometheus::MetricFamily;
using prometheus::MetricType;
using proxy::Shed;

constexpr std::array kReasons{Shed::kPodLimit, Shed::kFairShare, Shed::kDescriptors, Shed::kMemory, Shed::kHandshakes};

/// What has no limit has an infinite one.
double limit_of(std::size_t limit) { return limit == SIZE_MAX ? HUGE_VAL : static_cast<double>(limit); }

json limit_or_null(std::size_t limit) { return limit == SIZE_MAX ? json() : json(limit); }

/// A pod with several interfaces is one, since labels must not repeat.
struct PodSums {
  double connections = 0, descriptors = 0, delayed = 0;
  std::array<double, kReasons.size()> shed{};
};

}  // namespace

void add_pod_limit_metrics(std::vector<MetricFamily>& families, const proxy::Limits& limits) {
  std::map<std::pair<std::string, std::string>, PodSums> by_pod;
  for (const auto& use : limits.pods()) {
    PodSums& sums = by_pod[{use->namespace_name(), use->name()}];
    sums.connections += static_cast<double>(use->connections());
    sums.descriptors += static_cast<double>(use->descriptors());
    sums.delayed += static_cast<double>(use->delayed_handshakes());
    for (std::size_t i = 0; i < kReasons.size(); ++i) sums.shed[i] += static_cast<double>(use->shed(kReasons[i]));
  }
  MetricFamily connections =
      family("weft_pod_connections", "Connections and tunnels that the agent has for a pod", MetricType::Gauge);
  MetricFamily descriptors =
      family("weft_pod_descriptors", "File descriptors that the agent has open for a pod", MetricType::Gauge);
  MetricFamily shed = family("weft_shed_total", "What of a pod was refused because it, or the agent, has too much",
                             MetricType::Counter);
  MetricFamily delayed =
      family("weft_handshakes_delayed_total",
             "Tunnels of a pod that waited because it had too many handshakes under way", MetricType::Counter);
  for (const auto& [name, sums] : by_pod) {
    const Labels pod{{"namespace", name.first}, {"pod", name.second}};
    add(connections, pod, sums.connections);
    add(descriptors, pod, sums.descriptors);
    add(delayed, pod, sums.delayed);
    for (std::size_t i = 0; i < kReasons.size(); ++i) {
      if (sums.shed[i] == 0) continue;
      Labels labels = pod;
      labels.emplace_back("reason", to_string(kReasons[i]));
      add(shed, labels, sums.shed[i]);
    }
  }
  for (MetricFamily* made : {&connections, &descriptors, &shed, &delayed}) families.push_back(std::move(*made));
  families.push_back(single("weft_accept_pauses_total",
                            "How often a listener had to wait because there was no descriptor or memory",
                            MetricType::Counter, static_cast<double>(limits.accept_pauses())));
}

void add_limit_metrics(std::vector<MetricFamily>& families, const proxy::Limits& limits,
                       const agent::ResourceStatus& resources) {
  const proxy::LimitSizes sizes = limits.sizes();
  const auto gauge = [&](const char* name, const char* help, double value) {
    families.push_back(single(name, help, MetricType::Gauge, value));
  };
  gauge("weft_connections", "Connections and tunnels of all pods", static_cast<double>(limits.connections()));
  gauge("weft_connections_limit", "How many there may be", limit_of(sizes.connections));
  gauge("weft_descriptors", "File descriptors that are open for pods", static_cast<double>(limits.descriptors()));
  gauge("weft_descriptors_limit", "How many there may be", limit_of(sizes.descriptors));
  gauge("process_open_fds", "Open file descriptors", static_cast<double>(resources.fds));
  gauge("process_max_fds", "How many there may be", static_cast<double>(resources.fd_limit));
  gauge("weft_memory_used_bytes", "What counts against the limit of the agent's memory",
        static_cast<double>(resources.memory.used));
  gauge("weft_memory_limit_bytes", "The limit of the agent's memory, 0: none is known",
        static_cast<double>(resources.memory.limit));
  gauge("weft_memory_pressure", "0; 1: pods with more than the average get no new connections; 2: nobody does",
        static_cast<double>(limits.memory_pressure()));
}

json limits_view(const proxy::Limits& limits, const agent::ResourceStatus& resources) {
  const proxy::LimitSizes sizes = limits.sizes();
  std::uint64_t shed = 0;
  for (const auto& use : limits.pods()) {
    for (const Shed reason : kReasons) shed += use->shed(reason);
  }
  return {{"connections", {{"used", limits.connections()}, {"limit", limit_or_null(sizes.connections)}}},
          {"descriptors", {{"used", limits.descriptors()}, {"limit", limit_or_null(sizes.descriptors)}}},
          {"openFds", {{"used", resources.fds}, {"limit", resources.fd_limit}}},
          {"memoryBytes",
           {{"used", resources.memory.used},
            {"limit", resources.memory.limit == 0 ? json() : json(resources.memory.limit)}}},
          {"shed", shed}};
}

}  // namespace weft::admin
