// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/identity/cert_manager.h"
#include "tunnel/base/clock.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/state/state.h"

/// Lists for people: the objects of /config_dump, each with what follows from the others.
namespace weft::admin {

/// Workloads with `captured` and `notes`.
[[nodiscard]] nlohmann::json workloads_view(const state::State& state);
/// Services with `captured`, `endpointHealth` {healthy, total} and `notes`.
[[nodiscard]] nlohmann::json services_view(const state::State& state);
/// Policies with `known`, `notes` and `workloads` (to how many they apply); policies that workloads name and that are
/// not known too, with `known` false.
[[nodiscard]] nlohmann::json policies_view(const state::State& state);
/// The certificates of this node's identities: state (as state_of() in certificate_metrics.h says), serial (hex),
/// validFrom, validUntil, renewAt, failures, lastError, revoked (what revokes it, where something does), the roots that
/// peers are verified against, and issuerRoot, the SHA-256 of the one that it hangs on itself.
[[nodiscard]] nlohmann::json certificates_view(
    const std::vector<agent::CertManager::Status>& wanted,
    const std::vector<std::shared_ptr<const hbone::TlsIdentity>>& certificates, WallTime now);

}  // namespace weft::admin
