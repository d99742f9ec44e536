// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/state/state.h"

/// The names that the mesh itself knows, and what they mean to whom.
namespace weft::dns {

/// Who asks.
struct Client {
  std::string_view namespace_name;
  std::string_view network;
};

/// What the mesh answers for a name. Without addresses it exists all the same.
struct KnownName {
  state::ServicePtr service;
  std::vector<IpAddress> addresses;  ///< of both families, in the order of the configuration
};

/// The spellings under which a name may be known to a client of the namespace, the likeliest first: as it is; as a name
/// of Kubernetes that is written in short (`svc`, `svc.ns`, `svc.ns.svc`); and both again without each of the search
/// domains that a pod's resolver appends. Names in small letters, without a dot at the end. Pure.
[[nodiscard]] std::vector<std::string> spellings(std::string_view name, std::string_view namespace_name,
                                                 std::string_view cluster_domain);

/// Looks a name up: each spelling as it is, then as what wildcards stand for, from the longest one on. Of services with
/// that hostname those count that the client may see and that have an address of their own, or are headless services of
/// Kubernetes; of several the one of the client's namespace, then the canonical one, then the first. A service's
/// addresses are its VIPs in the client's network, a headless one's those of its healthy endpoints there. Nothing where
/// the name is none of the mesh's. Pure.
[[nodiscard]] std::optional<KnownName> find_name(const state::State& state, const Client& client, std::string_view name,
                                                 std::string_view cluster_domain);

}  // namespace weft::dns
