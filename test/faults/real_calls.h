// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>

/// The C library's own functions, beneath the replaced ones (ld --wrap).
extern "C" {
int __real_socket(int family, int type, int protocol);
int __real_bind(int fd, const sockaddr* address, socklen_t length);
int __real_connect(int fd, const sockaddr* address, socklen_t length);
int __real_accept4(int fd, sockaddr* peer, socklen_t* length, int flags);
ssize_t __real_recv(int fd, void* into, size_t size, int flags);
ssize_t __real_send(int fd, const void* data, size_t size, int flags);
ssize_t __real_sendmsg(int fd, const msghdr* message, int flags);
int __real_setsockopt(int fd, int level, int name, const void* value, socklen_t length);
int __real_getsockopt(int fd, int level, int name, void* value, socklen_t* length);
int __real_getsockname(int fd, sockaddr* address, socklen_t* length);
int __real_getpeername(int fd, sockaddr* address, socklen_t* length);
int __real_setns(int fd, int type);
int __real_epoll_ctl(int epoll, int operation, int fd, epoll_event* event);
int __real_epoll_wait(int epoll, epoll_event* events, int max_events, int timeout_ms);
}
