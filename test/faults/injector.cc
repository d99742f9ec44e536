// SPDX-License-Identifier: Apache-2.0
#include "test/faults/injector.h"

#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "test/faults/real_calls.h"

namespace weft::test {
namespace {

thread_local FaultInjector* current_injector = nullptr;

constexpr std::size_t index_of(Call call) { return static_cast<std::size_t>(call); }

constexpr std::array<const char*, index_of(Call::kCount)> kNames{
    "socket",     "bind",        "connect",     "accept", "recv",      "send",       "setsockopt",
    "getsockopt", "getsockname", "getpeername", "setns",  "epoll_ctl", "epoll_wait", "tag_socket",
};

/// A number that each of its arguments decides wholly (the finalizer of splitmix64).
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t z = a + 0x9e3779b97f4a7c15ULL * (b + 1);
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31U);
}

/// How often, of 65536: a seed draws one for each call. What transfers data is called so often that it may fail only
/// seldom, or nothing would ever come through.
constexpr std::array<std::uint32_t, 5> kTransient{0, 655, 3277, 16384, 45875};
constexpr std::array<std::uint32_t, 5> kFailing{0, 0, 655, 2621, 9830};
constexpr std::array<std::uint32_t, 5> kFailingData{0, 0, 66, 328, 1311};

/// Turns of the loop that an event may be late.
constexpr std::uint64_t kLateTurns = 4;

}  // namespace

FaultInjector::FaultInjector(std::uint64_t seed, std::uint32_t role, Harm harm) : seed_(mix(seed, role)) {
  for (std::size_t call = 0; call < index_of(Call::kCount); ++call) {
    const std::uint64_t drawn = mix(mix(seed, ~std::uint64_t{0}), call);
    if (harm == Harm::kForced) continue;
    transient_[call] = kTransient[drawn % kTransient.size()];
    if (harm == Harm::kTransient) continue;
    const bool data = call == index_of(Call::kRecv) || call == index_of(Call::kSend);
    failing_[call] = (data ? kFailingData : kFailing)[(drawn >> 32U) % kFailing.size()];
  }
}

void FaultInjector::enter() { current_injector = this; }

void FaultInjector::leave() {
  current_injector = nullptr;
  for (const Owed& owed : std::exchange(owed_, {})) report(owed.fd);
}

FaultInjector* FaultInjector::current() { return current_injector; }

FaultInjector::Decision FaultInjector::decide(Call call) {
  const std::size_t at = index_of(call);
  const std::uint64_t drawn = mix(mix(seed_, at), ++calls_[at]);
  const std::uint32_t roll = drawn & 0xffffU;
  Decision decision{Kind::kNone, drawn >> 16U};
  if (roll < failing_[at]) {
    decision.kind = Kind::kFailure;
  } else if (roll < failing_[at] + transient_[at]) {
    decision.kind = Kind::kTransient;
  }
  return decision;
}

void FaultInjector::force(Call call, int error, std::size_t times) { forced_[call] = {error, times}; }

int FaultInjector::forced(Call call, int fd) {
  const auto found = forced_.find(call);
  if (found == forced_.end() || found->second.times == 0) return 0;
  --found->second.times;
  fail_with(call, fd, found->second.error);
  return found->second.error;
}

int FaultInjector::fail_with(Call call, int fd, int error) {
  injected_.push_back({call, calls_[index_of(call)], fd, error, 0, 0});
  errno = error;
  return -1;
}

void FaultInjector::shorten(Call call, int fd, std::size_t amount, std::size_t asked) {
  injected_.push_back({call, calls_[index_of(call)], fd, 0, amount, asked});
}

int FaultInjector::failure_of(Call call, int fd, std::initializer_list<int> failures) {
  const Decision decision = decide(call);
  if (const int error = forced(call, fd); error != 0) return error;
  if (decision.kind != Kind::kFailure) return 0;
  const int error = failures.begin()[decision.pick % failures.size()];
  fail_with(call, fd, error);
  return error;
}

void FaultInjector::break_connection(int fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC, .sa_data = {}};
  __real_connect(fd, &nowhere, sizeof nowhere);
}

bool FaultInjector::is_watched_stream(int fd) const {
  if (!watched_.contains(fd)) return false;
  int type = 0;
  socklen_t length = sizeof type;
  return __real_getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM;
}

/// After EAGAIN or a short transfer the kernel tells, sooner or later, when it goes on. Watchers hear of changes only,
/// so without that event nothing would go on at all.
void FaultInjector::owe_event(int fd, std::uint64_t pick) {
  owed_.push_back({fd, static_cast<int>(pick % kLateTurns)});
}

/// Has epoll report again whatever is ready.
void FaultInjector::report(int fd) {
  const auto found = watched_.find(fd);
  if (found == watched_.end()) return;
  epoll_event event = found->second.event;
  __real_epoll_ctl(found->second.epoll, EPOLL_CTL_MOD, fd, &event);
}

int FaultInjector::bind(int fd, const sockaddr* address, socklen_t length) {
  if (decide(Call::kBind).kind != Kind::kNone) return fail_with(Call::kBind, fd, EADDRINUSE);
  const int result = __real_bind(fd, address, length);
  if (result == 0) bound_.insert(fd);
  return result;
}

int FaultInjector::socket(int family, int type, int protocol) {
  if (failure_of(Call::kSocket, -1, {EMFILE, ENFILE, ENOBUFS, ENOMEM}) != 0) return -1;
  const int fd = __real_socket(family, type, protocol);
  bound_.erase(fd);
  return fd;
}

int FaultInjector::connect(int fd, const sockaddr* address, socklen_t length) {
  static constexpr std::array kFailures{ENOBUFS, ENETUNREACH, ECONNREFUSED};
  if (address->sa_family == AF_UNSPEC) return __real_connect(fd, address, length);  // a disconnect needs nothing
  const Decision decision = decide(Call::kConnect);
  if (decision.kind == Kind::kTransient) {
    // A port that was bound by number may be taken for this destination.
    const bool taken = bound_.contains(fd) && decision.pick % 2 == 0;
    return fail_with(Call::kConnect, fd, taken ? EADDRNOTAVAIL : EINTR);
  }
  if (decision.kind == Kind::kFailure) {
    return fail_with(Call::kConnect, fd, kFailures[decision.pick % kFailures.size()]);
  }
  return __real_connect(fd, address, length);
}

int FaultInjector::accept(int fd, sockaddr* peer, socklen_t* length, int flags) {
  static constexpr std::array kTransients{EINTR, EAGAIN, ENOBUFS, ENOMEM};
  static constexpr std::array kFailures{ECONNABORTED, EMFILE, ENFILE};
  const Decision decision = decide(Call::kAccept);
  if (forced(Call::kAccept, fd) != 0) return -1;
  if (decision.kind == Kind::kTransient) {
    return fail_with(Call::kAccept, fd, kTransients[decision.pick % kTransients.size()]);
  }
  const int failure = kFailures[decision.pick % kFailures.size()];
  if (decision.kind == Kind::kFailure && failure != ECONNABORTED) return fail_with(Call::kAccept, fd, failure);
  const int accepted = __real_accept4(fd, peer, length, flags);
  if (decision.kind == Kind::kNone || accepted < 0) return accepted;
  sockaddr_storage address{};
  std::memcpy(&address, peer, std::min<std::size_t>(*length, sizeof address));
  aborted_.push_back(Endpoint::from_sockaddr(address));
  break_connection(accepted);
  ::close(accepted);
  return fail_with(Call::kAccept, fd, ECONNABORTED);
}

ssize_t FaultInjector::recv(int fd, void* into, std::size_t size, int flags) {
  static constexpr std::array kFailures{ECONNRESET, ETIMEDOUT, ENOMEM};
  const Decision decision = decide(Call::kRecv);
  if (decision.kind == Kind::kFailure) {
    const int error = kFailures[decision.pick % kFailures.size()];
    if (error != ENOMEM) break_connection(fd);
    return fail_with(Call::kRecv, fd, error);
  }
  int available = 0;
  if (decision.kind == Kind::kNone || !is_watched_stream(fd) || ::ioctl(fd, FIONREAD, &available) < 0) {
    return __real_recv(fd, into, size, flags);
  }
  const std::uint64_t way = decision.pick % 4, pick = decision.pick / 4;
  if (way == 0) return fail_with(Call::kRecv, fd, EINTR);
  // Where there is nothing the kernel says so itself, and where the end stands it does not hold that back.
  if (available <= 0) return __real_recv(fd, into, size, flags);
  if (way == 1) {
    owe_event(fd, pick);
    return fail_with(Call::kRecv, fd, EAGAIN);
  }
  const std::size_t most = std::min(size, static_cast<std::size_t>(available));
  if (most < 2) return __real_recv(fd, into, size, flags);
  const std::size_t few = pick % 3 == 0 ? 1 : 1 + pick % (most - 1);
  owe_event(fd, pick);
  shorten(Call::kRecv, fd, few, most);
  return __real_recv(fd, into, few, flags);
}

ssize_t FaultInjector::send(int fd, const void* data, std::size_t size, int flags) {
  static constexpr std::array kFailures{ECONNRESET, EPIPE, ENOBUFS, ENOMEM};
  const Decision decision = decide(Call::kSend);
  if (decision.kind == Kind::kFailure) {
    const int error = kFailures[decision.pick % kFailures.size()];
    if (error == ECONNRESET || error == EPIPE) break_connection(fd);
    return fail_with(Call::kSend, fd, error);
  }
  if (decision.kind == Kind::kNone || !is_watched_stream(fd)) return __real_send(fd, data, size, flags);
  const std::uint64_t way = decision.pick % 4, pick = decision.pick / 4;
  if (way == 0) return fail_with(Call::kSend, fd, EINTR);
  if (way == 1) {
    owe_event(fd, pick);
    return fail_with(Call::kSend, fd, EAGAIN);
  }
  if (size < 2) return __real_send(fd, data, size, flags);
  const std::size_t few = pick % 3 == 0 ? 1 : 1 + pick % (size - 1);
  owe_event(fd, pick);
  shorten(Call::kSend, fd, few, size);
  return __real_send(fd, data, few, flags);
}

int FaultInjector::socket_error(int fd, void* value, socklen_t* length) {
  static constexpr std::array kFailures{ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH};
  const Decision decision = decide(Call::kSocketError);
  const int result = __real_getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length);
  int error = 0;
  std::memcpy(&error, value, sizeof error);
  if (decision.kind != Kind::kFailure || result < 0 || error != 0) return result;
  break_connection(fd);
  fail_with(Call::kSocketError, fd, error = kFailures[decision.pick % kFailures.size()]);
  std::memcpy(value, &error, sizeof error);
  return 0;
}

int FaultInjector::watch(int epoll, int operation, int fd, epoll_event* event) {
  if (operation == EPOLL_CTL_DEL) watched_.erase(fd);
  if (operation != EPOLL_CTL_ADD) return __real_epoll_ctl(epoll, operation, fd, event);
  if (const int error = failure_of(Call::kWatch, fd, {ENOMEM, ENOSPC}); error != 0) {
    errno = error;
    return -1;
  }
  const int result = __real_epoll_ctl(epoll, operation, fd, event);
  if (result == 0) watched_[fd] = {epoll, *event};
  return result;
}

int FaultInjector::wait(int epoll, epoll_event* events, int max_events, int timeout_ms) {
  std::erase_if(owed_, [this](Owed& owed) {
    if (owed.turns-- > 0) return false;
    report(owed.fd);
    return true;
  });
  if (!owed_.empty()) timeout_ms = 0;
  const Decision decision = decide(Call::kWait);
  if (decision.kind != Kind::kTransient) return __real_epoll_wait(epoll, events, max_events, timeout_ms);
  if (decision.pick % 2 == 0) return fail_with(Call::kWait, epoll, EINTR);
  const int few = 1 + static_cast<int>((decision.pick / 2) % 2);
  shorten(Call::kWait, epoll, static_cast<std::size_t>(few), static_cast<std::size_t>(max_events));
  return __real_epoll_wait(epoll, events, few, timeout_ms);
}

std::string FaultInjector::trace() const {
  std::ostringstream out;
  for (const Injected& one : injected_) {
    out << kNames[index_of(one.call)] << " #" << one.number << " fd " << one.fd << ": ";
    if (one.error != 0) {
      out << strerrorname_np(one.error) << '\n';
    } else {
      out << one.amount << " of " << one.asked << '\n';
    }
  }
  return out.str();
}

std::map<std::string, std::size_t> FaultInjector::counts() const {
  std::map<std::string, std::size_t> out;
  for (const Injected& one : injected_) {
    const char* what = one.error != 0 ? strerrorname_np(one.error) : "short";
    ++out[std::string(kNames[index_of(one.call)]) + ' ' + what];
  }
  return out;
}

std::size_t FaultInjector::count(const std::string& kind) const {
  const auto all = counts();
  const auto found = all.find(kind);
  return found == all.end() ? 0 : found->second;
}

}  // namespace weft::test
