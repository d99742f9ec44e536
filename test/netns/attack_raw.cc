// SPDX-License-Identifier: Apache-2.0
#include "test/netns/attack_raw.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#ifndef PACKET_QDISC_BYPASS
#define PACKET_QDISC_BYPASS 20
#endif

namespace weft::test {
namespace {

[[noreturn]] void fail_errno_at(const std::string& doing) { throw TestError(doing + ": " + std::strerror(errno)); }

template <class T>
void set(int fd, int level, int name, const T& value, const std::string& called) {
  if (::setsockopt(fd, level, name, &value, sizeof value) != 0) fail_errno_at("set " + called);
}

Mac mac_of(const Netns& netns, const std::string& interface) {
  return run_in(netns, [&] {
    const Fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    interface.copy(request.ifr_name, IFNAMSIZ - 1);
    if (::ioctl(fd.get(), SIOCGIFHWADDR, &request) != 0) fail_errno_at("hardware address of " + interface);
    Mac mac{};
    std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
    return mac;
  });
}

/// A mapping that goes with its scope.
struct Mapping {
  void* at = MAP_FAILED;
  std::size_t bytes = 0;
  Mapping(std::size_t size, int flags, int fd, off_t offset)
      : at(::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, offset)), bytes(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (at != MAP_FAILED) ::munmap(at, bytes);
  }
  [[nodiscard]] bool ok() const { return at != MAP_FAILED; }
};

std::string cannot(const std::string& doing) { return "AF_XDP: " + doing + ": " + std::strerror(errno); }

constexpr std::size_t kChunk = 4096, kChunks = 4;
constexpr int kRing = 4;

/// Gives the memory to the socket and makes its rings.
std::string prepare(int fd, const Mapping& memory) {
  xdp_umem_reg umem{};
  umem.addr = reinterpret_cast<std::uintptr_t>(memory.at);
  umem.len = memory.bytes;
  umem.chunk_size = kChunk;
  if (::setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof umem) != 0) return cannot("register memory");
  for (const int ring : {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING}) {
    if (::setsockopt(fd, SOL_XDP, ring, &kRing, sizeof kRing) != 0) return cannot("make a ring");
  }
  return {};
}

/// Puts the frame at the start of the memory on the ring and has the kernel send it.
std::string send_first(int fd, std::size_t length) {
  xdp_mmap_offsets offsets{};
  socklen_t size = sizeof offsets;
  if (::getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size) != 0) return cannot("ask for the rings' layout");
  const Mapping ring(offsets.tx.desc + kRing * sizeof(xdp_desc), MAP_SHARED | MAP_POPULATE, fd, XDP_PGOFF_TX_RING);
  if (!ring.ok()) return cannot("map the ring");
  char* start = static_cast<char*>(ring.at);
  const xdp_desc descriptor{.addr = 0, .len = static_cast<std::uint32_t>(length), .options = 0};
  std::memcpy(start + offsets.tx.desc, &descriptor, sizeof descriptor);
  std::atomic_ref(*reinterpret_cast<std::uint32_t*>(start + offsets.tx.producer)).store(1, std::memory_order_release);
  const std::atomic_ref consumer(*reinterpret_cast<std::uint32_t*>(start + offsets.tx.consumer));
  const bool taken = eventually(milliseconds(2000), [&] {
    ::sendto(fd, nullptr, 0, MSG_DONTWAIT, nullptr, 0);
    return consumer.load(std::memory_order_acquire) == 1;
  });
  return taken ? "" : cannot("send");
}

}  // namespace

PacketSender::PacketSender(const Netns& netns, const std::string& interface, Way way, std::uint32_t mark) {
  socket_ = run_in(netns, [&] {
    Fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!fd) fail_errno_at("open a packet socket");
    ifindex_ = static_cast<int>(::if_nametoindex(interface.c_str()));
    return fd;
  });
  if (ifindex_ == 0) throw TestError("no interface " + interface + " in " + netns.name());
  if (way == Way::kQdiscBypass) set(socket_.get(), SOL_PACKET, PACKET_QDISC_BYPASS, 1, "PACKET_QDISC_BYPASS");
  if (mark != 0) set(socket_.get(), SOL_SOCKET, SO_MARK, mark, "SO_MARK");
}

void PacketSender::send(const std::string& frame) const {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = ifindex_;
  to.sll_halen = ETH_ALEN;
  std::memcpy(&to.sll_protocol, frame.data() + 12, sizeof to.sll_protocol);
  frame.copy(reinterpret_cast<char*>(to.sll_addr), ETH_ALEN);
  // A dropped frame is reported as ENOBUFS by some drop paths: that is the attacked side's answer, not trouble.
  if (::sendto(socket_.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0 &&
      errno != ENOBUFS) {
    fail_errno_at("send a frame");
  }
}

std::string send_by_xdp(const Netns& netns, const std::string& interface, const std::string& frame) {
  return run_in(netns, [&]() -> std::string {
    const Fd fd(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!fd) return cannot("open a socket");
    const Mapping memory(kChunk * kChunks, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!memory.ok()) return cannot("map memory");
    if (auto problem = prepare(fd.get(), memory); !problem.empty()) return problem;
    sockaddr_xdp where{};
    where.sxdp_family = AF_XDP;
    where.sxdp_flags = XDP_COPY;
    where.sxdp_ifindex = ::if_nametoindex(interface.c_str());
    // The kernel lets go of the queue some time after the last socket on it was closed.
    int bound = -1;
    const bool settled = eventually(milliseconds(5000), [&] {
      bound = ::bind(fd.get(), reinterpret_cast<sockaddr*>(&where), sizeof where);
      return bound == 0 || errno != EBUSY;
    });
    if (!settled || bound != 0) return cannot("bind to " + interface);
    frame.copy(static_cast<char*>(memory.at), kChunk);
    return send_first(fd.get(), std::min(frame.size(), kChunk));
  });
}

Link link_between(const Netns& netns, const std::string& interface, const Netns& peer_netns, const std::string& peer) {
  return {.source = mac_of(netns, interface), .destination = mac_of(peer_netns, peer)};
}

}  // namespace weft::test
