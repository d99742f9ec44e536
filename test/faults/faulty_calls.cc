// SPDX-License-Identifier: Apache-2.0
/// What the product's calls lead to in a program that is linked with --wrap for each of them.

#include <cerrno>

#include "test/faults/injector.h"
#include "test/faults/real_calls.h"

using weft::test::Call;
using weft::test::FaultInjector;

namespace {

/// True with errno set where the call is to fail.
bool fails(Call call, int fd, std::initializer_list<int> failures) {
  FaultInjector* injector = FaultInjector::current();
  const int error = injector == nullptr ? 0 : injector->failure_of(call, fd, failures);
  if (error != 0) errno = error;
  return error != 0;
}

}  // namespace

extern "C" {

int __wrap_socket(int family, int type, int protocol) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_socket(family, type, protocol) : injector->socket(family, type, protocol);
}

int __wrap_bind(int fd, const sockaddr* address, socklen_t length) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_bind(fd, address, length) : injector->bind(fd, address, length);
}

int __wrap_connect(int fd, const sockaddr* address, socklen_t length) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_connect(fd, address, length) : injector->connect(fd, address, length);
}

int __wrap_accept4(int fd, sockaddr* peer, socklen_t* length, int flags) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_accept4(fd, peer, length, flags) : injector->accept(fd, peer, length, flags);
}

ssize_t __wrap_recv(int fd, void* into, size_t size, int flags) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_recv(fd, into, size, flags) : injector->recv(fd, into, size, flags);
}

ssize_t __wrap_send(int fd, const void* data, size_t size, int flags) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_send(fd, data, size, flags) : injector->send(fd, data, size, flags);
}

/// Takes part with its first piece: a short write ends in it.
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags) {
  FaultInjector* injector = FaultInjector::current();
  if (injector == nullptr || message->msg_iovlen == 0) return __real_sendmsg(fd, message, flags);
  return injector->send(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len, flags);
}

int __wrap_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  if (fails(Call::kSetOption, fd, {ENOMEM, ENOBUFS})) return -1;
  return __real_setsockopt(fd, level, name, value, length);
}

int __wrap_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  FaultInjector* injector = FaultInjector::current();
  const bool error_wanted = level == SOL_SOCKET && name == SO_ERROR;
  if (injector == nullptr || !error_wanted) return __real_getsockopt(fd, level, name, value, length);
  return injector->socket_error(fd, value, length);
}

int __wrap_getsockname(int fd, sockaddr* address, socklen_t* length) {
  if (fails(Call::kLocalName, fd, {ENOBUFS})) return -1;
  return __real_getsockname(fd, address, length);
}

int __wrap_getpeername(int fd, sockaddr* address, socklen_t* length) {
  if (fails(Call::kPeerName, fd, {ENOBUFS})) return -1;
  return __real_getpeername(fd, address, length);
}

int __wrap_setns(int fd, int type) {
  if (fails(Call::kSetns, fd, {ENOMEM})) return -1;
  return __real_setns(fd, type);
}

int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_epoll_ctl(epoll, operation, fd, event)
                             : injector->watch(epoll, operation, fd, event);
}

int __wrap_epoll_wait(int epoll, epoll_event* events, int max_events, int timeout_ms) {
  FaultInjector* injector = FaultInjector::current();
  return injector == nullptr ? __real_epoll_wait(epoll, events, max_events, timeout_ms)
                             : injector->wait(epoll, events, max_events, timeout_ms);
}

}  // extern "C"
