// SPDX-License-Identifier: Apache-2.0
/// Peers that hold on to what they have: connections, handshakes, tunnels, windows. And those that do not speak TLS.

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <iostream>

#include "test/netns/hbone_flood_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using std::chrono::steady_clock;

constexpr int kMaxStreams = 200;
constexpr std::size_t kMaxFrame = 1U << 20;
constexpr std::size_t kPerSource = 128, kPerPod = 512;  ///< handshakes of one worker
constexpr std::size_t kTunnelsPerSource = 512;          ///< of one worker
constexpr std::uint16_t kUnreadPort = 9494, kBulkPort = 9090;
constexpr std::uint16_t kInitialWindow = 4;
constexpr std::uint32_t kMostWindow = 0x7fffffff;
constexpr milliseconds kSoon{5'000}, kHandshakeEnds{15'000}, kSilenceEnds{45'000};
#ifdef WEFT_SANITIZED
constexpr std::size_t kGrowthLimit = 512U << 20;
#else
constexpr std::size_t kGrowthLimit = 96U << 20;  // 200 streams of 256 KiB, and as much again for what is copied
#endif

std::size_t workers() { return std::clamp(std::thread::hardware_concurrency(), 1U, 4U); }

std::size_t count_ended(const std::vector<Fd>& fds) {
  return static_cast<std::size_t>(std::ranges::count_if(fds, has_ended));
}

/// A request for more than anybody takes.
std::string endless_bulk(std::int32_t stream, const std::string& target) {
  return h2::connect(stream, target) + h2::data(stream, "BULK send=0 receive=1000000000 seed=1 rate=0\n");
}

/// Peers whose end only time brings, from the other node: one that reads nothing any more, one that says nothing, and
/// one that says a byte of its ClientHello a second.
struct SlowPeers {
  explicit SlowPeers(std::unique_ptr<RawPeer> deaf_peer, std::vector<Fd> quiet_peers)
      : deaf(std::move(deaf_peer)), quiet(std::move(quiet_peers)), drip([this] { go_on(); }) {}
  [[nodiscard]] double seconds() const { return std::chrono::duration<double>(steady_clock::now() - start).count(); }
  void go_on() {
    const Fd& dripping = quiet.at(1);
    pollfd ended{.fd = dripping.get(), .events = POLLIN, .revents = 0};
    constexpr int kSecond = 1000;
    const bool silence = ::poll(&ended, 1, kSecond) == 0;
    if (silent_ended == 0 && has_ended(quiet.at(0))) silent_ended = seconds();
    if (silence) {
      const char byte = dripped < static_cast<int>(kHello.size()) ? kHello[static_cast<std::size_t>(dripped)] : 'r';
      ::send(dripping.get(), &byte, 1, MSG_NOSIGNAL);
      ++dripped;
    } else if (dripping_ended == 0) {
      dripping_ended = seconds();
    }
  }

  static constexpr std::string_view kHello{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11};
  steady_clock::time_point start = steady_clock::now();
  std::atomic<double> silent_ended = 0, dripping_ended = 0;  ///< in seconds; 0: not yet
  std::atomic<int> dripped = 0;
  std::unique_ptr<RawPeer> deaf;
  std::vector<Fd> quiet;
  Repeated drip;  ///< the last member: it works on the others
};

class MeshHboneHold : public MeshHboneFlood {
 protected:
  static void SetUpTestSuite() {
    MeshHboneFlood::SetUpTestSuite();
    if (!mesh_) return;
    for (const auto& [pod, bulk] : {std::pair{db, &bulk_db_}, std::pair{web2, &bulk_web2_}}) {
      *bulk = pod->start({program("weft-testapp"), "serve", "--name", "bulk", "--port", "9090"});
      if (!(*bulk)->wait_for_output("serving", milliseconds(10'000))) throw TestError("no bulk server");
    }
    const Endpoint gateway = web2->v4(kHbone);  // limits are a pod's, and the cases attack db
    RawPeer::Options options{.settings = h2::settings({{kInitialWindow, kMostWindow}})};
    auto deaf = std::make_unique<RawPeer>(node1().netns(), gateway, context(), options);
    std::string batch = h2::window_update(0, kMostWindow - 65535);
    for (std::int32_t i = 0; i < kMaxStreams; ++i) batch += endless_bulk(2 * i + 1, web2->v4(kBulkPort).to_string());
    deaf->stop_reading();
    if (!deaf->write(batch)) throw TestError("the agent does not serve 200 streams: " + deaf->why());
    slow_ = std::make_unique<SlowPeers>(std::move(deaf), dial_many(node1().netns(), gateway, 2));
  }
  static void TearDownTestSuite() {
    slow_.reset();
    bulk_db_.reset();
    bulk_web2_.reset();
    MeshHboneFlood::TearDownTestSuite();
  }
  /// A new peer from an address that has done nothing is served at once.
  static void expect_newcomer_served(const Netns& netns) {
    const auto start = steady_clock::now();
    RawPeer newcomer(netns, db->v4(kHbone), context());
    ASSERT_TRUE(newcomer.accepted()) << newcomer.why();
    newcomer.write(h2::connect(1, target()));
    EXPECT_TRUE(newcomer.read_until([&] { return newcomer.statuses().contains(1); }));
    EXPECT_LT(steady_clock::now() - start, stretched(kAnswer));
  }
  /// Connections to the HBONE port of which each has sent `text`.
  static std::vector<Fd> dial_and_say(int count, const std::string& text) {
    auto fds = dial_many(outside->netns(), db->v4(kHbone), count);
    for (const Fd& fd : fds) send_all(fd, text);
    return fds;
  }
  static std::unique_ptr<SlowPeers> slow_;
  static std::optional<Process> bulk_db_, bulk_web2_;

  static double tls_failures() {
    return metric(node2().metrics(), "istio_tcp_connections_closed_total",
                  {"reporter=\"destination\"", "response_flags=\"TLS_FAILURE\""});
  }
};

std::unique_ptr<SlowPeers> MeshHboneHold::slow_;
std::optional<Process> MeshHboneHold::bulk_db_, MeshHboneHold::bulk_web2_;

TEST_F(MeshHboneHold, HandshakesOfOneSource) {
  constexpr int kHalfOpen = 600;
  const double counted = violations("handshake_limit");
  const AgentUse before = use();
  const auto half_open = dial_many(outside->netns(), db->v4(kHbone), kHalfOpen);
  EXPECT_TRUE(eventually(kSoon, [&] { return count_ended(half_open) >= kHalfOpen - kPerSource * workers(); }));
  expect_newcomer_served(node2().netns());
  expect_untouched_beside();
  EXPECT_GE(half_open.size() - count_ended(half_open), kPerSource);
  EXPECT_EQ(violations("handshake_limit") - counted, static_cast<double>(count_ended(half_open)));
  const std::vector<std::string> words{"violation=handshake_limit", "source=" + outside->address_v4().to_string()};
  const auto lines = log_lines(node2().log(), before.log_bytes, words).size();
  EXPECT_GE(lines, 1U);
  EXPECT_LE(lines, 2 * workers()) << "one line a second of each worker";
}

TEST_F(MeshHboneHold, HandshakesOfManySources) {
  constexpr int kSources = 8, kEach = 200;
  std::vector<Fd> half_open;
  for (int i = 1; i <= kSources; ++i) {
    const std::string address = "192.0.2." + std::to_string(i);
    node2().netns().ip("addr add " + address + "/32 dev lo");
    auto more = dial_many(node2().netns(), db->v4(kHbone), kEach, *IpAddress::parse(address));
    std::ranges::move(more, std::back_inserter(half_open));
  }
  EXPECT_TRUE(eventually(kSoon, [&] { return half_open.size() - count_ended(half_open) <= kPerPod * workers(); }));
  EXPECT_GE(half_open.size() - count_ended(half_open), kPerPod);
  expect_newcomer_served(outside->netns());
  expect_untouched_beside();
  EXPECT_FALSE(half_open.size() == count_ended(half_open));
  half_open.clear();  // while the addresses can still say so
  for (int i = 1; i <= kSources; ++i) node2().netns().ip("addr del 192.0.2." + std::to_string(i) + "/32 dev lo");
}

TEST_F(MeshHboneHold, TunnelsWithoutStreams) {
  constexpr std::size_t kAtOnce = 16;
  const double counted = violations("tunnel_limit");
  const AgentUse before = use();
  const std::size_t most = kTunnelsPerSource * workers();
  std::vector<std::unique_ptr<RawPeer>> tunnels;
  std::size_t refused = 0;
  while (tunnels.size() < 2 * most && refused < kAtOnce) {
    std::vector<std::future<std::unique_ptr<RawPeer>>> dialled;
    for (std::size_t i = 0; i < kAtOnce; ++i) {
      dialled.push_back(std::async(
          std::launch::async, [] { return std::make_unique<RawPeer>(outside->netns(), db->v4(kHbone), context()); }));
    }
    for (auto& future : dialled) {
      auto peer = future.get();
      if (!peer->accepted()) {
        ++refused;
      } else {
        tunnels.push_back(std::move(peer));
      }
    }
  }
  EXPECT_GE(tunnels.size(), kTunnelsPerSource);
  EXPECT_LE(tunnels.size(), most);
  EXPECT_EQ(violations("tunnel_limit") - counted, static_cast<double>(refused));
  EXPECT_FALSE(log_lines(node2().log(), before.log_bytes, {"violation=tunnel_limit"}).empty());
  expect_newcomer_served(node2().netns());
  expect_untouched_beside();
  expect_idle();
  const AgentUse held = use();
  std::cout << tunnels.size() << " tunnels, " << (held.memory_bytes - before.memory_bytes) / tunnels.size()
            << " bytes each\n";
  EXPECT_LT(held.memory_bytes, before.memory_bytes + kGrowthLimit);
}

// Streams whose application sends as fast as it can to a peer that gives no window back.
TEST_F(MeshHboneHold, Windows) {
  constexpr std::uint64_t kConnectionWindow = 65535;
  for (const std::uint32_t window : {0U, kMostWindow}) {
    const AgentUse before = use();
    const auto peer = dial({.settings = h2::settings({{kInitialWindow, window}})});
    std::string batch;
    for (std::int32_t i = 0; i < kMaxStreams; ++i) {
      batch += endless_bulk(2 * i + 1, target(kBulkPort));
    }
    ASSERT_TRUE(peer->write(batch));
    const std::uint64_t allowed = window == 0 ? 0 : kConnectionWindow;
    EXPECT_TRUE(
        peer->read_until([&] { return peer->statuses().size() == kMaxStreams && peer->data_bytes() >= allowed; }));
    expect_untouched_beside();
    expect_idle();
    EXPECT_EQ(peer->data_bytes(), allowed);
    EXPECT_LT(use().memory_bytes, before.memory_bytes + kGrowthLimit);
    std::cout << "window " << window << ": " << (before.memory_bytes >> 20) << " to " << (use().memory_bytes >> 20)
              << " MiB\n";
    EXPECT_FALSE(peer->over()) << "a peer that reads slowly is no enemy";
  }
}

// Payload for an application that does not read.
TEST_F(MeshHboneHold, PayloadThatNobodyReads) {
  constexpr std::size_t kPart = 16U << 10, kWindow = 256U << 10;
  const Fd listener = listen_in(db->netns(), kUnreadPort);
  const std::string part(kPart, 'x');
  expect_limited("http2_error", [&](RawPeer& peer) {
    peer.write(h2::connect(1, target(kUnreadPort)));
    peer.repeat(h2::data(1, part), 4096);
    peer.read_until([] { return false; });
    EXPECT_EQ(peer.goaway(), NGHTTP2_FLOW_CONTROL_ERROR);
  });
  // All that the windows allow, and before the CONNECT is answered.
  const AgentUse before = use();
  const auto peer = dial();
  std::string early;
  for (std::size_t sent = 0; sent < kWindow; sent += kPart) early += h2::data(1, part);
  for (std::int32_t stream = 1; stream < 2 * kMaxStreams; stream += 2) {
    std::string batch = h2::connect(stream, target(kUnreadPort));
    for (std::size_t sent = 0; sent < kWindow; sent += kPart) batch += h2::data(stream, part);
    ASSERT_TRUE(peer->write(batch)) << stream << ": " << peer->why();
  }
  EXPECT_TRUE(peer->read_until([&] { return peer->statuses().size() == kMaxStreams; }));
  expect_untouched_beside();
  expect_idle();
  std::cout << "unread: " << (before.memory_bytes >> 20) << " to " << (use().memory_bytes >> 20) << " MiB\n";
  EXPECT_LT(use().memory_bytes, before.memory_bytes + kGrowthLimit);
}

TEST_F(MeshHboneHold, WhatIsNoTls) {
  constexpr int kTogether = 100, kRounds = 5;
  const AgentUse before = use();
  const std::string record_too_long("\x16\x03\x01\xff\xff" + std::string(100, 'x'));
  for (const std::string& text :
       {std::string("GET / HTTP/1.1\r\nHost: db\r\n\r\n"), std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        std::string(4096, '\xff'), record_too_long}) {
    for (int round = 0; round < kRounds; ++round) {
      const double failures = tls_failures();
      const auto fds = dial_and_say(kTogether, text);
      EXPECT_TRUE(eventually(kSoon, [&] { return count_ended(fds) == kTogether; }));
      // What others left half open may end meanwhile, too.
      EXPECT_TRUE(eventually(kSoon, [&] { return tls_failures() - failures >= kTogether; }))
          << tls_failures() - failures;
    }
    expect_untouched_beside();
  }
  const auto lines = log_lines(node2().log(), before.log_bytes, {"response_flags=TLS_FAILURE"}).size();
  EXPECT_GE(lines, 200U);
  EXPECT_LT(lines, 1000U) << "of " << 4 * kTogether * kRounds;
  EXPECT_FALSE(log_lines(node2().log(), before.log_bytes, {"violation=refusal_flood"}).empty());
}

// TLS 1.3 has no renegotiation; what is left of it is a request for new keys, which must be answered.
TEST_F(MeshHboneHold, KeyUpdates) {
  expect_limited("tls_flood", [](RawPeer& peer) {
    peer.stop_reading();
    std::string endless = h2::frame(h2::kUnknown, 0, 0, std::string(kMaxFrame, 'x'));
    for (std::size_t i = 0; i < endless.size(); ++i) {
      if (SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED) != 1) break;
      if (!peer.write(std::string_view(endless).substr(i, 1))) break;
    }
  });
}

TEST_F(MeshHboneHold, FramesThatAreCutShort) {
  const std::string whole = h2::connect(1, target());
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    const auto peer = dial();
    peer->write(std::string_view(whole).substr(0, bytes));
    ::shutdown(peer->fd().get(), SHUT_WR);
    EXPECT_FALSE(peer->read_until([] { return false; }));
    EXPECT_TRUE(peer->over());
  }
  expect_limited("http2_error", [](RawPeer& peer) {
    peer.write(std::string("\x7f\xff\xff\0\0\0\0\0\1", 9));  // the head of a DATA frame of 8 MiB
    peer.read_until([] { return false; });
    EXPECT_EQ(peer.goaway(), NGHTTP2_FRAME_SIZE_ERROR);
  });
  expect_untouched_beside();
}

// What only time ends: a handshake within 10 s, a tunnel whose peer reads nothing within 30 s. The slow peers are there
// from the suite's start, so that the other cases pass beside them.
TEST_F(MeshHboneHold, Slowness) {
  EXPECT_TRUE(eventually(kHandshakeEnds, [] { return slow_->silent_ended > 0 && slow_->dripping_ended > 0; }));
  EXPECT_GT(slow_->silent_ended, 8.0);
  EXPECT_GT(slow_->dripping_ended, 8.0) << "it was cut for something else";
  EXPECT_GT(slow_->dripped, 5);
  const std::string source = "source=" + node1().address_v4().to_string();
  const auto deaf_cut = [&] {
    return !log_lines(node2().log(), 0, {"HBONE tunnel closed", source, "Connection timed out"}).empty();
  };
  EXPECT_TRUE(eventually(kSilenceEnds, deaf_cut));
  const auto timed_out = log_lines(node2().log(), 0, {"TLS handshake: timed out"});
  EXPECT_EQ(timed_out.size(), 2U);
  std::cout << "silent " << slow_->silent_ended << " s, slow " << slow_->dripping_ended << " s, deaf "
            << slow_->seconds() << " s\n";
}

}  // namespace
}  // namespace weft::test
