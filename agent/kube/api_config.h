// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"

namespace weft::kube {

/// Where Kubernetes puts what a pod needs to ask the API.
inline constexpr const char* kServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How to reach the Kubernetes API. The files are read when they are needed: the token for each request, the roots for
/// each connection, because both are replaced while the agent runs.
struct ApiConfig {
  std::string server;      ///< "https://HOST:PORT", without a slash at its end
  std::string token_file;  ///< a bearer token
  std::string root_file;   ///< PEM: the roots that the server must prove itself by
  milliseconds connect_timeout{3'000};
  milliseconds request_timeout{10'000};  ///< of everything but a watch
};

/// Fills in what is empty as a pod finds it: the server by KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, the
/// files in `folder`. Errors: kInvalid for a server that is no https URL, kNotFound where there is no server to be
/// found.
Result<ApiConfig> complete(ApiConfig given, const std::string& folder = kServiceAccountDir);

}  // namespace weft::kube
