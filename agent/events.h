// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bpf/event_ring.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::agent {

/// Where the events of the capture programs come from: a bpf::EventRing, or a fake in tests. The methods mean what they
/// mean there.
class EventSource {
 public:
  virtual ~EventSource() = default;
  [[nodiscard]] virtual int fd() const = 0;
  virtual Result<void> read(const bpf::EventRing::Sink& sink) = 0;
  virtual Result<void> listen_until(SteadyTime time) = 0;
  [[nodiscard]] virtual Result<std::uint64_t> lost() const = 0;
};

class BpfEventSource final : public EventSource {
 public:
  explicit BpfEventSource(std::unique_ptr<bpf::EventRing> ring) : ring_(std::move(ring)) {}
  [[nodiscard]] int fd() const override { return ring_->fd(); }
  Result<void> read(const bpf::EventRing::Sink& sink) override { return ring_->read(sink); }
  Result<void> listen_until(SteadyTime time) override { return ring_->listen_until(time); }
  [[nodiscard]] Result<std::uint64_t> lost() const override { return ring_->lost(); }

 private:
  std::unique_ptr<bpf::EventRing> ring_;
};

struct LoggedEvent {
  std::uint64_t sequence = 0;
  WallTime time;
  std::string pod;  ///< namespace/name; empty where it is not known
  bpf::Event event;
};

struct EventQuery {
  std::optional<std::uint64_t> after;  ///< the last one that the caller has; empty: from now on
  milliseconds wait{0};                ///< for the next one, at most EventLog::kMaxWait
};

struct EventAnswer {
  std::uint64_t next = 0;  ///< `after` of the next query
  std::uint64_t lost = 0;  ///< events between `after` and `next` that are not here: they came too fast
  std::vector<LoggedEvent> events;
};

/// The last events of the capture programs, for those who follow them. The programs write events for kListen after each
/// query and no longer; a thread, started by the first query, reads them meanwhile and sleeps otherwise. Sequence
/// numbers count the lost ones too. Thread-safe.
class EventLog {
 public:
  static constexpr std::size_t kKept = 4'096;
  static constexpr std::size_t kMaxAnswer = 1'024;  ///< events
  static constexpr std::size_t kMaxWaiting = 4;     ///< queries at once
  static constexpr milliseconds kMaxWait{2'000};
  static constexpr milliseconds kListen{5'000};

  /// Pods by slot, as "namespace/name". Called on the log's thread, at most every kNamesAge.
  using Names = std::function<std::map<std::uint32_t, std::string>()>;

  EventLog(std::unique_ptr<EventSource> source, Names names, const Clock& clock = Clock::real());
  ~EventLog();
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;

  /// Answers at once when there is something behind `after`, or waits for it. Errors: kDenied when kMaxWaiting others
  /// wait already; kUnavailable after stop(); what the source says.
  Result<EventAnswer> query(const EventQuery& query);
  /// Nobody listens any more, and whoever waits is answered.
  void stop();

 private:
  static constexpr milliseconds kNamesAge{20};

  Result<void> listen();
  [[nodiscard]] EventAnswer answer(std::uint64_t after) const;
  void run();
  void wait_readable(SteadyTime until);
  Result<void> take();
  void refresh_names();

  std::unique_ptr<EventSource> source_;
  const Names names_;
  const Clock& clock_;
  Fd wake_up_;  ///< an eventfd, readable when it is over

  // The thread's own.
  std::map<std::uint32_t, std::string> pods_;
  SteadyTime named_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<LoggedEvent> kept_;
  std::uint64_t last_ = 0;  ///< sequence number
  SteadyTime since_, until_;
  std::uint64_t lost_before_ = 0;  ///< of the source, as far as last_ has them
  std::size_t waiting_ = 0;
  bool stopping_ = false;
  std::optional<Error> failed_;
  std::thread thread_;
};

}  // namespace weft::agent
