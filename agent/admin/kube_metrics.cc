// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/kube_metrics.h"

#include "agent/admin/metric_family.h"

namespace weft::admin {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

void add_watches(std::vector<MetricFamily>& families, const kube::Enroller::Counts& counts) {
  MetricFamily following =
      family("weft_kubernetes_following", "1 while the objects of the Kubernetes API are followed, 0 while that fails",
             MetricType::Gauge);
  MetricFamily lists = family("weft_kubernetes_lists_total", "Whole lists of the Kubernetes API", MetricType::Counter);
  MetricFamily events =
      family("weft_kubernetes_events_total", "Changes that the Kubernetes API told of", MetricType::Counter);
  MetricFamily errors = family("weft_kubernetes_watch_errors_total",
                               "Lists and watches of the Kubernetes API that failed", MetricType::Counter);
  for (const auto& [resource, status] : counts.watches) {
    const Labels labels{{"resource", resource}};
    add(following, labels, status.following ? 1 : 0);
    add(lists, labels, static_cast<double>(status.lists));
    add(events, labels, static_cast<double>(status.events));
    add(errors, labels, static_cast<double>(status.errors));
  }
  for (MetricFamily* made : {&following, &lists, &events, &errors}) families.push_back(std::move(*made));
}

}  // namespace

void add_kube_metrics(std::vector<MetricFamily>& families, const kube::Enroller::Counts& counts) {
  add_watches(families, counts);
  families.push_back(single("weft_kubernetes_annotations_due",
                            "Pods whose annotation ambient.istio.io/redirection does not say yet what capture is",
                            MetricType::Gauge, static_cast<double>(counts.annotations_due)));
  MetricFamily writes =
      family("weft_kubernetes_writes_total", "What was written to the Kubernetes API", MetricType::Counter);
  for (const auto& [kind, result, count] : {std::tuple{"annotation", "ok", counts.annotations_written},
                                            {"annotation", "failed", counts.annotation_errors},
                                            {"event", "ok", counts.events_written},
                                            {"event", "failed", counts.event_errors}}) {
    add(writes, {{"kind", kind}, {"result", result}}, static_cast<double>(count));
  }
  families.push_back(std::move(writes));
  MetricFamily admissions =
      family("weft_kubernetes_admissions_total",
             "ADDs for which the Kubernetes API was asked, because no watch had told of the pod", MetricType::Counter);
  const auto failed = counts.admissions_failed;
  add(admissions, {{"result", "ok"}}, static_cast<double>(counts.admissions_asked - failed));
  add(admissions, {{"result", "failed"}}, static_cast<double>(failed));
  families.push_back(std::move(admissions));
}

}  // namespace weft::admin
