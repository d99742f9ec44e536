// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/explain/parties.h"

namespace weft::agent {

/// One connection that is asked about.
struct ExplainAsked {
  const ExplainView& view;
  const ExplainSource& source;
  const state::State::Addresses& mesh;  ///< what the capture map has
  Endpoint original;

  [[nodiscard]] const std::string& network() const { return source.workload ? source.workload->network : view.network; }
};

/// An endpoint that is allowed, with the workload's names where there is one.
[[nodiscard]] ExplainedEndpoint endpoint_of(const state::WorkloadPtr& workload, const Endpoint& target);
void refuse(ExplainedEndpoint& endpoint, std::string reason);

/// What becomes of a captured connection where route() leads it.
[[nodiscard]] ExplainedEndpoint at_destination(const ExplainAsked& asked, const state::Destination& destination);
/// What becomes of plaintext at `target`.
[[nodiscard]] ExplainedEndpoint in_plaintext(const ExplainAsked& asked, const Endpoint& target);

}  // namespace weft::agent
