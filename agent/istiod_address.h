// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace weft::agent {

/// Where istiod is and who it must be, and who asks.
struct IstiodAddress {
  std::string address;                                  ///< HOST:PORT
  std::string root_file;                                ///< PEM: what istiod's certificate is verified against
  std::string server_name = "istiod.istio-system.svc";  ///< that its certificate must carry
  std::string token_file;                               ///< a Kubernetes service account token for istiod
  std::string cluster_id = "Kubernetes";                ///< whose API server vouches for the token
};

}  // namespace weft::agent
