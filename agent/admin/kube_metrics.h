// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "agent/kube/enroller.h"

namespace weft::admin {

/// Of enrolment by the Kubernetes API: weft_kubernetes_following{resource}, weft_kubernetes_lists_total{resource},
/// weft_kubernetes_events_total{resource}, weft_kubernetes_watch_errors_total{resource},
/// weft_kubernetes_annotations_due, weft_kubernetes_writes_total{kind,result},
/// weft_kubernetes_admissions_total{result}.
void add_kube_metrics(std::vector<prometheus::MetricFamily>& families, const kube::Enroller::Counts& counts);

}  // namespace weft::admin
