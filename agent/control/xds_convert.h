// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "authorization.pb.h"
#include "tunnel/base/error.h"
#include "tunnel/state/state.h"
#include "workload.pb.h"

/// What istiod sends, as the mesh's state has it. Pure. Errors: kInvalid naming the field, what is wrong with it and
/// what was expected; one error for each object, the first that was found.
namespace weft::control {

Result<state::Workload> to_workload(const istio::workload::Workload& wire);
Result<state::Service> to_service(const istio::workload::Service& wire);
Result<state::Policy> to_policy(const istio::security::Authorization& wire);

/// For a policy that to_policy refuses and of which there is no earlier version: one that denies everything to whom it
/// applies, so that what it was to keep out does not come in. Nothing where that is not needed (workloads that name a
/// missing policy deny by themselves; a dry run keeps nobody out), or where its scope or action cannot be told.
std::optional<state::Policy> closed_policy(const istio::security::Authorization& wire);

/// The error of a field.
inline Failure bad_field(const std::string& field, const std::string& what) {
  return fail(ErrorCode::kInvalid, field + ": " + what);
}

/// Reads bytes of the wire: 4 or 16. Errors: kInvalid.
Result<IpAddress> to_ip(std::string_view bytes);

}  // namespace weft::control
