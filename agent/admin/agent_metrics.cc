// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/agent_metrics.h"

#include <map>

#include "agent/admin/certificate_metrics.h"
#include "agent/admin/kube_metrics.h"
#include "agent/admin/limit_metrics.h"
#include "agent/admin/metric_family.h"
#include "tunnel/base/log.h"

namespace weft::admin {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily packets(const MetricSources& sources) {
  MetricFamily made =
      family("weft_bpf_packets_total", "Packets by the capture program that met them, its verdict and its reason",
             MetricType::Counter);
  auto counters = sources.counters();
  if (!counters) {
    log::warn("capture counters cannot be read error={}", log::quote(counters.error().message()));
    return made;
  }
  for (const auto& c : *counters) {
    add(made,
        {{"program", std::string(c.program)}, {"verdict", std::string(c.verdict)}, {"reason", std::string(c.reason)}},
        static_cast<double>(c.packets));
  }
  return made;
}

/// The traffic of every wired pod; its interfaces are added up, since labels must not repeat.
void add_traffic(std::vector<MetricFamily>& families, const std::vector<agent::PodStatus>& pods) {
  struct Sums {
    double packets_out = 0, bytes_out = 0, packets_in = 0, bytes_in = 0;
    std::map<std::string_view, double> drops;
  };
  std::map<std::pair<std::string, std::string>, Sums> by_pod;
  for (const auto& pod : pods) {
    if (!pod.traffic) continue;
    Sums& sums = by_pod[{pod.registration.pod_namespace, pod.registration.pod_name}];
    sums.packets_out += static_cast<double>(pod.traffic->packets_out);
    sums.bytes_out += static_cast<double>(pod.traffic->bytes_out);
    sums.packets_in += static_cast<double>(pod.traffic->packets_in);
    sums.bytes_in += static_cast<double>(pod.traffic->bytes_in);
    for (const auto& drop : pod.traffic->drops) sums.drops[drop.reason] += static_cast<double>(drop.packets);
  }
  MetricFamily packets = family("weft_pod_packets_total", "Packets out of and into a pod that did not enter the agent",
                                MetricType::Counter);
  MetricFamily bytes =
      family("weft_pod_bytes_total", "Bytes of frames out of and into a pod that did not enter the agent",
             MetricType::Counter);
  MetricFamily drops =
      family("weft_pod_drops_total", "Packets of a pod that the capture programs dropped", MetricType::Counter);
  for (const auto& [name, sums] : by_pod) {
    const Labels pod{{"namespace", name.first}, {"pod", name.second}};
    const auto with = [&pod](const char* label, std::string_view value) {
      Labels labels = pod;
      labels.emplace_back(label, value);
      return labels;
    };
    add(packets, with("direction", "out"), sums.packets_out);
    add(packets, with("direction", "in"), sums.packets_in);
    add(bytes, with("direction", "out"), sums.bytes_out);
    add(bytes, with("direction", "in"), sums.bytes_in);
    for (const auto& [reason, count] : sums.drops) add(drops, with("reason", reason), count);
  }
  for (MetricFamily* made : {&packets, &bytes, &drops}) families.push_back(std::move(*made));
}

}  // namespace

std::vector<MetricFamily> agent_metrics(const MetricSources& sources) {
  std::vector<MetricFamily> families;
  families.push_back(packets(sources));

  std::map<std::string, double> by_state{{"enrolled", 0}, {"wired", 0},  {"pending", 0},
                                         {"refused", 0},  {"failed", 0}, {"uncaptured", 0}};
  double uncaptured = 0, problems = 0;
  const auto all = sources.pods();
  for (const auto& pod : all) {
    by_state[pod.state] += 1;
    uncaptured += static_cast<double>(pod.observation.uncaptured.size());
    problems += pod.observation.problems.empty() ? 0 : 1;
  }
  MetricFamily pods =
      family("weft_pods", "Pods of this node by state; uncaptured: should be wired and cannot be", MetricType::Gauge);
  for (const auto& [state, count] : by_state) add(pods, {{"state", state}}, count);
  families.push_back(std::move(pods));
  add_traffic(families, all);
  families.push_back(single("workload_manager_active_proxy_count", "Pods that are in the mesh", MetricType::Gauge,
                            by_state["enrolled"]));
  families.push_back(single("workload_manager_pending_proxy_count", "Pods that should be in the mesh and are not yet",
                            MetricType::Gauge, by_state["pending"] + by_state["failed"]));

  families.push_back(single("weft_registration_requests_total", "Requests of weft-cni", MetricType::Counter,
                            static_cast<double>(sources.registration_requests())));
  families.push_back(single("weft_registration_errors_total", "Requests of weft-cni that were refused or failed",
                            MetricType::Counter, static_cast<double>(sources.registration_errors())));
  MetricFamily actions =
      family("weft_reconcile_actions_total", "What reconciliation did; dropped: a registered pod whose netns was gone",
             MetricType::Counter);
  for (const auto& [action, count] : sources.reconciled()) {
    add(actions, {{"action", action}}, static_cast<double>(count));
  }
  families.push_back(std::move(actions));
  families.push_back(single("weft_uncaptured_interfaces", "Interfaces with routes of wired pods that are not wired",
                            MetricType::Gauge, uncaptured));
  families.push_back(
      single("weft_pod_problems", "Wired pods that are not captured as they should be", MetricType::Gauge, problems));
  families.push_back(single("weft_unknown_attachments",
                            "Attached programs of pods that nobody knows, which are cut off", MetricType::Gauge,
                            static_cast<double>(sources.unknown_attachments().size())));
  add_certificate_metrics(families, sources, Clock::real().wall_now());
  MetricFamily build = family(
      "istio_build", "The build that runs, under the component name that Istio's dashboards expect", MetricType::Gauge);
  add(build, {{"component", "ztunnel"}, {"tag", sources.version}}, 1);
  families.push_back(std::move(build));
  add_limit_metrics(families, *sources.limits, sources.resources());
  if (sources.kubernetes) add_kube_metrics(families, sources.kubernetes());
  return families;
}

}  // namespace weft::admin
