// SPDX-License-Identifier: Apache-2.0
/// Peers that flood a tunnel with HTTP/2: each is cut, counted and named, and nobody else notices.

#include "test/netns/hbone_flood_fixture.h"

namespace weft::test {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Pair;

constexpr int kFlood = 200'000;           ///< frames that no honest peer sends
constexpr int kFramesInOne = 100;         ///< written together, as a flood does
constexpr std::size_t kMaxStreams = 200;  ///< that a tunnel may have open
constexpr std::size_t kHeaderList = 64U << 10;
constexpr std::size_t kLogOfStreams = kMaxStreams * 1024;  ///< each was a connection and has its line

std::string many(const std::string& frame) {
  std::string out;
  for (int i = 0; i < kFramesInOne; ++i) out += frame;
  return out;
}

/// A flood of one frame, on a tunnel where stream 1 is open.
std::function<void(RawPeer&)> flood_of(const std::string& authority, const std::string& frame) {
  return [authority, frames = many(frame)](RawPeer& peer) {
    peer.write(h2::connect(1, authority));
    peer.read_until([&] { return peer.statuses().contains(1); });
    peer.repeat(frames, kFlood / kFramesInOne);
    peer.read_until([&] { return false; });
  };
}

/// What a flood puts on one stream after the other: `frames` gives them for each.
template <class Frames>
std::function<void(RawPeer&)> streams_of(Frames frames) {
  return [frames](RawPeer& peer) {
    std::int32_t stream = 1;
    for (int i = 0; i < kFlood / kFramesInOne; ++i) {
      std::string batch;
      for (int k = 0; k < kFramesInOne; ++k, stream += 2) batch += frames(stream);
      if (!peer.write(batch)) break;
    }
    peer.read_until([&] { return false; });
  };
}

TEST_F(MeshHboneFlood, OfSettings) { expect_limited("frame_flood", flood_of(target(), h2::settings())); }

TEST_F(MeshHboneFlood, OfPings) { expect_limited("frame_flood", flood_of(target(), h2::ping())); }

TEST_F(MeshHboneFlood, OfPingsWhoseAnswersNobodyReads) {
  expect_limited("frame_flood", [](RawPeer& peer) {
    peer.stop_reading();
    peer.repeat(many(h2::ping()), kFlood / kFramesInOne);
  });
}

TEST_F(MeshHboneFlood, OfPriorities) { expect_limited("frame_flood", flood_of(target(), h2::priority(1))); }

TEST_F(MeshHboneFlood, OfEmptyData) { expect_limited("frame_flood", flood_of(target(), h2::data(1, ""))); }

TEST_F(MeshHboneFlood, OfDataThatIsPaddingOnly) {
  expect_limited("frame_flood", flood_of(target(), h2::padding_only(1)));
}

TEST_F(MeshHboneFlood, OfFramesOfUnknownTypes) {
  expect_limited("frame_flood", flood_of(target(), h2::frame(h2::kUnknown, 0, 0, "")));
}

TEST_F(MeshHboneFlood, OfWindowUpdates) { expect_limited("frame_flood", flood_of(target(), h2::window_update(1, 1))); }

TEST_F(MeshHboneFlood, OfContinuations) {
  expect_limited("http2_error", [](RawPeer& peer) {
    peer.write(h2::frame(NGHTTP2_HEADERS, 0, 1, h2::connect_block(target())));
    peer.repeat(many(h2::frame(h2::kContinuation, 0, 1, "")), kFlood / kFramesInOne);
    peer.read_until([&] { return false; });
  });
}

TEST_F(MeshHboneFlood, OfWindowsThatOverflow) {
  constexpr std::uint32_t kMost = 0x7fffffff;
  for (const std::uint32_t increment : {0U, kMost}) {
    expect_limited("http2_error", [&](RawPeer& peer) {
      peer.write(h2::window_update(0, increment));
      peer.read_until([&] { return false; });
      EXPECT_EQ(peer.goaway(), increment == 0 ? NGHTTP2_PROTOCOL_ERROR : NGHTTP2_FLOW_CONTROL_ERROR);
    });
  }
}

TEST_F(MeshHboneFlood, OfStreamsBeyondTheLimit) {
  expect_limited("http2_error", streams_of([](std::int32_t stream) { return h2::connect(stream, target()); }), {},
                 kLogOfStreams);
}

// A peer that has not said that it knows the limit yet is only told of it, but not without end.
TEST_F(MeshHboneFlood, OfStreamsThatAreRefused) {
  const auto attack = streams_of([](std::int32_t stream) { return h2::connect(stream, target()); });
  expect_limited("reset_flood", attack, {.acknowledge = false}, kLogOfStreams);
  const auto unread = [&](RawPeer& peer) {
    peer.stop_reading();
    attack(peer);
  };
  expect_limited("reset_flood", unread, {.acknowledge = false}, kLogOfStreams);
}

TEST_F(MeshHboneFlood, OfResets) {
  expect_limited("reset_flood", streams_of([](std::int32_t stream) {
                   return h2::connect(stream, target()) + h2::rst_stream(stream, NGHTTP2_CANCEL);
                 }));
}

// The same, but it is the server that is made to reset.
TEST_F(MeshHboneFlood, OfStreamsThatTheServerMustReset) {
  expect_limited("http2_error", streams_of([](std::int32_t stream) {
                   return h2::connect(stream, target()) + h2::window_update(stream, 0x7fffffff);
                 }));
  expect_limited("reset_flood", [](RawPeer& peer) {
    constexpr int kTogether = 50;
    std::size_t wanted = 0;
    for (std::int32_t stream = 1; stream < kFlood && !peer.over();) {
      std::string batch;
      for (int i = 0; i < kTogether; ++i, stream += 2) {
        batch += h2::headers(stream, h2::connect_block(target()) + h2::field("Upper", "case"));
      }
      wanted += kTogether;
      // Otherwise too many are open at once, which is another case.
      if (!peer.write(batch) || !peer.read_until([&] { return peer.resets().size() >= wanted; })) break;
    }
  });
}

TEST_F(MeshHboneFlood, OfHeaders) {
  const std::string connect = h2::connect_block(target());
  // In one frame: more than any list may have.
  expect_limited("header_flood", [&](RawPeer& peer) {
    peer.write(h2::headers(1, connect + h2::field("x-long", std::string((1U << 20) - 200, 'a'))));
    peer.read_until([&] { return false; });
  });
  // Very many small ones, in frames that are just small enough.
  std::string small = connect;
  while (small.size() < kHeaderList - 16) small += h2::field("a", "b");
  const auto attack = streams_of([&](std::int32_t stream) { return h2::headers(stream, small); });
  expect_limited("header_flood", attack);
}

// One field of 4,000 bytes that stands in the receiver's table, named again and again by one byte each.
TEST_F(MeshHboneFlood, OfHeadersThatUnpack) {
  constexpr char kFirstOfTheTable = '\xbe';
  const std::string field = h2::field("x", std::string(4000, 'a'), true);
  const std::string again(kHeaderList - field.size() - 100, kFirstOfTheTable);
  expect_limited("header_flood", streams_of([&](std::int32_t stream) {
                   return h2::headers(stream, h2::connect_block(target()) + field + again);
                 }));
}

// What is within the limits but would fill the log.
TEST_F(MeshHboneFlood, OfHeadersThatAreLogged) {
  const std::string huge(60'000, '1');
  const AgentUse before = use();
  const auto peer = dial();
  peer->write(h2::headers(1, h2::connect_block(target(kClosedPort)) + h2::field("traceparent", huge)));
  peer->write(h2::headers(3, h2::connect_block(huge)));
  ASSERT_TRUE(peer->read_until([&] { return peer->statuses().size() == 2; }));
  EXPECT_THAT(peer->statuses(), ElementsAre(Pair(1, "503"), Pair(3, "400")));
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] {
    return log_lines(node2().log(), before.log_bytes, {"response_flags=CONNECT"}).size() == 2;
  }));
  EXPECT_LT(use().log_bytes - before.log_bytes, 4096U);
}

TEST_F(MeshHboneFlood, OfConnectsToAClosedPort) {
  const double counted = violations("refusal_flood");
  const AgentUse before = use();
  int requests = 0, rounds = 0;
  {
    const auto peer = dial();
    Repeated hostile([&] {
      // As many as may be open at once, and again when they were answered.
      std::string batch;
      for (std::size_t i = 0; i < kMaxStreams; ++i, ++requests) {
        batch += h2::connect(2 * requests + 1, target(kClosedPort));
      }
      peer->write(batch);
      const auto wanted = static_cast<std::size_t>(requests);
      if (!peer->read_until([&] { return peer->statuses().size() == wanted; })) throw TestError("not all answered");
    });
    EXPECT_TRUE(eventually(milliseconds(10'000), [&] {
      expect_untouched_beside();
      return ++rounds >= 10 && violations("refusal_flood") > counted;
    }));
    EXPECT_THAT(peer->statuses(), Each(Pair(::testing::_, "503")));
  }
  const AgentUse after = use();
  const auto lines = log_lines(node2().log(), before.log_bytes, {"response_flags=CONNECT"}).size();
  std::cout << requests << " requests, " << lines << " lines, "
            << 1e6 * (after.cpu_seconds - before.cpu_seconds) / requests << " us of CPU each\n";
  EXPECT_LT(lines, 1000U);
  EXPECT_FALSE(log_lines(node2().log(), before.log_bytes, {"violation=refusal_flood"}).empty());
}

}  // namespace
}  // namespace weft::test
