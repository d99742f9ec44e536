// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "test/support/netns.h"
#include "tunnel/base/ip.h"

namespace weft::test {

/// One TCP segment as it stood on the wire.
struct Segment {
  static constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
  Endpoint source, destination;
  std::uint32_t sequence = 0;
  std::uint8_t flags = 0;
  std::size_t payload_bytes = 0;  ///< by the IP header, also where fewer bytes were kept
  std::string payload;
  bool outgoing = false;  ///< sent through the interface that was watched, as its own namespace sees it
  [[nodiscard]] bool is_syn() const { return (flags & kSyn) != 0 && (flags & kAck) == 0; }
};

/// Reads the TCP segment of an Ethernet frame (one VLAN tag, IP options and the usual extension headers are stepped
/// over); nothing when there is none. Later fragments have no TCP header and give nothing.
std::optional<Segment> parse_segment(std::span<const std::byte> frame);

/// Watches one interface from its construction on, both directions, with every packet that passes there whatever sent
/// it (AF_PACKET, before and behind TC as the kernel orders them). Runs a thread of its own; methods may be called at
/// any time.
class Capture {
 public:
  using Filter = std::function<bool(const Segment&)>;

  /// `keep` bytes of each frame are stored; segments' payload_bytes stay right with fewer.
  Capture(const Netns& netns, const std::string& interface, std::size_t keep = 65'600);
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture();

  [[nodiscard]] std::size_t frames() const;
  /// Frames that the kernel dropped because the reader was too slow, or that exceeded the store: above 0 nothing can be
  /// concluded from what is absent.
  [[nodiscard]] std::uint64_t lost() const;
  [[nodiscard]] std::vector<Segment> segments(const Filter& filter = {}) const;
  [[nodiscard]] std::size_t payload_bytes(const Filter& filter = {}) const;
  /// True when `marker` stands in a frame, or in the bytes of one direction of a connection put together by sequence
  /// number.
  [[nodiscard]] bool contains(std::string_view marker) const;
  /// Forgets what was seen.
  void clear();

 private:
  struct Frame {
    bool outgoing;
    std::string bytes;
  };
  void read_frames();
  // Under the lock: what waits in the socket, at most some; one frame, false where none waits.
  void take_waiting() const;
  bool take_one() const;
  [[nodiscard]] std::unique_lock<std::mutex> up_to_date() const;

  Fd socket_;
  std::size_t keep_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;  // guards what follows
  mutable std::vector<Frame> frames_;
  mutable std::vector<char> buffer_;
  mutable std::size_t stored_bytes_ = 0;
  mutable std::uint64_t lost_ = 0;
  std::thread reader_;
};

}  // namespace weft::test
