// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

/// The registration protocol between weft-cni and weft-agent.
///
/// Transport: a Unix SOCK_SEQPACKET socket (default /run/weft/agent.sock), one request packet and one reply packet a
/// connection, each a JSON document of at most kMaxMessage bytes; the agent closes after its reply. A `register`
/// request carries the descriptor of the pod's netns as SCM_RIGHTS ancillary data; no other message carries one.
///
/// Request: {"version": 1, "verb": "register" | "unregister" | "check" | "gc" | "status", ...} with
/// - register: containerId, ifName, netns (path), podNamespace, podName, podUid, addresses [text], ifindex,
/// hostIfindex,
///   annotations {name: text} (may be absent; those of the pod that Weft understands)
/// - unregister: containerId, ifName
/// - check: containerId, ifName, netnsInode
/// - gc: valid: [{containerId, ifName}]
/// - status: nothing
///
/// Reply: {"version": 1, "ok": true, "enrolled": bool, "notes": [text]}, or
/// {"version": 1, "ok": false, "code": "unavailable" | "invalid" | "denied" | "not-found" | "internal", "message":
/// text}.
///
/// Order for a new pod: the plugin sends `register`; the agent opens the pod's listeners, writes its map entries and
/// only then answers; the plugin attaches the programs. For a pod that goes: the plugin sends `unregister` first, so
/// that the agent's listeners let the netns go, then detaches.
///
/// Versions: a receiver ignores keys that it does not know. A version above its own is refused with ok=false, code
/// "unsupported" and its own version in "version", so that both sides can name both versions.
namespace weft::cni {

inline constexpr int kProtocolVersion = 1;
inline constexpr std::size_t kMaxMessage = 64 * 1024;

enum class Verb : std::uint8_t { kRegister, kUnregister, kCheck, kGc, kStatus };

/// Annotations of a pod: the interfaces, separated by commas, through which a virtual machine inside the pod reaches
/// it. The second is the older name.
inline constexpr std::string_view kRerouteInterfaces = "istio.io/reroute-virtual-interfaces";
inline constexpr std::string_view kKubevirtInterfaces = "traffic.sidecar.istio.io/kubevirtInterfaces";
/// "true": what comes to the pod in plaintext is let in without a look at policies.
inline constexpr std::string_view kBypassInbound = "ambient.istio.io/bypass-inbound-capture";
/// "true" or "false": whether the pod's DNS is captured; anything else, or nothing, leaves it to the agent.
inline constexpr std::string_view kDnsCapture = "ambient.istio.io/dns-capture";

struct AttachmentKey {
  std::string container_id;
  std::string if_name;
  auto operator<=>(const AttachmentKey&) const = default;
};

struct Request {
  int version = kProtocolVersion;
  Verb verb = Verb::kStatus;
  AttachmentKey key;  ///< register, unregister, check
  std::string netns;  ///< register: the path, for the records and the log; the descriptor counts
  std::string pod_namespace, pod_name, pod_uid;
  std::vector<IpAddress> addresses;
  std::map<std::string, std::string> annotations;
  std::uint32_t ifindex = 0;
  std::uint32_t host_ifindex = 0;
  std::uint64_t netns_inode = 0;     ///< check
  std::vector<AttachmentKey> valid;  ///< gc
  Fd netns_fd;                       ///< register
};

struct Reply {
  int version = kProtocolVersion;
  std::optional<Error> error;
  bool enrolled = false;
  std::vector<std::string> notes;  ///< worth a log line, not an error
  bool created = false;            ///< the registration did not exist before; not sent, for the agent's own use
};

/// Text forms. parse_* give kInvalid naming the field, what was found and what was expected.
[[nodiscard]] std::string encode(const Request& request);
[[nodiscard]] std::string encode(const Reply& reply);
Result<Request> parse_request(std::string_view text);
Result<Reply> parse_reply(std::string_view text);

/// One packet with an optional descriptor; blocking sockets with SO_RCVTIMEO and SO_SNDTIMEO set by the caller. receive
/// gives kUnavailable when the peer closed without a packet, kTimeout when the time passed, kInvalid for a packet over
/// kMaxMessage.
struct Packet {
  std::string text;
  Fd fd;
};
Result<void> send_packet(int socket, std::string_view text, int fd_to_pass);
Result<Packet> receive_packet(int socket);

/// Asks the agent at `socket_path` and waits for its reply, `timeout_ms` in all. Errors: kUnavailable (no socket,
/// refused, or the agent went away: the text says which and that weft-agent may not be running), kTimeout, kUnsupported
/// (versions).
Result<Reply> call(const std::string& socket_path, const Request& request, int timeout_ms);

}  // namespace weft::cni
