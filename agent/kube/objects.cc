// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/objects.h"

#include <algorithm>
#include <string_view>

#include "cni-plugin/conf.h"

namespace weft::kube {
namespace {

constexpr const char* kStaticPodUid = "kubernetes.io/config.hash";

std::optional<std::string> entry(const Json* map, std::string_view key) {
  if (map == nullptr) return {};
  const Json* found = cni::member(*map, std::string(key).c_str());
  if (found == nullptr || !found->is_string()) return {};
  return found->get<std::string>();
}

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Result<Meta> parse_meta(const char* kind, const Json& object) {
  const Json* metadata = cni::member(object, "metadata");
  if (metadata == nullptr) return fail(ErrorCode::kInvalid, std::string(kind) + " of the API: metadata is missing");
  Meta meta{.name = cni::text_member(*metadata, "name"),
            .uid = cni::text_member(*metadata, "uid"),
            .version = cni::text_member(*metadata, "resourceVersion"),
            .dataplane_mode = entry(cni::member(*metadata, "labels"), kDataplaneMode)};
  if (meta.name.empty()) return fail(ErrorCode::kInvalid, std::string(kind) + " of the API: metadata.name is missing");
  return meta;
}

}  // namespace

Result<Namespace> parse_namespace(const Json& object) {
  auto meta = parse_meta("a namespace", object);
  if (!meta) return Failure(meta.error());
  return Namespace{std::move(*meta)};
}

Result<Pod> parse_pod(const Json& object) {
  auto meta = parse_meta("a pod", object);
  if (!meta) return Failure(meta.error());
  Pod pod;
  pod.meta = std::move(*meta);
  const Json& metadata = *cni::member(object, "metadata");
  pod.namespace_name = cni::text_member(metadata, "namespace");
  if (pod.namespace_name.empty()) return fail(ErrorCode::kInvalid, "a pod of the API: metadata.namespace is missing");
  if (const Json* annotations = cni::member(metadata, "annotations")) {
    pod.redirection = entry(annotations, kRedirection).value_or("");
    pod.sidecar = annotations->contains(kSidecarStatus);
    pod.static_uid = entry(annotations, kStaticPodUid).value_or("");
    pod.annotations = cni::understood_annotations({{cni::kAnnotationsCapability, *annotations}});
  }
  if (const Json* spec = cni::member(object, "spec")) {
    const Json* host_network = cni::member(*spec, "hostNetwork");
    pod.host_network = host_network != nullptr && host_network->is_boolean() && host_network->get<bool>();
  }
  if (const Json* status = cni::member(object, "status")) {
    pod.phase = cni::text_member(*status, "phase");
    pod.has_address = !cni::text_member(*status, "podIP").empty();
  }
  return pod;
}

bool is_older(const std::string& version, const std::string& known) {
  if (!is_number(version) || !is_number(known)) return false;
  return version.size() != known.size() ? version.size() < known.size() : version < known;
}

}  // namespace weft::kube
