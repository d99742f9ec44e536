// SPDX-License-Identifier: Apache-2.0
#include "test/support/capture.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

namespace weft::test {
namespace {

constexpr std::size_t kMaxStored = 768U << 20;

/// Big-endian reads with bounds checked; past the end gives 0 and sets bad.
class Reader {
 public:
  explicit Reader(std::span<const std::byte> data) : data_(data) {}
  std::uint8_t u8(std::size_t at) {
    if (at >= data_.size()) {
      bad = true;
      return 0;
    }
    return std::to_integer<std::uint8_t>(data_[at]);
  }
  std::uint16_t u16(std::size_t at) { return static_cast<std::uint16_t>(u8(at) << 8 | u8(at + 1)); }
  std::uint32_t u32(std::size_t at) { return static_cast<std::uint32_t>(u16(at)) << 16 | u16(at + 2); }
  IpAddress address(std::size_t at, std::size_t length) {
    if (at + length > data_.size()) {
      bad = true;
      return {};
    }
    return IpAddress::from_bytes(data_.subspan(at, length));
  }
  bool bad = false;

 private:
  std::span<const std::byte> data_;
};

struct IpHeader {
  IpAddress source, destination;
  std::size_t tcp_at = 0;  // offset of the TCP header
  std::size_t end = 0;     // offset behind the packet, by its own length
};

std::optional<IpHeader> parse_ipv4(Reader& reader, std::size_t at) {
  const bool later_fragment = (reader.u16(at + 6) & 0x1fff) != 0;
  if (later_fragment || reader.u8(at + 9) != IPPROTO_TCP) return {};
  return IpHeader{.source = reader.address(at + 12, 4),
                  .destination = reader.address(at + 16, 4),
                  .tcp_at = at + (reader.u8(at) & 0x0fU) * 4U,
                  .end = at + reader.u16(at + 2)};
}

std::optional<IpHeader> parse_ipv6(Reader& reader, std::size_t at) {
  IpHeader header{.source = reader.address(at + 8, 16),
                  .destination = reader.address(at + 24, 16),
                  .tcp_at = at + 40,
                  .end = at + 40 + reader.u16(at + 4)};
  std::uint8_t next = reader.u8(at + 6);
  while (next != IPPROTO_TCP && !reader.bad) {
    const std::size_t here = header.tcp_at;
    if (next == IPPROTO_FRAGMENT) {
      if ((reader.u16(here + 2) & 0xfff8) != 0) return {};
      header.tcp_at += 8;
    } else if (next == IPPROTO_HOPOPTS || next == IPPROTO_DSTOPTS || next == IPPROTO_ROUTING) {
      header.tcp_at += (reader.u8(here + 1) + 1U) * 8U;
    } else {
      return {};
    }
    next = reader.u8(here);
  }
  return header;
}

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

std::optional<Segment> parse_segment(std::span<const std::byte> frame) {
  Reader reader(frame);
  std::size_t at = 14;
  std::uint16_t type = reader.u16(12);
  if (type == ETHERTYPE_VLAN || type == 0x88a8) {
    type = reader.u16(16);
    at = 18;
  }
  std::optional<IpHeader> ip;
  if (type == ETHERTYPE_IP) ip = parse_ipv4(reader, at);
  if (type == ETHERTYPE_IPV6) ip = parse_ipv6(reader, at);
  if (!ip) return {};
  const std::size_t tcp = ip->tcp_at;
  const std::size_t payload_at = tcp + (reader.u8(tcp + 12) >> 4) * 4U;
  Segment segment;
  segment.source = {ip->source, reader.u16(tcp)};
  segment.destination = {ip->destination, reader.u16(tcp + 2)};
  segment.sequence = reader.u32(tcp + 4);
  segment.flags = reader.u8(tcp + 13);
  if (reader.bad) return {};
  if (ip->end > payload_at) segment.payload_bytes = ip->end - payload_at;
  if (payload_at < frame.size()) {
    const auto kept = frame.subspan(payload_at, std::min(segment.payload_bytes, frame.size() - payload_at));
    segment.payload.assign(reinterpret_cast<const char*>(kept.data()), kept.size());
  }
  return segment;
}

Capture::Capture(const Netns& netns, const std::string& interface, std::size_t keep) : keep_(keep) {
  socket_ = run_in(netns, [&] {
    Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!fd) throw TestError(std::string("open a packet socket: ") + std::strerror(errno));
    const int buffer_bytes = 128 << 20;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
    sockaddr_ll where{};
    where.sll_family = AF_PACKET;
    where.sll_protocol = htons(ETH_P_ALL);
    where.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    if (where.sll_ifindex == 0 || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) != 0) {
      throw TestError("watch " + interface + " in " + netns.name() + ": " + std::strerror(errno));
    }
    return fd;
  });
  reader_ = std::thread([this] { read_frames(); });
}

Capture::~Capture() {
  stop_ = true;
  reader_.join();
}

void Capture::read_frames() {
  constexpr int kLookAtStopMs = 20;
  while (!stop_) {
    pollfd readable{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&readable, 1, kLookAtStopMs) <= 0) continue;
    const std::lock_guard lock(mutex_);
    take_waiting();
  }
}

void Capture::take_waiting() const {
  constexpr int kAtOnce = 256;  // so that whoever asks gets the lock
  for (int i = 0; i < kAtOnce && take_one(); ++i) {
  }
}

bool Capture::take_one() const {
  buffer_.resize(keep_);
  sockaddr_ll from{};
  iovec part{.iov_base = buffer_.data(), .iov_len = buffer_.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  const ssize_t got = ::recvmsg(socket_.get(), &message, MSG_TRUNC | MSG_DONTWAIT);
  if (got < 0) return false;
  const std::size_t kept = std::min(static_cast<std::size_t>(got), buffer_.size());
  if (stored_bytes_ + kept > kMaxStored) {
    ++lost_;
    return true;
  }
  stored_bytes_ += kept;
  frames_.push_back({from.sll_pkttype == PACKET_OUTGOING, std::string(buffer_.data(), kept)});
  return true;
}

/// What passed before the question counts, whether or not the reader has come to it.
std::unique_lock<std::mutex> Capture::up_to_date() const {
  constexpr int kMost = 1'000'000;  // in a flood there is always another one
  std::unique_lock lock(mutex_);
  for (int i = 0; i < kMost && take_one(); ++i) {
  }
  return lock;
}

std::size_t Capture::frames() const {
  const auto lock = up_to_date();
  return frames_.size();
}

std::uint64_t Capture::lost() const {
  tpacket_stats statistics{};
  socklen_t length = sizeof statistics;
  const auto lock = up_to_date();
  // Reading the kernel's counter resets it.
  if (::getsockopt(socket_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &length) == 0)
    lost_ += statistics.tp_drops;
  return lost_;
}

std::vector<Segment> Capture::segments(const Filter& filter) const {
  const auto lock = up_to_date();
  std::vector<Segment> result;
  for (const auto& frame : frames_) {
    auto segment = parse_segment(as_bytes(frame.bytes));
    if (!segment) continue;
    segment->outgoing = frame.outgoing;
    if (!filter || filter(*segment)) result.push_back(std::move(*segment));
  }
  return result;
}

std::size_t Capture::payload_bytes(const Filter& filter) const {
  std::size_t sum = 0;
  for (const auto& segment : segments(filter)) sum += segment.payload_bytes;
  return sum;
}

bool Capture::contains(std::string_view marker) const {
  {
    const auto lock = up_to_date();
    for (const auto& frame : frames_) {
      if (frame.bytes.find(marker) != std::string::npos) return true;
    }
  }
  // Across segments: by offset from the first sequence number seen, so that a wrap does not tear a stream apart.
  struct Stream {
    std::uint32_t first = 0;
    std::map<std::int64_t, std::string> parts;
  };
  std::map<std::pair<Endpoint, Endpoint>, Stream> streams;
  for (auto& segment : segments([](const Segment& s) { return !s.payload.empty(); })) {
    auto [found, is_new] = streams.try_emplace({segment.source, segment.destination});
    if (is_new) found->second.first = segment.sequence;
    const auto offset = static_cast<std::int32_t>(segment.sequence - found->second.first);
    std::string& part = found->second.parts[offset];
    if (segment.payload.size() > part.size()) part = std::move(segment.payload);
  }
  for (const auto& [ends, stream] : streams) {
    std::string whole;
    std::int64_t reached = stream.parts.begin()->first;
    for (const auto& [offset, bytes] : stream.parts) {
      const auto end = offset + static_cast<std::int64_t>(bytes.size());
      if (end <= reached) continue;
      whole += offset < reached ? bytes.substr(static_cast<std::size_t>(reached - offset)) : bytes;
      reached = end;
    }
    if (whole.find(marker) != std::string::npos) return true;
  }
  return false;
}

void Capture::clear() {
  const auto lock = up_to_date();
  frames_.clear();
  stored_bytes_ = 0;
}

}  // namespace weft::test
