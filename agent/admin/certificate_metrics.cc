// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/certificate_metrics.h"

#include <array>
#include <map>

#include "agent/admin/metric_family.h"

namespace weft::admin {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

constexpr std::array kStates = {"valid", "due for renewal", "expired", "not yet valid", "revoked", "none"};

double seconds_of(WallTime time) {
  return static_cast<double>(std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count());
}

void add_crl(std::vector<MetricFamily>& families, const agent::CaStatus::Crl& crl) {
  families.push_back(single(
      "weft_crl_usable", "Whether the content of the revocation lists' file counts: 0 where the last version is kept",
      MetricType::Gauge, crl.problem.empty() ? 1 : 0));
  families.push_back(single("weft_crl_refused_total", "Versions of the revocation lists' file that were refused",
                            MetricType::Counter, static_cast<double>(crl.refused)));
  MetricFamily revoked =
      family("weft_crl_revoked_certificates", "Certificates that an issuer's lists name", MetricType::Gauge);
  MetricFamily next = family("weft_crl_next_update_timestamp_seconds",
                             "When an issuer's list is to be replaced by a newer one", MetricType::Gauge);
  std::map<std::string, double> by_issuer, next_by_issuer;
  for (const auto& list : crl.lists) {
    by_issuer[list.issuer] += static_cast<double>(list.revoked);
    if (!list.next_update) continue;
    const auto [at, first] = next_by_issuer.emplace(list.issuer, seconds_of(*list.next_update));
    if (!first) at->second = std::min(at->second, seconds_of(*list.next_update));
  }
  for (const auto& [issuer, count] : by_issuer) add(revoked, {{"issuer", issuer}}, count);
  for (const auto& [issuer, time] : next_by_issuer) add(next, {{"issuer", issuer}}, time);
  families.push_back(std::move(revoked));
  families.push_back(std::move(next));
}

}  // namespace

const char* state_of(const agent::CertManager::Status& status, WallTime now) {
  if (!status.valid_until) return "none";
  if (now >= *status.valid_until) return "expired";
  if (!status.revoked.empty()) return "revoked";
  if (now < *status.valid_from) return "not yet valid";
  return now >= *status.renew_at ? "due for renewal" : "valid";
}

void add_certificate_metrics(std::vector<MetricFamily>& families, const MetricSources& sources, WallTime now) {
  std::map<std::string_view, double> by_state;
  for (const char* state : kStates) by_state[state] = 0;
  MetricFamily expiry = family("weft_certificate_expiry_timestamp_seconds",
                               "When the certificate of an identity of this node ends", MetricType::Gauge);
  for (const auto& status : sources.certificates()) {
    by_state[state_of(status, now)] += 1;
    if (status.valid_until) add(expiry, {{"identity", status.identity.to_uri()}}, seconds_of(*status.valid_until));
  }
  MetricFamily states =
      family("weft_certificates", "Certificates of this node's identities by state", MetricType::Gauge);
  for (const auto& [state, count] : by_state) add(states, {{"state", std::string(state)}}, count);
  families.push_back(std::move(states));
  families.push_back(std::move(expiry));
  MetricFamily requests = family("weft_certificate_requests_total",
                                 "Certificates that were asked for, first ones and renewals", MetricType::Counter);
  const auto counts = sources.certificate_counts();
  add(requests, {{"result", "issued"}}, static_cast<double>(counts.issued));
  add(requests, {{"result", "failed"}}, static_cast<double>(counts.failed));
  families.push_back(std::move(requests));

  const auto ca = sources.ca();
  families.push_back(single("weft_ca_usable", "Whether certificates can be issued now", MetricType::Gauge,
                            ca.problem.empty() ? 1 : 0));
  MetricFamily roots =
      family("weft_root_expiry_timestamp_seconds", "When a root that is trusted ends", MetricType::Gauge);
  for (const auto& root : ca.roots) {
    add(roots, {{"sha256", root.sha256}, {"signs", root.signs ? "true" : "false"}}, seconds_of(root.not_after));
  }
  families.push_back(std::move(roots));
  add_crl(families, ca.crl);
}

}  // namespace weft::admin
