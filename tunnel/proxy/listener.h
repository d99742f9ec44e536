// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"
#include "tunnel/base/rate_limit.h"
#include "tunnel/base/sys.h"
#include "tunnel/loop/event_loop.h"
#include "tunnel/loop/start_queue.h"
#include "tunnel/proxy/limits.h"

namespace weft::proxy {

class Listener;

/// What the listeners of one worker share for the case that descriptors or the kernel's memory run out: a descriptor
/// that is given up so that a connection can be taken and refused, and the listeners that rest until there is room
/// again. Nothing spins: while there is none, somebody looks forty times a second. One thread.
class AcceptGate {
 public:
  static constexpr milliseconds kLookAgain{25};

  AcceptGate(loop::EventLoop& loop, Limits& limits);

 private:
  friend class Listener;
  /// Takes a connection by the reserve, for refusing it. Empty where nothing waits.
  Result<std::optional<sys::Accepted>> accept_spare(int listener);
  /// The listener is not called any more until there is room.
  void rest(Listener& listener, const Error& why);
  void forget(Listener& listener);
  bool have_reserve();
  void look_again();

  loop::EventLoop& loop_;
  Limits& limits_;
  Fd reserve_;
  std::vector<Listener*> resting_;
  loop::Timer timer_;
  RateLimit log_{5, 1};
};

/// A connection that was accepted, most likely one that capture brought.
struct Captured {
  Fd fd;
  Endpoint peer, local;  ///< as its application sees it: `local` is what it dialled
  Endpoint listener;     ///< the socket's own address
  bool spare = false;    ///< the last descriptor was spent on it: it must be closed at once
  std::string broken;    ///< why it cannot be served, where it cannot
};

/// One listening socket. What it accepts is taken in its pod's turn. One thread.
class Listener {
 public:
  using Take = std::function<void(Captured captured)>;

  /// Accepts from the next turn on, or, where that fails now, as soon as it can be; what connects meanwhile waits in
  /// its queue. All but the descriptor outlive it.
  Listener(AcceptGate& gate, loop::StartQueue& starts, Fd fd, Take take);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  /// Accepts nothing until go_on().
  void hold();
  void go_on();
  /// Accepts what waits in its queue now.
  void accept_waiting();
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  friend class AcceptGate;
  void arm();
  Result<void> try_arm();
  void queue_turn();
  /// Up to so many; false when there are no more, or it cannot go on now.
  bool accept_some(int at_most);
  void hand_over(sys::Accepted accepted, bool spare);
  /// False when it rests now.
  bool after_error(const Error& error);

  AcceptGate& gate_;
  loop::StartQueue& starts_;
  const Take take_;
  Fd fd_;
  Endpoint local_;
  loop::Watcher watcher_;
  loop::StartTask turn_;
};

}  // namespace weft::proxy
