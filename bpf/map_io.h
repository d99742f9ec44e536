// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/bpf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bpf/shared.h"
#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::bpf {

/// A map of known key and value types; borrows the descriptor. `name` is for error texts.
template <class Key, class Value>
struct Map {
  int fd = -1;
  const char* name = "";

  /// Consistent as long as nobody deletes meanwhile.
  [[nodiscard]] Result<std::vector<Key>> keys() const {
    std::vector<Key> out;
    Key next{};
    const Key* last = nullptr;
    while (bpf_map_get_next_key(fd, last, &next) == 0) {
      out.push_back(next);
      last = &out.back();
    }
    if (errno != ENOENT) return fail_errno(errno, "list the map " + std::string(name));
    return out;
  }
  /// The same with a system call for thousands, where the kernel has that for the map's type. Not for maps with a value
  /// for each CPU.
  [[nodiscard]] Result<std::vector<Key>> keys_at_once() const {
    constexpr std::uint32_t kAtOnce = 4096;
    std::vector<Key> out;
    std::vector<Value> values(kAtOnce);
    std::array<std::byte, std::max(sizeof(Key), sizeof(std::uint32_t))> at{};
    for (bool first = true;; first = false) {
      const std::size_t before = out.size();
      out.resize(before + kAtOnce);
      std::uint32_t count = kAtOnce;
      const int done = bpf_map_lookup_batch(fd, first ? nullptr : at.data(), at.data(), &out[before], values.data(),
                                            &count, nullptr);
      if (done != 0 && errno != ENOENT) return keys();
      out.resize(before + count);
      if (done != 0) return out;
    }
  }
  [[nodiscard]] Result<std::optional<Value>> get(const Key& key) const {
    Value value{};
    if (bpf_map_lookup_elem(fd, &key, &value) == 0) return std::optional<Value>(value);
    if (errno == ENOENT) return std::optional<Value>();
    return fail_errno(errno, "read the map " + std::string(name));
  }
  Result<void> put(const Key& key, const Value& value) const {
    if (bpf_map_update_elem(fd, &key, &value, BPF_ANY) == 0) return {};
    if (errno == E2BIG) return fail(ErrorCode::kUnavailable, "write the map " + std::string(name) + ": it is full");
    return fail_errno(errno, "write the map " + std::string(name));
  }
  Result<void> remove(const Key& key) const {
    if (bpf_map_delete_elem(fd, &key) == 0 || errno == ENOENT) return {};
    return fail_errno(errno, "delete from the map " + std::string(name));
  }
};

inline weft_addr to_key(const IpAddress& address) {
  weft_addr key{};
  key.family = address.is_v4() ? 4 : 6;
  std::memcpy(key.addr, address.bytes().data(), address.bytes().size());
  return key;
}

inline weft_cidr to_key(const Cidr& cidr) { return {32U + cidr.length, to_key(cidr.address)}; }

inline IpAddress to_address(const weft_addr& key) {
  const auto bytes = std::as_bytes(std::span(key.addr));
  return IpAddress::from_bytes(bytes.first(key.family == 4 ? 4 : 16));
}

}  // namespace weft::bpf
