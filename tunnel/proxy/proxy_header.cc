// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/proxy_header.h"

#include <array>
#include <limits>
#include <string>

namespace weft::proxy {
namespace {

constexpr std::array<unsigned char, 12> kSignature{0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                   0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
constexpr unsigned char kVersion2Proxy = 0x21;
constexpr unsigned char kTcpOverIpv4 = 0x11;
constexpr unsigned char kTcpOverIpv6 = 0x21;
constexpr std::size_t kPortBytes = 2;
constexpr std::size_t kTlvHead = 3;

class Writer {
 public:
  explicit Writer(std::size_t size) { bytes_.reserve(size); }
  void byte(unsigned value) { bytes_.push_back(static_cast<std::byte>(value)); }
  /// In network order.
  void number(std::size_t value) {
    byte(static_cast<unsigned>(value >> 8) & 0xffU);
    byte(static_cast<unsigned>(value) & 0xffU);
  }
  void address(const IpAddress& address, bool as_v6) {
    if (as_v6 && address.is_v4()) {
      for (int i = 0; i < 10; ++i) byte(0);
      number(0xffff);
    }
    bytes_.insert(bytes_.end(), address.bytes().begin(), address.bytes().end());
  }
  void text(std::string_view text) {
    for (const char c : text) byte(static_cast<unsigned char>(c));
  }
  [[nodiscard]] std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

Result<std::vector<std::byte>> proxy_header(const Endpoint& source, const Endpoint& destination,
                                            const state::Identity& identity) {
  const std::string what = "write a PROXY header for " + identity.to_uri() + ": ";
  if (!source.address.valid() || !destination.address.valid()) {
    return fail(ErrorCode::kInvalid, what + "an address is not set");
  }
  const std::string uri = identity.to_uri();
  const bool v6 = source.address.is_v6() || destination.address.is_v6();
  const std::size_t length = 2 * ((v6 ? 16 : 4) + kPortBytes) + kTlvHead + uri.size();
  if (length > std::numeric_limits<std::uint16_t>::max()) {
    return fail(ErrorCode::kInvalid, "write a PROXY header: the identity has " + std::to_string(uri.size()) +
                                         " bytes, more than the header has room for");
  }
  Writer out(kSignature.size() + 4 + length);
  for (const auto byte : kSignature) out.byte(byte);
  out.byte(kVersion2Proxy);
  out.byte(v6 ? kTcpOverIpv6 : kTcpOverIpv4);
  out.number(length);
  out.address(source.address, v6);
  out.address(destination.address, v6);
  out.number(source.port);
  out.number(destination.port);
  out.byte(kPeerIdentityTlv);
  out.number(uri.size());
  out.text(uri);
  return out.take();
}

}  // namespace weft::proxy
