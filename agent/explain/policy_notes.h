// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tunnel/state/state.h"

namespace weft::agent {

/// What a reader of the policy should know because it may surprise: what never matches or matches everything, what
/// applies to nothing, and that a dry run is not enforced. One text each; none where it is as it looks. Pure.
[[nodiscard]] std::vector<std::string> policy_notes(const state::State& state, const state::Policy& policy);

/// The workloads that the policy applies to.
[[nodiscard]] std::size_t workloads_under(const state::State& state, const state::Policy& policy);

/// Policies that workloads name and that are not known, by "namespace/name", with the uids of those workloads: all
/// connections to them are denied.
[[nodiscard]] std::map<std::string, std::vector<std::string>> unknown_policies(const state::State& state);

}  // namespace weft::agent
