// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tunnel/base/clock.h"

namespace weft::admin {

/// Every certificate of a PEM text: {pem (base64 of the PEM), serialNumber (decimal), validFrom, expirationTime}. What
/// cannot be read ends the list.
[[nodiscard]] nlohmann::json certificates_in(const std::string& pem);

/// The same for people: {subject, sha256 (hex, of the certificate), validFrom, expirationTime}.
[[nodiscard]] nlohmann::json certificate_summaries(const std::string& pem);

/// "2026-01-31T12:00:00Z"
[[nodiscard]] std::string rfc3339(WallTime time);

}  // namespace weft::admin
