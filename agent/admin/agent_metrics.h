// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/enrolment.h"
#include "agent/identity/cert_manager.h"
#include "agent/identity/local_ca.h"
#include "agent/kube/enroller.h"
#include "agent/resource_watch.h"
#include "bpf/loader.h"
#include "tunnel/base/error.h"

namespace weft::admin {

/// What the metrics of the agent itself are read from, at each scrape.
struct MetricSources {
  std::function<Result<std::vector<bpf::Counter>>()> counters;
  std::function<std::vector<agent::PodStatus>()> pods;
  std::function<std::uint64_t()> registration_requests;
  std::function<std::uint64_t()> registration_errors;
  std::function<std::map<std::string, std::uint64_t>()> reconciled;  ///< by action
  std::function<std::vector<std::string>()> unknown_attachments;
  std::function<std::vector<agent::CertManager::Status>()> certificates;
  std::function<agent::CertManager::Counts()> certificate_counts;
  std::function<agent::CaStatus()> ca;
  std::shared_ptr<const proxy::Limits> limits;
  std::function<agent::ResourceStatus()> resources;
  std::function<kube::Enroller::Counts()> kubernetes = {};  ///< empty where the API does not enrol
  std::string version;
};

/// The agent's own metric families: weft_bpf_packets_total{program,verdict,reason}, weft_pods{state},
/// weft_registration_requests_total, weft_registration_errors_total, weft_reconcile_actions_total{action},
/// weft_uncaptured_interfaces, weft_pod_problems, weft_unknown_attachments, weft_pod_packets_total and
/// weft_pod_bytes_total{namespace,pod,direction}, weft_pod_drops_total{namespace,pod,reason}, those of
/// certificate_metrics.h, limit_metrics.h and kube_metrics.h, and those that Istio's ztunnel dashboard reads:
/// istio_build, process_open_fds, workload_manager_active_proxy_count, workload_manager_pending_proxy_count.
[[nodiscard]] std::vector<prometheus::MetricFamily> agent_metrics(const MetricSources& sources);

}  // namespace weft::admin
