// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"
#include "tunnel/state/identity.h"

namespace weft::proxy {

/// The TLV in which Istio's proxies carry the identity of the peer that they have authenticated, as its SPIFFE URI. The
/// specification leaves 0xE0 to 0xEF to applications; Istio took one outside of that.
inline constexpr unsigned char kPeerIdentityTlv = 0xd0;

/// A header of the PROXY protocol, version 2 (haproxy's proxy-protocol.txt, section 2.2): command PROXY, a TCP
/// connection from `source` to `destination`, and `identity` in its TLV. It has one family for both: where they differ
/// the IPv4 address is written as an IPv4-mapped IPv6 one. Weft only ever writes such a header. Errors: kInvalid for an
/// address that is unset, or an identity that is too long for the header's 16 bits.
Result<std::vector<std::byte>> proxy_header(const Endpoint& source, const Endpoint& destination,
                                            const state::Identity& identity);

}  // namespace weft::proxy
