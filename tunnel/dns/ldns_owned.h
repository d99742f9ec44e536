// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>

// After all others: it makes macros of true and false.
#include <ldns/ldns.h>
#undef true
#undef false

/// Who frees what ldns gives. For the .cc files of tunnel/dns alone; to be included last.
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

}  // namespace weft::dns
