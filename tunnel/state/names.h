// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/ip.h"
#include "tunnel/state/service.h"

namespace weft::state {

/// What is known of a name's addresses at one moment.
struct NameAnswer {
  enum class Kind : std::uint8_t {
    kPending,    ///< being looked up
    kAddresses,  ///< `addresses`, one at least
    kFailed,     ///< `reason` says why
  } kind = Kind::kPending;
  std::shared_ptr<const std::vector<IpAddress>> addresses;
  std::string reason;
};

/// A host's name as DNS can be asked for it: labels of at most 63 letters, digits, '-' and '_' between dots, 253 in
/// all, with or without a dot at the end. No address and no wildcard.
[[nodiscard]] bool is_host_name(std::string_view text);

/// Names that differ in nothing that DNS looks at are one: `text` in small letters.
[[nodiscard]] std::string small_letters(std::string text);
/// The same, and without the dot at its end.
[[nodiscard]] std::string canonical_name(std::string text);

/// One of a name's addresses to dial: of `families`, of the family of `like` where there is one, `avoid` (it may be
/// unset) only where there is no other. What leads back to the dialler itself (loopback, unspecified) is left out.
/// Unset where none is left. Pure: `random` alone decides among equals.
[[nodiscard]] IpAddress choose_address(const std::vector<IpAddress>& addresses, const IpAddress& like,
                                       IpFamilies families, std::uint64_t random, const IpAddress& avoid);

}  // namespace weft::state
