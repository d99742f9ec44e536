// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_config.h"

#include <cstdlib>
#include <string_view>

namespace weft::kube {
namespace {

constexpr std::string_view kScheme = "https://";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Result<ApiConfig> complete(ApiConfig given, const std::string& folder) {
  if (given.server.empty()) {
    const std::string host = variable("KUBERNETES_SERVICE_HOST"), port = variable("KUBERNETES_SERVICE_PORT");
    if (host.empty()) {
      return fail(ErrorCode::kNotFound,
                  "find the Kubernetes API: KUBERNETES_SERVICE_HOST is not set (does the agent run as a pod? elsewhere "
                  "--kube-api names it)");
    }
    const bool v6 = host.find(':') != std::string::npos && host.front() != '[';
    given.server = std::string(kScheme) + (v6 ? "[" + host + "]" : host) + ":" + (port.empty() ? "443" : port);
  }
  while (given.server.ends_with('/')) given.server.pop_back();
  if (!given.server.starts_with(kScheme) || given.server.size() == kScheme.size()) {
    return fail(ErrorCode::kInvalid, "the Kubernetes API " + in_quotes(given.server) +
                                         ": expected https://HOST:PORT (the token goes to nobody who has not proved "
                                         "himself)");
  }
  if (given.token_file.empty()) given.token_file = folder + "/token";
  if (given.root_file.empty()) given.root_file = folder + "/ca.crt";
  return given;
}

}  // namespace weft::kube
