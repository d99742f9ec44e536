// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <functional>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::state {

/// A workload's SPIFFE identity, exactly `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.
struct Identity {
  std::string trust_domain;
  std::string namespace_name;
  std::string service_account;

  /// Accepts only the exact form above with non-empty parts; anything else is kInvalid.
  static Result<Identity> parse(std::string_view spiffe_uri);
  [[nodiscard]] std::string to_uri() const;
  /// The form that policies compare: the URI without `spiffe://`.
  [[nodiscard]] std::string to_principal() const;
  auto operator<=>(const Identity&) const = default;
};

}  // namespace weft::state

template <>
struct std::hash<weft::state::Identity> {
  std::size_t operator()(const weft::state::Identity& i) const noexcept {
    const std::hash<std::string> h;
    return weft::hash_combine(weft::hash_combine(h(i.trust_domain), h(i.namespace_name)), h(i.service_account));
  }
};
