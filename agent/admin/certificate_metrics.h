// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/metric_family.h>

#include <vector>

#include "agent/admin/agent_metrics.h"

namespace weft::admin {

/// Adds weft_certificates{state}, weft_certificate_expiry_timestamp_seconds{identity},
/// weft_certificate_requests_total{result}, weft_ca_usable, weft_root_expiry_timestamp_seconds{sha256,signs},
/// weft_crl_usable, weft_crl_refused_total, and of each list weft_crl_revoked_certificates{issuer} and
/// weft_crl_next_update_timestamp_seconds{issuer}.
void add_certificate_metrics(std::vector<prometheus::MetricFamily>& families, const MetricSources& sources,
                             WallTime now);

/// Of a certificate: "valid", "due for renewal", "expired", "not yet valid", "revoked", "none".
[[nodiscard]] const char* state_of(const agent::CertManager::Status& status, WallTime now);

}  // namespace weft::admin
