// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/connection_result.h"

namespace weft::telemetry {

const char* to_string(ResponseFlag flag) {
  switch (flag) {
    case ResponseFlag::kNone:
      return "-";
    case ResponseFlag::kDeny:
      return "DENY";
    case ResponseFlag::kConnect:
      return "CONNECT";
    case ResponseFlag::kTlsFailure:
      return "TLS_FAILURE";
    case ResponseFlag::kH2HandshakeFailure:
      return "H2_HANDSHAKE_FAILURE";
    case ResponseFlag::kNetworkPolicy:
      return "NETWORK_POLICY";
    case ResponseFlag::kIdentityError:
      return "IDENTITY_ERROR";
    case ResponseFlag::kCertRevoked:
      return "CERT_REVOKED";
    case ResponseFlag::kOverflow:
      return "UO";
    case ResponseFlag::kUnregistered:
      return "UH";
  }
  return "-";
}

}  // namespace weft::telemetry
