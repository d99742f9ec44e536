// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/epoll.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tunnel/base/ip.h"

/// Failures beneath the product's socket calls. A program that links weft_test_faults has the C library's calls
/// replaced (faulty_calls.cc, ld --wrap), in the objects of the product as they are shipped. A thread that has entered
/// a FaultInjector then sees what a kernel may do and seldom does; for all other threads nothing changes.
namespace weft::test {

/// What can be made to fail. kWatch and kWait are epoll_ctl(ADD) and epoll_wait; kTag is no system call but what a Node
/// of a test may ask for.
enum class Call : std::uint8_t {
  kSocket,
  kBind,
  kConnect,
  kAccept,
  kRecv,
  kSend,
  kSetOption,
  kSocketError,
  kLocalName,
  kPeerName,
  kSetns,
  kWatch,
  kWait,
  kTag,
  kCount,
};

/// /// How much a seed may do: nothing but what is forced, transient failures, or any.
enum class Harm : std::uint8_t { kForced, kTransient, kAny };

/// One thread's schedule of failures: seed, role, call and the how-manieth of its kind decide, so that a seed decides
/// the same again. The seed also sets how often each call is disturbed, from never to most of the time. Two kinds:
/// transient ones, which cost nobody anything (EINTR, EAGAIN and the event that follows it, short transfers, a port
/// that is taken, fewer events at a time), and failures, which may cost the connection. Methods are for the thread that
/// entered, but the constructor and what is said of the schedule afterwards.
class FaultInjector {
 public:
  /// `role` tells the threads of one seed apart.
  FaultInjector(std::uint64_t seed, std::uint32_t role, Harm harm);
  FaultInjector(const FaultInjector&) = delete;
  FaultInjector& operator=(const FaultInjector&) = delete;

  /// From now on the calling thread's calls are disturbed. Enter before the thread watches its first descriptor.
  void enter();
  /// No more of it; events that are still owed are delivered.
  void leave();
  /// The calling thread's, null where it has entered none.
  static FaultInjector* current();
  /// Beside what the seed says: the next `times` calls of that kind fail with `error`. A connect or a transfer is then
  /// not tried at all.
  void force(Call call, int error, std::size_t times = 1);

  /// Of a call that succeeds or fails as a whole: the errno it fails with, 0 for none.
  int failure_of(Call call, int fd, std::initializer_list<int> failures);

  /// What was injected, a line each, in order.
  [[nodiscard]] std::string trace() const;
  /// How often each kind was injected, by "recv EAGAIN".
  [[nodiscard]] std::map<std::string, std::size_t> counts() const;
  [[nodiscard]] std::size_t count(const std::string& kind) const;
  /// The peers of connections that the kernel took back before they could be accepted (ECONNABORTED).
  [[nodiscard]] const std::vector<Endpoint>& aborted() const { return aborted_; }

  // The calls, as faulty_calls.cc hands them on.
  int socket(int family, int type, int protocol);
  int accept(int fd, sockaddr* peer, socklen_t* length, int flags);
  int connect(int fd, const sockaddr* address, socklen_t length);
  int bind(int fd, const sockaddr* address, socklen_t length);
  ssize_t recv(int fd, void* into, std::size_t size, int flags);
  ssize_t send(int fd, const void* data, std::size_t size, int flags);
  int socket_error(int fd, void* value, socklen_t* length);
  int watch(int epoll, int operation, int fd, epoll_event* event);
  int wait(int epoll, epoll_event* events, int max_events, int timeout_ms);

 private:
  enum class Kind : std::uint8_t { kNone, kTransient, kFailure };
  struct Decision {
    Kind kind = Kind::kNone;
    std::uint64_t pick = 0;  ///< chooses among the ways
  };
  struct Forced {
    int error = 0;
    std::size_t times = 0;
  };
  struct Injected {
    Call call;
    std::uint64_t number;
    int fd;
    int error;           ///< errno; 0: a short transfer or fewer events
    std::size_t amount;  ///< of what was asked for
    std::size_t asked;
  };
  struct Watched {
    int epoll;
    epoll_event event;
  };
  struct Owed {
    int fd;
    int turns;
  };

  Decision decide(Call call);
  /// The errno that was forced on this call, 0 for none.
  int forced(Call call, int fd);
  int fail_with(Call call, int fd, int error);
  void shorten(Call call, int fd, std::size_t amount, std::size_t asked);
  /// Breaks the connection as its peer's RST would, and the peer hears one.
  static void break_connection(int fd);
  [[nodiscard]] bool is_watched_stream(int fd) const;
  void owe_event(int fd, std::uint64_t pick);
  void report(int fd);

  std::uint64_t seed_;
  std::array<std::uint32_t, static_cast<std::size_t>(Call::kCount)> transient_{}, failing_{};  ///< of 65536
  std::array<std::uint64_t, static_cast<std::size_t>(Call::kCount)> calls_{};
  std::map<Call, Forced> forced_;
  std::vector<Injected> injected_;

  std::vector<Endpoint> aborted_;
  std::map<int, Watched> watched_;
  std::vector<Owed> owed_;
  std::set<int> bound_;  ///< by number
};

}  // namespace weft::test
