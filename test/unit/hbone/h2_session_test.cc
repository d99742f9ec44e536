// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/h2_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

namespace weft::hbone {
namespace {

/// One end of a stream that sends `to_send` and keeps what it gets; returns windows only while `reading`.
class Peer : public StreamHandler {
 public:
  void on_response(const H2Headers& headers) override { response = headers; }
  void on_data(std::span<const std::byte> data) override {
    received.append(reinterpret_cast<const char*>(data.data()), data.size());
    unread += data.size();
    if (reading) read_all();
  }
  void on_end() override { ended = true; }
  void on_closed(std::uint32_t error_code) override { closed = error_code; }
  Chunk produce(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), to_send.size());
    std::memcpy(into.data(), to_send.data(), n);
    to_send.erase(0, n);
    return {n, to_send.empty() && finish};
  }
  void read_all() {
    session->consume(id, unread);
    unread = 0;
  }

  H2Session* session = nullptr;
  std::int32_t id = 0;
  std::string to_send, received;
  bool finish = false, reading = true, ended = false;
  std::size_t unread = 0;
  std::optional<H2Headers> response;
  std::optional<std::uint32_t> closed;
};

class Events : public SessionEvents {
 public:
  void on_request(std::int32_t stream_id, const H2Headers& headers) override {
    requests.emplace_back(stream_id, headers);
  }
  void on_bad_request(std::string_view reason) override { bad.emplace_back(reason); }
  void on_goaway() override { goaway = true; }
  void on_pong() override { ++pongs; }
  void on_drained() override { ++drained; }
  void on_stream_closed() override {}
  void on_want_send() override {}
  std::vector<std::pair<std::int32_t, H2Headers>> requests;
  std::vector<std::string> bad;
  bool goaway = false;
  int pongs = 0, drained = 0;
};

class Wire : public FrameSink {
 public:
  Result<void> write(std::span<const std::byte> bytes) override {
    data.insert(data.end(), bytes.begin(), bytes.end());
    return {};
  }
  [[nodiscard]] bool blocked() const override { return false; }
  std::vector<std::byte> data;
};

/// A client and a server joined by memory.
class H2SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    client = std::move(*H2Session::create(H2Session::Side::kClient, client_events, scratch, budget, clock));
    server = std::move(*H2Session::create(H2Session::Side::kServer, server_events, scratch, budget, clock));
  }
  /// Carries bytes until both are silent.
  void exchange() {
    bool moved = true;
    while (moved) {
      moved = pass(*client, *server);
      moved = pass(*server, *client) || moved;
    }
  }
  static bool pass(H2Session& from, H2Session& to) {
    Wire wire;
    EXPECT_TRUE(from.send(wire)) << "send";
    if (wire.data.empty()) return false;
    const auto received = to.receive(wire.data);
    EXPECT_TRUE(received) << (received ? "" : received.error().message());
    return received.has_value();
  }
  void connect(Peer& peer, const std::string& authority = "10.0.0.1:80") {
    H2Headers headers;
    headers.method = "CONNECT";
    headers.authority = authority;
    headers.baggage = "k8s.namespace.name=a";
    peer.session = client.get();
    peer.id = *client->connect(headers, peer);
  }
  void accept(Peer& peer) {
    peer.session = server.get();
    peer.id = server_events.requests.back().first;
    server->attach(peer.id, peer);
    H2Headers headers;
    headers.status = "200";
    ASSERT_TRUE(server->accept(peer.id, headers));
  }

  FakeClock clock;
  Scratch scratch;
  WindowBudget budget{16U << 20};
  Events client_events, server_events;
  Peer near, far;  // before the sessions, which call them when they go
  std::unique_ptr<H2Session> client, server;
};

TEST_F(H2SessionTest, ConnectCarriesHeadersAndBothDirections) {
  connect(near);
  exchange();
  ASSERT_EQ(server_events.requests.size(), 1U);
  EXPECT_EQ(server_events.requests[0].second.method, "CONNECT");
  EXPECT_EQ(server_events.requests[0].second.authority, "10.0.0.1:80");
  EXPECT_EQ(server_events.requests[0].second.baggage, "k8s.namespace.name=a");
  far.to_send = "pong";
  accept(far);
  near.to_send = "ping";
  client->resume(near.id);
  exchange();
  EXPECT_EQ(near.response->status, "200");
  EXPECT_EQ(near.received, "pong");
  EXPECT_EQ(far.received, "ping");
}

TEST_F(H2SessionTest, HalvesEndOneByOneAndTheStreamClosesWithoutAnError) {
  connect(near);
  exchange();
  accept(far);
  near.finish = true;
  near.to_send = "all";
  client->resume(near.id);
  exchange();
  EXPECT_TRUE(far.ended);
  EXPECT_FALSE(near.closed) << "the server's half is still open";
  far.finish = true;
  far.to_send = "answer";
  server->resume(far.id);
  exchange();
  EXPECT_EQ(near.received, "answer");
  EXPECT_EQ(near.closed, 0U);
  EXPECT_EQ(far.closed, 0U);
  EXPECT_EQ(client->open_streams() + server->open_streams(), 0U);
}

TEST_F(H2SessionTest, RefusalGivesTheStatusAndEndsTheStreamOnBothSides) {
  connect(near);
  exchange();
  server->refuse(server_events.requests[0].first, 401);
  exchange();
  ASSERT_TRUE(near.response.has_value());
  EXPECT_EQ(near.response->status, "401");
  EXPECT_TRUE(near.closed.has_value());
  EXPECT_EQ(client->open_streams() + server->open_streams(), 0U);
}

TEST_F(H2SessionTest, ResetReachesThePeerWithItsCode) {
  connect(near);
  exchange();
  accept(far);
  exchange();
  server->reset(far.id, NGHTTP2_CONNECT_ERROR);
  exchange();
  EXPECT_EQ(near.closed, static_cast<std::uint32_t>(NGHTTP2_CONNECT_ERROR));
  EXPECT_FALSE(far.closed) << "whoever resets hears no more";
}

TEST_F(H2SessionTest, AReaderThatStopsStopsTheSenderAtTheStreamWindow) {
  connect(near);
  exchange();
  far.reading = false;
  accept(far);
  near.to_send.assign(4U << 20, 'x');
  client->resume(near.id);
  exchange();
  EXPECT_EQ(far.received.size(), kStreamWindow);
  far.reading = true;
  far.read_all();
  exchange();
  EXPECT_EQ(far.received.size(), 4U << 20);
}

TEST_F(H2SessionTest, AStoppedStreamDoesNotStallItsNeighbour) {
  Peer other_near, other_far;
  connect(near);
  exchange();
  far.reading = false;
  accept(far);
  connect(other_near);
  exchange();
  accept(other_far);
  near.to_send.assign(1U << 20, 'x');
  client->resume(near.id);
  exchange();
  other_near.to_send.assign(20U << 20, 'y');
  client->resume(other_near.id);
  exchange();
  EXPECT_EQ(other_far.received.size(), 20U << 20) << "more than the connection's window";
  server.reset();
  client.reset();
}

TEST_F(H2SessionTest, WindowsGrowForFastReadersOnlyAndGoBackToTheBudget) {
  connect(near);
  exchange();
  accept(far);
  near.to_send.assign(8U << 20, 'x');
  client->resume(near.id);
  exchange();
  ASSERT_EQ(far.received.size(), 8U << 20);
  // The clock stood still, so the reader was fast: the window has grown and lets more through unread.
  far.reading = false;
  far.received.clear();
  near.to_send.assign(16U << 20, 'x');
  client->resume(near.id);
  exchange();
  EXPECT_GT(far.received.size(), std::size_t{2} * kStreamWindow);
  EXPECT_LE(far.received.size(), kMaxStreamWindow);
  EXPECT_FALSE(budget.take((16U << 20) - 1)) << "growth is taken from the budget";
  server->reset(far.id, NGHTTP2_CANCEL);
  exchange();
  EXPECT_TRUE(budget.take(16U << 20)) << "and comes back";
}

TEST_F(H2SessionTest, AWidenedWindowIsTheLargestWhateverTheBudget) {
  ASSERT_TRUE(budget.take(16U << 20));
  connect(near);
  exchange();
  accept(far);
  exchange();
  near.reading = false;
  client->widen(near.id);
  far.to_send.assign(8U << 20, 'x');
  server->resume(far.id);
  exchange();
  EXPECT_EQ(near.received.size(), kMaxStreamWindow);
  near.reading = true;
  near.read_all();
  exchange();
  EXPECT_EQ(near.received.size(), 8U << 20);
  client->reset(near.id, NGHTTP2_CANCEL);
  exchange();
  EXPECT_FALSE(budget.take(1)) << "what was not taken does not come back";
}

TEST_F(H2SessionTest, ASlowReadersWindowStaysAsItIs) {
  connect(near);
  exchange();
  far.reading = false;
  accept(far);
  near.to_send.assign(8U << 20, 'x');
  client->resume(near.id);
  for (int i = 0; i < 8; ++i) {
    exchange();
    clock.advance(std::chrono::seconds(1));
    far.read_all();
  }
  exchange();
  EXPECT_LE(far.unread, kStreamWindow);
}

TEST_F(H2SessionTest, GoawayStopsNewStreamsAndKeepsOldOnes) {
  connect(near);
  exchange();
  accept(far);
  server->goaway();
  exchange();
  EXPECT_TRUE(client_events.goaway);
  EXPECT_FALSE(client->accepts_new_streams());
  near.to_send = "still here";
  client->resume(near.id);
  exchange();
  EXPECT_EQ(far.received, "still here");
}

TEST_F(H2SessionTest, AServerThatGoesAwayServesWhatIsUnderWay) {
  exchange();
  server->shutdown_notice();
  connect(near);  // sent before the notice arrives
  exchange();
  ASSERT_EQ(server_events.requests.size(), 1U);
  EXPECT_TRUE(client_events.goaway);
  EXPECT_EQ(server_events.drained, 1) << "the client has heard it";
  server->goaway();
  accept(far);
  near.to_send = "in time";
  client->resume(near.id);
  exchange();
  EXPECT_EQ(far.received, "in time");
  EXPECT_FALSE(near.closed);
}

TEST_F(H2SessionTest, WhatCameTooLateForAGoawayIsRefusedAsNotLookedAt) {
  exchange();
  server->goaway();
  Wire goaway;
  ASSERT_TRUE(server->send(goaway));
  connect(near);  // before it has heard
  pass(*client, *server);
  ASSERT_TRUE(client->receive(goaway.data));
  exchange();
  EXPECT_TRUE(server_events.requests.empty());
  EXPECT_EQ(near.closed, static_cast<std::uint32_t>(NGHTTP2_REFUSED_STREAM));
}

TEST_F(H2SessionTest, ManyFramesWithoutContentEndTheSession) {
  exchange();
  // As many as a second allows, again and again, are served.
  for (int second = 0; second < 20; ++second) {
    for (int i = 0; i < 90; ++i) client->ping();
    exchange();
    clock.advance(std::chrono::seconds(1));
  }
  EXPECT_EQ(server->violation(), "");
  Result<void> received;
  for (int i = 0; i < 2000 && received; ++i) {
    client->ping();
    Wire wire;
    ASSERT_TRUE(client->send(wire));
    received = server->receive(wire.data);
    if (!received) break;
    Wire answers;
    ASSERT_TRUE(server->send(answers));
  }
  ASSERT_FALSE(received);
  EXPECT_EQ(server->violation(), "frame_flood");
  EXPECT_THAT(received.error().message(), testing::HasSubstr("frame_flood"));
  pass(*server, *client);
  EXPECT_TRUE(client_events.goaway) << "it is told";
}

TEST_F(H2SessionTest, ManyRequestsThatAreTakenBackEndTheSession) {
  exchange();
  Result<void> received;
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 2000 && received; ++i) {
    peers.push_back(std::make_unique<Peer>());
    connect(*peers.back());
    Wire wire;
    ASSERT_TRUE(client->send(wire));
    client->reset(peers.back()->id, NGHTTP2_CANCEL);
    ASSERT_TRUE(client->send(wire));
    received = server->receive(wire.data);
    Wire answers;
    ASSERT_TRUE(server->send(answers));
  }
  ASSERT_FALSE(received);
  EXPECT_EQ(server->violation(), "reset_flood");
  EXPECT_LT(server_events.requests.size(), 300U);
}

// A client that gives up on a slow application.
TEST_F(H2SessionTest, RequestsThatWaitedMayBeTakenBack) {
  exchange();
  for (int i = 0; i < 2000; ++i) {
    connect(near);
    exchange();
    clock.advance(milliseconds(60));
    client->reset(near.id, NGHTTP2_CANCEL);
    exchange();
  }
  EXPECT_EQ(server->violation(), "");
}

TEST_F(H2SessionTest, WindowUpdatesAreOwedForPayload) {
  connect(near);
  exchange();
  accept(far);
  exchange();
  far.to_send.assign(32U << 20, 'x');
  server->resume(far.id);
  exchange();
  EXPECT_EQ(near.received.size(), 32U << 20);
  EXPECT_EQ(server->violation(), "");
}

TEST_F(H2SessionTest, StreamsThatWereServedMayBeResetAsOftenAsTheyLike) {
  for (int i = 0; i < 2000; ++i) {
    connect(near);
    exchange();
    accept(far);
    exchange();
    client->reset(near.id, NGHTTP2_CANCEL);
    exchange();
  }
  EXPECT_EQ(server->violation(), "");
  EXPECT_EQ(server_events.requests.size(), 2000U);
}

TEST_F(H2SessionTest, AnEndingSessionTellsItsStreams) {
  connect(near);
  exchange();
  client.reset();
  EXPECT_EQ(near.closed, static_cast<std::uint32_t>(NGHTTP2_CANCEL));
}

TEST_F(H2SessionTest, PingIsAnswered) {
  client->ping();
  exchange();
  EXPECT_EQ(client_events.pongs, 1);
}

TEST_F(H2SessionTest, AHeaderListOverTheLimitIsResetAndReported) {
  H2Headers headers;
  headers.method = "CONNECT";
  headers.authority = "10.0.0.1:80";
  headers.baggage.assign(70'000, 'b');
  near.session = client.get();
  const auto id = client->connect(headers, near);
  ASSERT_TRUE(id);
  near.id = *id;
  exchange();
  EXPECT_TRUE(near.closed.has_value());
  EXPECT_TRUE(server_events.requests.empty());
}

TEST_F(H2SessionTest, GarbageEndsTheSessionWithAnError) {
  const std::string garbage = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
  const auto received = server->receive(std::as_bytes(std::span(garbage)));
  ASSERT_FALSE(received);
  EXPECT_THAT(received.error().message(), testing::HasSubstr("HTTP/2 from the peer"));
  EXPECT_EQ(server->violation(), "http2_error");
}

TEST_F(H2SessionTest, TheClientKeepsToTheLowerLimitOfStreams) {
  exchange();
  EXPECT_EQ(client->max_streams(), kClientMaxStreams) << "the server allows 200, a client uses 100";
}

}  // namespace
}  // namespace weft::hbone
