// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tunnel/state/state.h"

namespace weft::state {

/// What decides where a connection from `source` to `address` goes, so far as `state` shows: the names under which a
/// control plane that tells only what it is asked for can be asked, "network/address" or "namespace/hostname". Empty
/// where a workload that is known decides alone: of what it has told, the control plane tells every change. Once these
/// are known there may be others, of what is behind them. Pure.
[[nodiscard]] std::vector<std::string> names_to_ask(const State& state, const Workload& source,
                                                    const IpAddress& address);

}  // namespace weft::state
