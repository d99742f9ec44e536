// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

// After all others: it makes macros of true and false.
#include <ldns/ldns.h>
#undef true
#undef false

/// Who frees what ldns gives, and how it is read. For the .cc files of tunnel/dns alone; to be included last.
namespace weft::dns {

struct LdnsDelete {
  void operator()(ldns_pkt* packet) const { ldns_pkt_free(packet); }
  void operator()(ldns_rr* record) const { ldns_rr_free(record); }
  void operator()(ldns_rdf* data) const { ldns_rdf_deep_free(data); }
  void operator()(char* text) const { std::free(text); }
  void operator()(std::uint8_t* bytes) const { std::free(bytes); }
};
template <class T>
using Owned = std::unique_ptr<T, LdnsDelete>;

/// As people write it; "" where there is no memory.
inline std::string to_text(const ldns_rdf* data) {
  const Owned<char> text(ldns_rdf2str(data));
  return text ? text.get() : "";
}

}  // namespace weft::dns
