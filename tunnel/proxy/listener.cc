// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/listener.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "tunnel/base/log.h"
#include "tunnel/proxy/context.h"

namespace weft::proxy {
namespace {

/// Connections taken in one turn of a pod.
constexpr int kAcceptsInOneGo = 4;
/// As many as a queue may hold.
constexpr int kAllThatWait = 4096;
/// What accept() says of a connection that has ended already; the listener is well.
constexpr std::array kOfTheConnection{ECONNABORTED, EPROTO,       ENETDOWN,   ENOPROTOOPT, EHOSTDOWN,
                                      ENONET,       EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM};

bool without_descriptor(const Error& error) { return error.errno_value == EMFILE || error.errno_value == ENFILE; }

}  // namespace

AcceptGate::AcceptGate(loop::EventLoop& loop, Limits& limits) : loop_(loop), limits_(limits), timer_(loop) {
  (void)have_reserve();
}

bool AcceptGate::have_reserve() {
  if (!reserve_) reserve_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  return reserve_.valid();
}

Result<std::optional<sys::Accepted>> AcceptGate::accept_spare(int listener) {
  if (!have_reserve()) return fail_errno(errno, "accept");
  reserve_.reset();
  auto accepted = sys::accept(listener);
  if (!accepted || !accepted->has_value()) (void)have_reserve();
  return accepted;
}

void AcceptGate::rest(Listener& listener, const Error& why) {
  limits_.count_accept_pause();
  if (log_.take(loop_.now())) {
    log::error("a listener waits until there is room error={} (raise the agent's limits of open files and memory)",
               log::quote(why.message()));
  }
  listener.watcher_.reset();
  resting_.push_back(&listener);
  if (!timer_.armed()) timer_.arm(kLookAgain, [this] { look_again(); });
}

void AcceptGate::forget(Listener& listener) { std::erase(resting_, &listener); }

void AcceptGate::look_again() {
  std::vector<Listener*> waiting;
  if (have_reserve()) waiting.swap(resting_);
  for (Listener* listener : waiting) listener->arm();
  if (!resting_.empty() && !timer_.armed()) timer_.arm(kLookAgain, [this] { look_again(); });
}

Listener::Listener(AcceptGate& gate, loop::StartQueue& starts, Fd fd, Take take)
    : gate_(gate), starts_(starts), take_(std::move(take)), fd_(std::move(fd)) {
  arm();
}

Listener::~Listener() { hold(); }

void Listener::arm() {
  if (auto armed = try_arm(); !armed) gate_.rest(*this, armed.error());
}

Result<void> Listener::try_arm() {
  if (auto set = set_stream_options(fd_.get()); !set) return set;
  auto local = sys::local_endpoint(fd_.get());
  if (!local) return Failure(local.error());
  local_ = *local;
  auto watcher = gate_.loop_.watch(
      fd_.get(), EPOLLIN, [this](std::uint32_t) { queue_turn(); }, true);
  if (!watcher) return Failure(watcher.error());
  watcher_ = std::move(*watcher);
  return {};
}

void Listener::hold() {
  gate_.forget(*this);
  turn_.cancel();
  watcher_.reset();
}

void Listener::go_on() {
  hold();
  arm();
}

void Listener::queue_turn() {
  turn_.queue(starts_, [this] {
    // There may be more; the loop tells again where there is none left.
    if (accept_some(kAcceptsInOneGo)) queue_turn();
  });
}

void Listener::accept_waiting() { (void)accept_some(kAllThatWait); }

bool Listener::accept_some(int at_most) {
  for (int i = 0; i < at_most; ++i) {
    auto accepted = sys::accept(fd_.get());
    bool spare = false;
    if (!accepted && without_descriptor(accepted.error())) {
      spare = true;
      accepted = gate_.accept_spare(fd_.get());
    }
    if (!accepted) {
      if (!after_error(accepted.error())) return false;
      continue;
    }
    if (!accepted->has_value()) return false;
    hand_over(std::move(**accepted), spare);
    if (spare) (void)gate_.have_reserve();
  }
  return true;
}

void Listener::hand_over(sys::Accepted accepted, bool spare) {
  const auto local = sys::local_endpoint(accepted.fd.get());
  take_({std::move(accepted.fd), accepted.peer, local.value_or(Endpoint()), local_, spare,
         local ? "" : local.error().message()});
}

bool Listener::after_error(const Error& error) {
  if (std::ranges::find(kOfTheConnection, error.errno_value) != kOfTheConnection.end()) return true;
  gate_.rest(*this, error);
  return false;
}

}  // namespace weft::proxy
