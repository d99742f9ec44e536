// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::dns {

/// The servers that a resolv.conf names (resolv.conf(5)): its `nameserver` lines in order, the first three. What cannot
/// be read as an address is skipped, as the C library does; everything else in the file is of no matter here.
[[nodiscard]] std::vector<IpAddress> parse_resolv_conf(std::string_view text);

/// The servers of one resolv.conf, read again whenever the file has changed. One thread.
class Servers {
 public:
  /// `port` is 53 but in tests.
  Servers(std::string path, std::uint16_t port) : path_(std::move(path)), port_(port) {}
  /// Errors: the file cannot be read, or names no server.
  Result<std::vector<Endpoint>> get();

 private:
  std::string path_;
  std::uint16_t port_;
  struct stat seen_ {};
  std::vector<Endpoint> servers_;
};

}  // namespace weft::dns
