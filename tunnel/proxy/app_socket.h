// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/loop/buffer.h"
#include "tunnel/loop/event_loop.h"

namespace weft::proxy {

/// Hears of changes of an AppSocket. Calls come from the loop only, never from within the socket's own methods.
class AppSocketEvents {
 public:
  virtual ~AppSocketEvents() = default;
  /// The connect is done; an error's text where it failed.
  virtual void on_connected(const Error* error) = 0;
  /// Something may be read.
  virtual void on_readable() = 0;
  /// `bytes` that were kept have gone out; 0 when only the end of the stream did.
  virtual void on_flushed(std::size_t bytes) = 0;
  /// The connection broke (RST, timeout): no more calls.
  virtual void on_broken(const Error& error) = 0;
};

/// A plain TCP socket towards an application or past the mesh: knows what it may do without asking the kernel (edge
/// events), and keeps what the kernel did not take. One thread.
class AppSocket {
 public:
  AppSocket() = default;
  AppSocket(const AppSocket&) = delete;
  AppSocket& operator=(const AppSocket&) = delete;

  /// Takes a socket that is connected, or connecting (then on_connected comes).
  Result<void> open(loop::EventLoop& loop, Fd fd, bool connecting, AppSocketEvents& events);
  [[nodiscard]] bool is_open() const { return fd_.valid(); }
  [[nodiscard]] int fd() const { return fd_.get(); }

  /// Reads what is there. `bytes` 0 without `end`: nothing now, on_readable will come.
  struct Read {
    std::size_t bytes = 0;
    bool end = false;
  };
  Result<Read> read(std::span<std::byte> into);

  /// There may be something to read.
  [[nodiscard]] bool readable() const { return readable_; }

  /// Sends, and keeps what does not go now. Returns how much went at once.
  Result<std::size_t> write(std::span<const std::byte> bytes);
  /// Sends this before everything that was written. Only within on_connected, before which nothing goes out.
  void begin_with(std::span<const std::byte> bytes) { kept_.prepend(bytes); }
  /// FIN, when everything kept has gone.
  void finish_writes();
  [[nodiscard]] std::size_t kept() const { return kept_.size(); }
  /// Everything kept has gone and FIN is out.
  [[nodiscard]] bool writes_finished() const { return finished_; }

  /// The other side's kernel has acknowledged every byte that was written.
  [[nodiscard]] bool delivered() const;

  /// Gives the socket away as it is, with what it holds unread. Only where nothing was read or written yet.
  [[nodiscard]] Fd release();
  /// Closes; `with_reset` sends RST instead of FIN.
  void close(bool with_reset);

 private:
  void on_event(std::uint32_t events);
  void flush();
  void queue_flush();
  Result<std::size_t> send_now(std::span<const std::byte> bytes);

  Fd fd_;
  loop::EventLoop* loop_ = nullptr;
  AppSocketEvents* events_ = nullptr;
  loop::Buffer kept_;
  bool connecting_ = false;
  bool readable_ = false;
  bool writable_ = false;
  bool fin_seen_ = false;
  bool urgent_seen_ = false;
  bool finish_wanted_ = false;
  bool finished_ = false;
  loop::Watcher watcher_;
  loop::BulkTask flush_rest_;
};

}  // namespace weft::proxy
