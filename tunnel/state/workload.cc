// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/workload.h"

namespace weft::state {

Result<NamespacedHostname> NamespacedHostname::parse(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos || slash == 0 || slash + 1 == text.size() ||
      text.find('/', slash + 1) != std::string_view::npos) {
    return fail(ErrorCode::kInvalid, "'" + excerpt(text) + "' is not namespace/hostname");
  }
  return NamespacedHostname{std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
}

std::string NamespacedHostname::to_string() const { return namespace_name + "/" + hostname; }

std::string to_string(const GatewayAddress& gateway) {
  if (const auto* name = std::get_if<NamespacedHostname>(&gateway.destination)) return name->to_string();
  const auto& address = std::get<NetworkAddress>(gateway.destination);
  return address.network + "/" + address.address.to_string();
}

}  // namespace weft::state
