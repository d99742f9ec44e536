// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/app_socket.h"

#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>

#include "tunnel/base/sys.h"

namespace weft::proxy {

Result<void> AppSocket::open(loop::EventLoop& loop, Fd fd, bool connecting, AppSocketEvents& events) {
  fd_ = std::move(fd);
  loop_ = &loop;
  events_ = &events;
  connecting_ = connecting;
  // A connected socket takes bytes at once and may already hold some.
  readable_ = writable_ = !connecting;
  auto watcher =
      loop.watch(fd_.get(), EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP, [this](std::uint32_t e) { on_event(e); });
  if (!watcher) return Failure(watcher.error());
  watcher_ = std::move(*watcher);
  return {};
}

void AppSocket::on_event(std::uint32_t events) {
  if (connecting_) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) return;
    const int error = sys::take_error(fd_.get());
    connecting_ = false;
    if (error != 0) {
      const Error failed = fail_errno(error, "connect").value();
      events_->on_connected(&failed);
      return;
    }
    readable_ = writable_ = true;
    events_->on_connected(nullptr);
    if (!is_open()) return;
    if (!kept_.empty() || finish_wanted_) flush();
    if (!is_open()) return;
  }
  if ((events & EPOLLERR) != 0) {
    if (const int error = sys::take_error(fd_.get()); error != 0) {
      events_->on_broken(fail_errno(error, "connection").value());
      return;
    }
  }
  if ((events & (EPOLLRDHUP | EPOLLHUP)) != 0) fin_seen_ = true;
  if ((events & EPOLLPRI) != 0) urgent_seen_ = true;
  if ((events & EPOLLOUT) != 0 && !writable_) {
    writable_ = true;
    if (!kept_.empty()) {
      queue_flush();
    } else {
      flush();
    }
    if (!is_open()) return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0) {
    readable_ = true;
    events_->on_readable();
  }
}

Result<AppSocket::Read> AppSocket::read(std::span<std::byte> into) {
  if (!readable_ || !is_open()) return Read{};
  const auto got = sys::recv(fd_.get(), into);
  if (!got) return Failure(got.error());
  if (!got->has_value()) {
    readable_ = false;
    return Read{};
  }
  // A short read has emptied the socket, unless its end is still to be read, or it stopped before urgent data.
  if (**got < into.size() && !fin_seen_ && !urgent_seen_) readable_ = false;
  if (**got == 0) {
    readable_ = false;
    return Read{0, true};
  }
  return Read{**got, false};
}

Result<std::size_t> AppSocket::send_now(std::span<const std::byte> bytes) {
  std::size_t sent = 0;
  while (writable_ && sent < bytes.size()) {
    const auto n = sys::send(fd_.get(), bytes.subspan(sent));
    if (!n) return Failure(n.error());
    if (!n->has_value()) {
      writable_ = false;
      break;
    }
    sent += **n;
  }
  return sent;
}

Result<std::size_t> AppSocket::write(std::span<const std::byte> bytes) {
  std::size_t sent = 0;
  if (kept_.empty()) {
    const auto n = send_now(bytes);
    if (!n) return n;
    sent = *n;
  }
  if (sent < bytes.size()) kept_.append(bytes.subspan(sent));
  return sent;
}

/// What had to be kept belongs to somebody who sends more than is taken: it goes when it is its turn.
void AppSocket::queue_flush() {
  flush_rest_.queue(*loop_, [this] { flush(); });
}

void AppSocket::flush() {
  std::size_t sent = 0;
  if (!kept_.empty()) {
    const auto waiting = kept_.view();
    const auto n = send_now(waiting.first(std::min(waiting.size(), loop::kBulkQuantum)));
    if (!n) {
      events_->on_broken(n.error());
      return;
    }
    sent = *n;
    kept_.consume(sent);
    if (!kept_.empty() && writable_) queue_flush();
  }
  const bool finishes = finish_wanted_ && !finished_;
  if (finishes) finish_writes();
  if (sent > 0 || (finishes && finished_)) events_->on_flushed(sent);
}

void AppSocket::finish_writes() {
  finish_wanted_ = true;
  if (finished_ || !kept_.empty() || connecting_ || !is_open()) return;
  finished_ = true;
  // A peer that is gone already needs no FIN; the error shows on the next read.
  (void)sys::shutdown_write(fd_.get());
}

bool AppSocket::delivered() const {
  // A FIN counts as a byte.
  int unacknowledged = 0;
  return kept_.empty() && ::ioctl(fd_.get(), SIOCOUTQ, &unacknowledged) == 0 && unacknowledged <= (finished_ ? 1 : 0);
}

Fd AppSocket::release() {
  watcher_.reset();
  flush_rest_.cancel();
  return std::move(fd_);
}

void AppSocket::close(bool with_reset) {
  if (!is_open()) return;
  watcher_.reset();
  flush_rest_.cancel();
  if (with_reset) return sys::close_with_reset(fd_);
  fd_.reset();
}

}  // namespace weft::proxy
