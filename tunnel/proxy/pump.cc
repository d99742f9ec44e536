// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/pump.h"

#include <algorithm>

namespace weft::proxy {
namespace {

/// A half is not read while this much of it waits for the other side.
constexpr std::size_t kKeptHigh = 64U << 10;

}  // namespace

std::string stream_error(std::uint32_t error_code) {
  return "the peer reset the stream, HTTP/2 error " + std::to_string(error_code) + " (" +
         nghttp2_http2_strerror(error_code) + ")";
}

StreamPump::~StreamPump() {
  if (tunnel_ != nullptr) tunnel_->session().reset(stream_id_, NGHTTP2_CANCEL);
}

void StreamPump::set_stream(hbone::Tunnel& tunnel, std::int32_t stream_id) {
  tunnel_ = &tunnel;
  stream_id_ = stream_id;
  tunnel.join_budget(kept_);
}

void StreamPump::begin_with(std::span<const std::byte> bytes) {
  app_.begin_with(bytes);
  begin_kept_ = bytes.size();
  kept_.set(app_.kept());
}

void StreamPump::start() {
  started_ = true;
  if (tunnel_ == nullptr) return;
  if (peer_ == Peer::kProxy) tunnel_->session().widen(stream_id_);
  tunnel_->session().resume(stream_id_);
}

StreamPump::Chunk StreamPump::produce(std::span<std::byte> into) {
  if (!started_ || app_ended_ || over_) return {};
  const auto got = app_.read(into);
  if (!got) {
    // Inside the session: the reset is queued there and goes out in this very send.
    break_off("read from the application: " + got.error().message());
    return {};
  }
  from_app_ += got->bytes;
  app_ended_ = got->end;
  return {got->bytes, got->end};
}

void StreamPump::on_data(std::span<const std::byte> data) {
  if (over_ || (started_ && !app_.is_open())) {
    if (tunnel_ != nullptr) tunnel_->session().consume(stream_id_, data.size());
    return;
  }
  to_app_ += data.size();
  const auto sent = app_.write(data);
  if (!sent) {
    break_off("write to the application: " + sent.error().message());
    return;
  }
  if (*sent < data.size()) kept_.set(app_.kept());
  if (*sent > 0 && tunnel_ != nullptr) tunnel_->session().consume(stream_id_, *sent);
}

void StreamPump::on_end() {
  stream_ended_ = true;
  app_.finish_writes();
}

void StreamPump::on_closed(std::uint32_t error_code) {
  const hbone::Tunnel* tunnel = std::exchange(tunnel_, nullptr);
  if (over_) return;
  if (!started_) {
    over_ = true;
    owner_.on_stream_lost(error_code, tunnel != nullptr ? tunnel->ending() : nullptr);
    return;
  }
  if (peer_ == Peer::kProxy && error_code == NGHTTP2_CONNECT_ERROR) on_end();
  if (!stream_ended_) {
    break_off(stream_error(error_code));
    return;
  }
  reset_ = error_code;
  check_finished();
}

void StreamPump::on_readable() {
  if (started_ && tunnel_ != nullptr) tunnel_->session().resume(stream_id_);
}

void StreamPump::on_flushed(std::size_t bytes) {
  kept_.set(app_.kept());
  // Nobody waits for the window of what was no stream's.
  const std::size_t begun = std::min(bytes, begin_kept_);
  begin_kept_ -= begun;
  bytes -= begun;
  if (tunnel_ != nullptr && bytes > 0) tunnel_->session().consume(stream_id_, bytes);
  check_finished();
}

void StreamPump::on_broken(const Error& error) { break_off("application: " + error.message()); }

void StreamPump::check_finished() {
  if (over_ || tunnel_ != nullptr || !app_.writes_finished()) return;
  if (reset_ != NGHTTP2_NO_ERROR && peer_ != Peer::kProxy) {
    // RST takes from the application what the kernel has not brought there yet.
    app_.close(peer_ == Peer::kClient && app_.delivered());
    break_off(stream_error(reset_));
    return;
  }
  over_ = true;
  app_.close(false);
  owner_.on_pump_finished();
}

void StreamPump::break_off(const std::string& why) {
  if (over_) return;
  cut(NGHTTP2_CONNECT_ERROR);
  owner_.on_pump_broken(why);
}

void StreamPump::cut(std::uint32_t error_code) {
  over_ = true;
  if (tunnel_ != nullptr) std::exchange(tunnel_, nullptr)->session().reset(stream_id_, error_code);
  app_.close(true);
  kept_.set(0);
}

void SocketPump::start() {
  started_ = true;
  copy(left_);
  if (!over_) copy(right_);
}

/// One go; the rest waits for its turn among the others that have much.
void SocketPump::copy(Half& from, std::size_t at_most) {
  if (!started_ || over_ || from.rest.queued()) return;
  Half& to = other(from);
  if (!from.ended && to.socket.kept() < kKeptHigh) {
    const auto room = scratch_.network().first(at_most);
    const auto got = from.socket.read(room);
    if (!got) return break_off(got.error().message());
    if (got->end) {
      from.ended = true;
      to.socket.finish_writes();
    } else if (got->bytes > 0) {
      from.moved += got->bytes;
      const auto sent = to.socket.write(room.first(got->bytes));
      if (!sent) return break_off(sent.error().message());
      if (!from.socket.readable()) return;
      from.rest.queue(loop_, [this, &from] { copy(from, loop::kBulkQuantum); });
    }
  }
  if (left_.socket.writes_finished() && right_.socket.writes_finished()) {
    over_ = true;
    left_.socket.close(false);
    right_.socket.close(false);
    owner_.on_pump_finished();
  }
}

void SocketPump::break_off(const std::string& why) {
  if (over_) return;
  cut();
  owner_.on_pump_broken(why);
}

void SocketPump::cut() {
  over_ = true;
  left_.socket.close(true);
  right_.socket.close(true);
}

}  // namespace weft::proxy
