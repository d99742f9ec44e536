// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cni-plugin/result.h"

namespace weft::cni {

enum class Command : std::uint8_t { kAdd, kDel, kCheck, kGc, kStatus, kVersion };

/// The CNI_* variables as the runtime set them; empty where it set none.
struct Environment {
  std::string command;
  std::string container_id;
  std::string netns;
  std::string if_name;
  std::string args;

  static Environment from_process();
};

/// Errors: kInvalidEnvironment for anything but the six verbs in capitals.
CniResult<Command> parse_command(std::string_view text);

/// Whether the variables that the verb needs are there and well formed. Errors: kInvalidEnvironment, naming all that
/// are missing, or the one that is malformed with its value and what was expected.
CniResult<void> validate(Command command, const Environment& environment);

/// True for what the specification allows as container ID and network name: a letter or digit, then letters, digits,
/// `_`, `.` and `-`.
[[nodiscard]] bool is_identifier(std::string_view text);
/// True for a name that the kernel takes for an interface.
[[nodiscard]] bool is_interface_name(std::string_view text);

/// Who the pod is, from the K8S_POD_* keys of CNI_ARGS; all empty for a container that no Kubernetes started.
struct PodIdentity {
  std::string pod_namespace, name, uid;
  /// Takes one of these keys; others are ignored.
  void take(std::string_view key, std::string_view value);
};
/// Unknown keys and malformed pairs are ignored; their order is free.
[[nodiscard]] PodIdentity pod_identity(std::string_view cni_args);

}  // namespace weft::cni
