// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "tunnel/base/ip.h"

namespace weft::bpf {

/// Addresses and ranges of whoever owns them.
struct AddressList {
  std::span<const IpAddress> addresses;
  std::span<const Cidr> cidrs;
};

}  // namespace weft::bpf
