// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "agent/identity/local_ca.h"
#include "tunnel/base/clock.h"

namespace weft::admin {

/// Every certificate of a PEM text: {pem (base64 of the PEM), serialNumber (decimal), validFrom, expirationTime}. What
/// cannot be read ends the list.
[[nodiscard]] nlohmann::json certificates_in(const std::string& pem);

/// The same for people: {subject, sha256 (hex, of the certificate), validFrom, expirationTime}.
[[nodiscard]] nlohmann::json certificate_summaries(const std::string& pem);

/// Where certificates come from and what is revoked: {directory, usable, problem, roots: [{subject, sha256,
/// expirationTime, signs}], crl: {file, usable, problem, notes, refused, lists: [{issuer, thisUpdate, nextUpdate,
/// revoked, verified}]}}.
[[nodiscard]] nlohmann::json to_json(const agent::CaStatus& ca);

}  // namespace weft::admin
