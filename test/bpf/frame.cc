// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/frame.h"

#include <algorithm>

namespace weft::test {
namespace {

using Bytes = std::vector<std::uint8_t>;

void put8(Bytes& out, std::size_t value) { out.push_back(static_cast<std::uint8_t>(value)); }
void put16(Bytes& out, std::size_t value) {
  put8(out, value >> 8);
  put8(out, value & 0xff);
}
void put_address(Bytes& out, const IpAddress& address) {
  for (const std::byte b : address.bytes()) out.push_back(std::to_integer<std::uint8_t>(b));
}
void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

Bytes transport(const Frame& f) {
  Bytes out;
  put16(out, f.source_port);
  put16(out, f.destination_port);
  out.resize(out.size() + 8);  // sequence numbers
  put8(out, 5 << 4);
  put8(out, f.flags);
  out.resize(out.size() + 6 + f.payload);
  return out;
}

Bytes ipv4(const Frame& f, const Bytes& body) {
  Bytes options = f.options;
  options.resize((options.size() + 3) / 4 * 4);
  Bytes out;
  put8(out, 0x40 + 5 + options.size() / 4);
  put8(out, 0);
  put16(out, 20 + options.size() + body.size());
  put16(out, 0x1234);
  put16(out, f.fragment);
  put8(out, 64);
  put8(out, f.protocol);
  put16(out, 0);
  put_address(out, f.source);
  put_address(out, f.destination);
  append(out, options);
  append(out, body);
  return out;
}

Bytes ipv6(const Frame& f, const Bytes& body) {
  Bytes chain;
  for (std::size_t i = 0; i < f.extensions.size(); ++i) {
    put8(chain, i + 1 < f.extensions.size() ? f.extensions[i + 1].first : f.protocol);
    append(chain, f.extensions[i].second);
  }
  append(chain, body);
  Bytes out;
  put8(out, 0x60);
  out.resize(4);
  put16(out, chain.size());
  put8(out, f.extensions.empty() ? f.protocol : f.extensions[0].first);
  put8(out, 64);
  put_address(out, f.source);
  put_address(out, f.destination);
  append(out, chain);
  return out;
}

}  // namespace

std::vector<std::uint8_t> Frame::bytes() const {
  Bytes out{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
  for (const std::uint16_t tag : vlan_tags) {
    put16(out, tag);
    put16(out, 5);  // the VLAN's number
  }
  if (ethertype != 0) {
    put16(out, ethertype);
    out.resize(out.size() + 46);
  } else {
    put16(out, source.is_v4() ? 0x0800 : 0x86dd);
    append(out, source.is_v4() ? ipv4(*this, transport(*this)) : ipv6(*this, transport(*this)));
  }
  out.resize(out.size() - std::min(cut, out.size()));
  return out;
}

}  // namespace weft::test
