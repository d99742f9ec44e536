// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

struct ring_buffer;

namespace weft::bpf {

/// A drop, or what was decided of a new connection.
struct Event {
  SteadyTime time;
  std::string_view program, verdict, reason;  ///< as in Counter
  std::optional<std::uint32_t> slot;          ///< of the pod; empty where the program knew none
  std::uint32_t ifindex = 0;                  ///< as the program saw it, in the pod's netns or the host's
  Endpoint source, destination;               ///< invalid addresses where they could not be read
  std::uint8_t protocol = 0;                  ///< of IP
  std::uint8_t tcp_flags = 0;                 ///< as in the header
};

/// The events of the capture programs, which write them while somebody listens. One thread reads; the rest is
/// thread-safe. What nobody read stays in the buffer, also from one agent to the next.
class EventRing {
 public:
  using Sink = std::function<void(const Event&)>;

  /// Owns the descriptors of the maps `events` and `event_state`.
  static Result<std::unique_ptr<EventRing>> open(Fd events, Fd state);
  ~EventRing();
  EventRing(const EventRing&) = delete;
  EventRing& operator=(const EventRing&) = delete;

  /// Readable while there are events to read.
  [[nodiscard]] int fd() const;
  /// Takes all that are there, though no more than the buffer holds: somebody may write as fast as this reads.
  Result<void> read(const Sink& sink);
  /// The programs write events until then.
  Result<void> listen_until(SteadyTime time);
  /// How many events found no room, since the maps were made.
  [[nodiscard]] Result<std::uint64_t> lost() const;

 private:
  struct RingDeleter {
    void operator()(ring_buffer* ring) const;
  };
  EventRing(Fd events, Fd state);
  static int take(void* self, void* data, std::size_t size);

  Fd events_, state_;
  std::unique_ptr<ring_buffer, RingDeleter> ring_;
  const Sink* sink_ = nullptr;  ///< of the call to read
  std::size_t left_ = 0;        ///< how many more that call takes
};

}  // namespace weft::bpf
