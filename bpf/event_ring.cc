// SPDX-License-Identifier: Apache-2.0
#include "bpf/event_ring.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

#include "bpf/map_io.h"
#include "bpf/shared.h"
#include "bpf/words.h"

namespace weft::bpf {
namespace {

/// As many events as the buffer holds, and what take() says to end a read there.
constexpr std::size_t kAtOnce = WEFT_EVENT_BYTES / sizeof(weft_event);
constexpr int kEnough = -ECANCELED;

Map<std::uint32_t, std::uint64_t> states(const Fd& fd) { return {fd.get(), "event_state"}; }

/// The kernel's clock of events is the one of steady_clock.
SteadyTime time_of(std::uint64_t ns) { return SteadyTime(std::chrono::nanoseconds(ns)); }

IpAddress address_of(const weft_addr& addr) { return addr.family == 0 ? IpAddress() : to_address(addr); }

Event event_of(const weft_event& e) {
  Event event{.time = time_of(e.time_ns),
              .program = program_name(e.program),
              .verdict = verdict_of(e.reason),
              .reason = reason_words(e.reason),
              .slot = {},
              .ifindex = e.ifindex,
              .source = {address_of(e.src), ntohs(e.sport)},
              .destination = {address_of(e.dst), ntohs(e.dport)},
              .protocol = e.protocol,
              .tcp_flags = e.tcp_flags};
  if (e.slot != WEFT_NO_SLOT) event.slot = e.slot;
  return event;
}

}  // namespace

void EventRing::RingDeleter::operator()(ring_buffer* ring) const { ring_buffer__free(ring); }

EventRing::EventRing(Fd events, Fd state) : events_(std::move(events)), state_(std::move(state)) {}
EventRing::~EventRing() = default;

Result<std::unique_ptr<EventRing>> EventRing::open(Fd events, Fd state) {
  std::unique_ptr<EventRing> made(new EventRing(std::move(events), std::move(state)));
  made->ring_.reset(ring_buffer__new(made->events_.get(), take, made.get(), nullptr));
  if (!made->ring_) return fail_errno(errno, "map the buffer of the events");
  return made;
}

int EventRing::take(void* self, void* data, std::size_t size) {
  auto& ring = *static_cast<EventRing*>(self);
  weft_event event{};
  if (size < sizeof event) return 0;
  std::memcpy(&event, data, sizeof event);
  (*ring.sink_)(event_of(event));
  return --ring.left_ == 0 ? kEnough : 0;
}

int EventRing::fd() const { return ring_buffer__epoll_fd(ring_.get()); }

Result<void> EventRing::read(const Sink& sink) {
  sink_ = &sink;
  left_ = kAtOnce;
  const int done = ring_buffer__consume(ring_.get());
  sink_ = nullptr;
  if (done < 0 && done != kEnough) return fail_errno(-done, "read the events");
  return {};
}

Result<void> EventRing::listen_until(SteadyTime time) {
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  return states(state_).put(WEFT_EVENTS_UNTIL, static_cast<std::uint64_t>(ns));
}

Result<std::uint64_t> EventRing::lost() const {
  auto lost = states(state_).get(WEFT_EVENTS_LOST);
  if (!lost) return Failure(lost.error());
  return **lost;
}

}  // namespace weft::bpf
