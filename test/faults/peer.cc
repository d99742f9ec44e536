// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "test/faults/flows.h"

namespace weft::test {
namespace {

constexpr std::size_t kChunk = 48U << 10, kSlowChunk = 3000;

}  // namespace

void Peer::take_part(std::uint32_t flow, const Part& part) {
  flow_ = flow;
  part_ = part;
  taking_part_ = true;
}

std::optional<std::uint32_t> Peer::named() const {
  if (taking_part_ || head_.size() < kHead) return std::nullopt;
  std::uint32_t flow = 0;
  std::memcpy(&flow, head_.data(), kHead);
  return flow;
}

std::uint8_t Peer::byte_at(bool from_client, std::size_t offset) const {
  if (from_client && offset < kHead) return static_cast<std::uint8_t>(flow_ >> (8 * offset));
  const std::size_t word = offset / 251 + 31 * static_cast<std::size_t>(flow_) + (from_client ? 7 : 0);
  return static_cast<std::uint8_t>(offset * 13 + word * 101 + (word >> 8U));
}

std::size_t Peer::may_send() const {
  if (!taking_part_) return 0;
  const std::size_t now = ending_ == Ending::kEnd ? part_.to_send : part_.to_send - part_.held_back;
  return now > sent_ ? now - sent_ : 0;
}

bool Peer::may_end() const {
  if (!taking_part_ || sent_fin_) return false;
  return part_.reset_at ? sent_ + received_ >= *part_.reset_at : sent_ == part_.to_send;
}

pollfd Peer::wants() const {
  short events = 0;
  if (connecting_ || may_send() > 0 || may_end()) events |= POLLOUT;
  if (!connecting_ && ending_ == Ending::kNone) events |= POLLIN;
  return {fd_.get(), events, 0};
}

void Peer::on_events(short events) {
  if (over() || events == 0) return;
  if (connecting_) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    connecting_ = false;
    if (error != 0) return broke(error);
  }
  if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 && ending_ == Ending::kNone) receive();
  if (!over()) send();
  if (over()) return;
  if (part_.reset_at && may_end()) {
    const linger now{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
    fd_.reset();
    reset_here_ = true;
    return;
  }
  if (may_end()) {
    sent_fin_ = true;
    ::shutdown(fd_.get(), SHUT_WR);
  }
  if (sent_fin_ && ending_ == Ending::kEnd) fd_.reset();
}

void Peer::receive() {
  std::array<std::uint8_t, kChunk> room;
  const std::size_t most = taking_part_ ? (part_.reads_slowly ? kSlowChunk : room.size()) : kHead - head_.size();
  const ssize_t n = ::recv(fd_.get(), room.data(), most, 0);
  if (n < 0) {
    if (errno != EAGAIN) broke(errno);
    return;
  }
  if (n == 0) {
    ending_ = Ending::kEnd;
    heard_end_ = true;
    // An application that does not know whose connection this is has nothing to say.
    if (!taking_part_) fd_.reset();
    return;
  }
  const auto bytes = std::span(room).first(static_cast<std::size_t>(n));
  if (taking_part_) {
    check(bytes);
  } else {
    head_.append(bytes.begin(), bytes.end());
  }
  received_ += bytes.size();
}

void Peer::check(std::span<const std::uint8_t> bytes) {
  for (std::size_t i = 0; i < bytes.size() && wrong_.empty(); ++i) {
    const std::size_t offset = received_ + i;
    if (offset >= part_.to_receive) {
      wrong_ = "more came than was sent, byte " + std::to_string(offset);
    } else if (bytes[i] != byte_at(!is_client_, offset)) {
      wrong_ = "byte " + std::to_string(offset) + " is not the one that was sent";
    }
  }
}

void Peer::send() {
  std::array<std::uint8_t, kChunk> room;
  const std::size_t most = std::min(room.size(), may_send());
  if (most == 0) return;
  for (std::size_t i = 0; i < most; ++i) room[i] = byte_at(is_client_, sent_ + i);
  const ssize_t n = ::send(fd_.get(), room.data(), most, MSG_NOSIGNAL);
  if (n >= 0) {
    sent_ += static_cast<std::size_t>(n);
  } else if (errno != EAGAIN) {
    broke(errno);
  }
}

void Peer::broke(int error) {
  ending_ = Ending::kReset;
  error_ = error;
  fd_.reset();
}

std::string Peer::describe() const {
  std::string text = std::to_string(sent_) + " sent of " + std::to_string(part_.to_send) + ", " +
                     std::to_string(received_) + " received of " + std::to_string(part_.to_receive);
  if (sent_fin_) text += ", FIN sent";
  if (reset_here_) text += ", RST sent";
  if (heard_end_) text += ", FIN received";
  if (ending_ == Ending::kReset) text += std::string(", broken: ") + ::strerrorname_np(error_);
  if (!over()) text += ", open";
  if (!wrong_.empty()) text += ", WRONG: " + wrong_;
  return text;
}

}  // namespace weft::test
