// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/api_client.h"

/// Of Kubernetes' objects, what enrolment needs; all else is dropped as it is read.
namespace weft::kube {

/// On pods and namespaces: "ambient" or, on a pod, "none".
inline constexpr const char* kDataplaneMode = "istio.io/dataplane-mode";
/// Says that the pod is captured: whoever calls it may use HBONE. What the agent writes.
inline constexpr const char* kRedirection = "ambient.istio.io/redirection";
inline constexpr const char* kRedirectionEnabled = "enabled";
/// Put on by the injector of sidecars.
inline constexpr const char* kSidecarStatus = "sidecar.istio.io/status";

/// What all of them have.
struct Meta {
  std::string name, uid;
  std::string version;                        ///< resourceVersion
  std::optional<std::string> dataplane_mode;  ///< the label
  bool operator==(const Meta&) const = default;
};

struct Namespace {
  Meta meta;
  bool operator==(const Namespace&) const = default;
};

struct Pod {
  Meta meta;
  std::string namespace_name;
  std::string redirection;                         ///< the annotation; empty where there is none
  std::map<std::string, std::string> annotations;  ///< those that Weft understands
  std::string static_uid;                          ///< of a static pod: what the kubelet calls it
  std::string phase;
  bool sidecar = false;
  bool host_network = false;
  bool has_address = false;  ///< its network was made
  bool operator==(const Pod&) const = default;

  [[nodiscard]] std::string key() const { return namespace_name + "/" + meta.name; }
  [[nodiscard]] bool finished() const { return phase == "Succeeded" || phase == "Failed"; }
  [[nodiscard]] bool redirected() const { return redirection == kRedirectionEnabled; }
  /// Whether a runtime that names this UID means this pod.
  [[nodiscard]] bool is(const std::string& runtime_uid) const {
    return runtime_uid.empty() || runtime_uid == meta.uid || (!static_uid.empty() && runtime_uid == static_uid);
  }
};

/// Errors: kInvalid, naming the field that is missing.
Result<Namespace> parse_namespace(const Json& object);
Result<Pod> parse_pod(const Json& object);

/// Whether `version` is older than `known`, both resourceVersions of one object. The API says of them that they are
/// numbers that grow; anything else is never older.
[[nodiscard]] bool is_older(const std::string& version, const std::string& known);

}  // namespace weft::kube
