// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bpf/address_list.h"
#include "bpf/counters.h"
#include "bpf/event_ring.h"
#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::bpf {

inline constexpr std::uint32_t kMaxWorkers = 16;

/// How the capture programs are loaded. Sizes are entries; a map that is pinned already keeps its size, with a warning
/// in the log, until its pin goes. Below `root`: programs/NAME, maps/NAME, links/ATTACHMENT/NAME.
struct Settings {
  std::string root = "/sys/fs/bpf/weft";   ///< where programs, maps and links are pinned; below a mounted bpffs
  std::uint32_t max_pods = 512;            ///< wired pods; four times as many addresses
  std::uint32_t max_destinations = 65536;  ///< mesh addresses; more means: capture everything and warn
  std::uint32_t workers = 1;               ///< at most kMaxWorkers
  bool registry_only = false;              ///< mesh pods reach only what set_registry() says (bpf/registry.h)
};

/// What happens to a new plaintext connection into an enrolled pod.
enum class InboundPlaintext : std::uint8_t {
  kPass,   ///< nothing to check: straight to the application
  kCheck,  ///< to the agent's plaintext listener
  kDrop,   ///< nothing can match
};

/// A wired pod, one record for all its addresses.
struct Pod {
  std::uint32_t slot = 0;  ///< index of its listeners, below Settings::max_pods, unique among the wired pods
  std::vector<IpAddress> addresses;
  std::uint32_t host_ifindex = 0;  ///< the host side of its veth; 0 where there is none ("unguarded")
  bool enrolled = false;
  bool leaving = false;  ///< not enrolled any more, but peers that do not know yet still reach its HBONE listener
  InboundPlaintext inbound = InboundPlaintext::kPass;
  bool dns = false;  ///< what it sends to port 53 goes to the agent's DNS sockets (UDP) and outbound listener (TCP)
  bool operator==(const Pod&) const = default;
};

/// The agent's listeners in a pod's netns; each worker has one of each.
enum class Listener : std::uint8_t { kOutbound, kInboundHbone, kInboundPlaintext };

enum class IpFamily : std::uint8_t { kV4, kV6 };

/// The loaded programs and maps. Loads them, or takes over what an earlier agent of the same layout left pinned (pods,
/// verdicts and links live on), and is the only writer of the maps. All methods are thread-safe with each other except
/// load and the destructor. Nothing is unpinned at the end of its life: capture stays closed while the agent is away.
class Capture {
 public:
  /// Errors name what is missing and how to mend it: root, bpffs at the root's mount, the kernel version or a feature,
  /// an incompatible layout left by another version (kUnsupported). To be called in the host's netns: what sends from
  /// that one is the node itself. Links that exist are moved to the new programs. In maps that did not exist before
  /// capture_all is set.
  static Result<std::unique_ptr<Capture>> load(const Settings& settings);
  ~Capture();
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  /// Adds or replaces a pod (by slot). Addresses that another pod of this node holds are refused (kInvalid, naming
  /// both). The traffic of a pod that keeps none of the slot's addresses begins at 0.
  Result<void> set_pod(const Pod& pod);
  /// Forgets a pod and empties its listener and DNS socket slots.
  Result<void> remove_pod(std::uint32_t slot);
  /// What is in the maps now, as an agent that restarts finds it.
  [[nodiscard]] Result<std::vector<Pod>> pods() const;

  /// Puts a listening socket where `deliver` and `to_pod` find it. The socket is tagged too (see tag_socket). Refuses
  /// one with SO_REUSEPORT.
  Result<void> set_listener(std::uint32_t slot, Listener kind, std::uint32_t worker, int fd);

  /// The same for a bound UDP socket of the pod's netns, which gets the DNS questions of one family. What it sends with
  /// the marks WEFT_MARK and WEFT_MARK_ANSWER arrives as if from port 53. Not tagged.
  Result<void> set_dns_socket(std::uint32_t slot, IpFamily family, std::uint32_t worker, int fd);

  /// Moves what is attached to the pinned programs, as load() did, once more: an agent that still ran then may have
  /// attached what it had read before.
  Result<void> refresh_attached() const;
  /// From now on new connections are spread over Settings::workers listeners of each pod. Until then over as many as an
  /// earlier agent had: to be called when the listeners are in place.
  Result<void> use_workers();
  /// How many listeners of a pod are in place, of WEFT_LISTENER_KINDS for each worker. One that closed is not.
  [[nodiscard]] Result<std::uint32_t> listening(std::uint32_t slot) const;

  /// Marks a socket as the agent's own: its packets leave the pod uncaptured while their destination is the socket's.
  /// For every socket the agent makes in a pod's netns, before connect, and after accept for HBONE and plaintext
  /// listeners.
  Result<void> tag_socket(int fd) const;

  /// Replaces the set of mesh destinations, adding before removing. More than fits: captures everything and returns
  /// kUnavailable with the sizes (the caller warns).
  Result<void> set_destinations(const AddressList& wanted);
  /// The same where the last call that wrote them, and succeeded, was with `present`, so that what it costs is in
  /// proportion to the difference. Both are sorted, valid, and without doubles.
  Result<void> set_destinations(const AddressList& present, const AddressList& wanted);
  /// Replaces what mesh pods may reach, with Settings::registry_only alone; adding before removing where that fits.
  /// More than fits: kUnavailable with the sizes. What has no place is treated as if it were not registered: TCP comes
  /// to the agent, the rest is dropped.
  Result<void> set_registry(const AddressList& wanted);
  /// While true every TCP destination of enrolled pods counts as mesh: before the first complete sync.
  Result<void> set_capture_all(bool capture_all);

  [[nodiscard]] Result<std::vector<Counter>> counters() const;
  /// What passed the pod in a slot. It outlives the agent.
  [[nodiscard]] Result<PodTraffic> traffic(std::uint32_t slot) const;
  /// The events of the programs. One at a time reads them.
  [[nodiscard]] Result<std::unique_ptr<EventRing>> open_events() const;

 private:
  struct Impl;
  explicit Capture(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::bpf
