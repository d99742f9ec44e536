// SPDX-License-Identifier: Apache-2.0
/// What libcni keeps of the pods of a node.
#include "agent/reconcile/cni_cache.h"

#include <algorithm>

#include "cni-plugin/conf.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using cni::Json;

/// As libcni writes it.
std::string written_again(const agent::CachedAttachment& cached) {
  Json document;
  document["kind"] = "cniCacheV1";
  document["containerId"] = cached.key.container_id;
  document["ifName"] = cached.key.if_name;
  document["networkName"] = cached.network;
  document["netns"] = cached.netns;
  document["cniArgs"] =
      Json::array({Json::array({"K8S_POD_NAMESPACE", cached.pod.pod_namespace}),
                   Json::array({"K8S_POD_NAME", cached.pod.name}), Json::array({"K8S_POD_UID", cached.pod.uid})});
  document["capabilityArgs"][cni::kAnnotationsCapability] = cached.annotations;
  document["result"] = cached.result;
  return cni::to_text(document);
}

}  // namespace

void one_input(std::string_view input) {
  const auto read = agent::parse_cached(std::string(input));
  if (!read) return require_error(read.error(), "CNI cache entry: ");
  require(cni::is_identifier(read->key.container_id) && cni::is_interface_name(read->key.if_name),
          "an entry says whose it is", input);
  require(read->key.if_name.find('\0') == std::string::npos, "an interface's name is a C string", input);
  require(!read->network.empty() && read->result.is_object(), "an entry has a network and a result", input);
  for (const auto& [name, value] : read->annotations) {
    require(std::ranges::find(cni::kUnderstoodAnnotations, name) != std::end(cni::kUnderstoodAnnotations),
            "annotations that mean nothing are left out", name);
  }
  const std::string text = written_again(*read);
  const auto again = agent::parse_cached(text);
  require(again && again->key == read->key && again->network == read->network && again->netns == read->netns &&
              again->pod.pod_namespace == read->pod.pod_namespace && again->pod.name == read->pod.name &&
              again->pod.uid == read->pod.uid && again->annotations == read->annotations &&
              again->result == read->result,
          "an entry written again is the same", text);
  // What reconciliation asks of it next.
  const auto addresses = cni::pod_addresses(read->result, read->key.if_name);
  if (!addresses) require_text(addresses.error().msg, "prevResult.");
}

}  // namespace weft::fuzz
