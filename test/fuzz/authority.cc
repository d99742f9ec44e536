// SPDX-License-Identifier: Apache-2.0
/// Where a peer may ask to be connected to: the authority of a CONNECT, and the address parsers behind it.
#include <arpa/inet.h>

#include <algorithm>

#include "test/fuzz/fuzz.h"
#include "tunnel/hbone/headers.h"
#include "tunnel/state/identity.h"
#include "tunnel/state/names.h"
#include "tunnel/state/workload.h"

namespace weft::fuzz {
namespace {

bool only_of(std::string_view text, std::string_view allowed) {
  return text.find_first_not_of(allowed) == std::string_view::npos;
}

constexpr std::string_view kAddressBytes = "0123456789abcdefABCDEF.:";
constexpr std::string_view kNameBytes = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.";

void authority(std::string_view input) {
  const auto read = hbone::parse_authority(input);
  if (!read) {
    require_error(read.error(), "authority");
    require(is_printable(read.error().message()), "an authority is shown printable", read.error().message());
    return;
  }
  require(read->port != 0, "an authority has a port", input);
  const std::string port = ":" + std::to_string(read->port);
  const bool bracketed = input.starts_with('[');
  require(input == (bracketed ? "[" + read->host + "]" : read->host) + port, "an authority is HOST:PORT alone", input);
  require(bracketed == (read->address && read->address->is_v6()), "brackets are for IPv6 alone", input);
  if (read->address) {
    const Endpoint end{*read->address, read->port};
    const auto again = hbone::parse_authority(end.to_string());
    require(again && again->address == read->address && again->port == read->port,
            "an authority's address is the same when it is written again", input);
    require(only_of(read->host, kAddressBytes), "an address is made of its own bytes", input);
    return;
  }
  require(only_of(read->host, kNameBytes) && read->host.size() <= 253, "a host is a DNS name", input);
  // What a C library takes for an address without our knowing ("127.1", "0x7f000001") must not pass as a name.
  in_addr ignored{};
  require(::inet_aton(read->host.c_str(), &ignored) == 0, "a host that is an address is known as one", input);
}

void addresses(std::string_view input) {
  const auto address = IpAddress::parse(input);
  if (address) {
    require(only_of(input, kAddressBytes), "an address is made of its own bytes", input);
    require(address->valid(), "an address that was read is set", input);
    require(IpAddress::parse(address->to_string()).value() == *address, "an address written again is the same", input);
  } else {
    require_error(address.error(), "address");
  }
  const auto endpoint = Endpoint::parse(input);
  if (endpoint) {
    require(only_of(input, std::string(kAddressBytes) + "[]"), "an endpoint is made of its own bytes", input);
    require(Endpoint::parse(endpoint->to_string()).value() == *endpoint, "an endpoint written again is the same",
            input);
    const auto sockaddr = endpoint->to_sockaddr_v6();
    require(Endpoint::from_sockaddr(sockaddr.storage) == *endpoint, "a sockaddr keeps the endpoint", input);
  } else {
    require_error(endpoint.error(), "address:port");
  }
  const auto range = Cidr::parse(input);
  if (range) {
    require(only_of(input, std::string(kAddressBytes) + "/"), "a range is made of its own bytes", input);
    require(Cidr::parse(range->to_string()).value() == *range, "a range written again is the same", input);
    require(range->contains(range->address), "a range has its own address", input);
  } else {
    require_error(range.error());
  }
}

void names(std::string_view input) {
  const auto identity = state::Identity::parse(input);
  if (identity) {
    require(identity->to_uri() == input, "an identity has one spelling", input);
    require(is_printable(input), "an identity is printable", input);
  } else {
    require_error(identity.error(), "identity");
  }
  const auto name = state::NamespacedHostname::parse(input);
  if (name) {
    require(name->to_string() == input, "namespace/hostname written again is the same", input);
  } else {
    require_error(name.error(), "namespace/hostname");
  }
  require(!state::is_host_name(input) || (only_of(input, kNameBytes) && !IpAddress::parse(input)),
          "a name to look up is no address", input);
}

}  // namespace

void one_input(std::string_view input) {
  authority(input);
  addresses(input);
  names(input);
}

}  // namespace weft::fuzz
