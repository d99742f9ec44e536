// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cni-plugin/environment.h"
#include "cni-plugin/json.h"
#include "cni-plugin/registration.h"
#include "cni-plugin/result.h"

namespace weft::cni {

/// What ADD does when the agent is away.
enum class FailurePolicy : std::uint8_t { kClosed, kOpen };
/// What ADD does with a pod whose interface cannot be wired.
enum class UnsupportedInterface : std::uint8_t { kFail, kPass };

/// The plugin's entry of the network configuration list. Keys that are not ours are ignored.
struct Conf {
  std::string cni_version;
  std::string name;
  std::string agent_socket = "/run/weft/agent.sock";                         ///< agentSocket
  std::string bpf_root = "/sys/fs/bpf/weft";                                 ///< bpfRoot
  int registration_timeout_ms = 5000;                                        ///< registrationTimeoutMs
  FailurePolicy failure_policy = FailurePolicy::kClosed;                     ///< failurePolicy
  UnsupportedInterface unsupported_interface = UnsupportedInterface::kFail;  ///< unsupportedInterface
  /// excludeNamespaces; a list in the configuration replaces this one. Pods in them are never wired and never wait.
  std::vector<std::string> exclude_namespaces = {"kube-system", "istio-system", "weft-system"};
  std::string log_level = "info";  ///< logLevel
  std::string log_file;            ///< logFile; empty: stderr
  std::optional<Json> prev_result;
  /// GC's cni.dev/valid-attachments. Empty optional: the runtime sent none, which is not the same as an empty list.
  std::optional<std::vector<AttachmentKey>> valid_attachments;

  /// The pod's annotations that Weft understands (kUnderstoodAnnotations), from the capability
  /// io.kubernetes.cri.pod-annotations where the list declares it.
  std::map<std::string, std::string> annotations;

  /// One text for each key of ours with a bad value (key, value, what was expected); that key has its default.
  std::vector<std::string> problems;

  [[nodiscard]] bool excludes(std::string_view pod_namespace) const;
};

/// The annotations of pods that mean something to Weft; others stay where they are.
inline constexpr std::string_view kUnderstoodAnnotations[] = {kRerouteInterfaces, kKubevirtInterfaces, kBypassInbound,
                                                              kDnsCapture};

/// The capability by which runtimes hand over a pod's annotations.
inline constexpr const char* kAnnotationsCapability = "io.kubernetes.cri.pod-annotations";

/// The understood ones among those that a runtime gave with the capability; anything else is ignored.
[[nodiscard]] std::map<std::string, std::string> understood_annotations(const Json& capability_arguments);

/// The document on stdin, which must be a JSON object. Errors: kDecode.
CniResult<Json> parse_stdin(std::string_view text);

/// The configured version. Errors: kDecode when it is no text, kIncompatibleVersion when we do not speak it (an absent
/// one means 0.1.0), or when it is too old for the verb.
CniResult<std::string> configured_version(const Json& document, Command command);

/// The rest of the configuration. Errors: kInvalidConfig for name, prevResult and cni.dev/valid-attachments. Bad values
/// of our own keys are left to the caller in `problems`: DEL must go on in spite of them.
CniResult<Conf> parse_conf(const Json& document, std::string version, Command command);

}  // namespace weft::cni
