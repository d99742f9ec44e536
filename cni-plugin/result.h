// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "cni-plugin/json.h"
#include "tunnel/base/ip.h"

/// What goes to stdout: results, version documents and errors of the CNI specification 0.3.0 to 1.1.0.
namespace weft::cni {

/// Error codes: those of the specification, then our own from 100.
enum class Code : int {
  kIncompatibleVersion = 1,
  kInvalidEnvironment = 4,
  kIo = 5,
  kDecode = 6,
  kInvalidConfig = 7,
  kInvalidNetns = 8,          ///< CNI_NETNS is the plugin's own
  kTryAgainLater = 11,        ///< the agent is away or not ready
  kNotAvailable = 50,         ///< STATUS: ADD cannot be served
  kLimitedConnectivity = 51,  ///< STATUS: and pods that exist are affected too
  kRefused = 100,             ///< the agent said no
  kWiring = 101,              ///< the pod's netns could not be prepared
  kAttach = 102,              ///< the programs could not be attached
  kCheckFailed = 103,         ///< CHECK found something missing or changed
  kUnsupportedInterface = 104,
  kAgentVersion = 105,  ///< plugin and agent speak different versions
};

/// A failed call: `msg` says what failed and why, `details` what to do about it or the list of findings.
struct CniError {
  Code code = Code::kInvalidConfig;
  std::string msg;
  std::string details;
};

/// A value or what the runtime is told instead.
template <class T>
class [[nodiscard]] CniResult : public tl::expected<T, CniError> {
 public:
  using tl::expected<T, CniError>::expected;
};

[[nodiscard]] inline tl::unexpected<CniError> refuse(Code code, std::string msg, std::string details = {}) {
  return tl::unexpected<CniError>(CniError{code, std::move(msg), std::move(details)});
}

/// The versions that we speak, oldest first.
inline constexpr std::string_view kVersions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
inline constexpr std::string_view kLatestVersion = "1.1.0";
[[nodiscard]] bool is_supported(std::string_view version);

/// The documents, one line each with its newline. `version` is the configured one, or empty where none could be read.
[[nodiscard]] std::string error_document(const CniError& error, std::string_view version);
[[nodiscard]] std::string version_document(std::string_view version);
/// prevResult unchanged in content and order but for cniVersion.
[[nodiscard]] std::string result_document(const Json& prev_result, std::string_view version);

/// The addresses that prevResult gives to the pod's interface: entries of `ips` that point at an interface of this
/// name, or at none. Where the host has an interface of the same name in the list too, the one with a sandbox is meant.
/// An address is named once. Errors: kInvalidConfig naming the member that is malformed.
CniResult<std::vector<IpAddress>> pod_addresses(const Json& prev_result, std::string_view if_name);

}  // namespace weft::cni
