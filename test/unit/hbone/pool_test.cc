// SPDX-License-Identifier: Apache-2.0
/// Handshakes of a source that wants tunnels to very many.
#include "tunnel/hbone/pool.h"

#include "test/unit/hbone/tunnel_fixture.h"

namespace weft::hbone {
namespace {

using testing::HasSubstr;

constexpr milliseconds kTimeout{300};

class PoolTest : public TunnelTest {
 protected:
  void make_pool(HandshakeBudget budget_of_source, milliseconds timeout = seconds(5)) {
    pool = std::make_unique<Pool>(context, timeout, seconds(60), budget_of_source,
                                  [this](std::uint32_t, bool refusal) { ++(refusal ? refused : delayed); });
  }
  /// A destination of its own for each number.
  PoolKey key_of(int number, std::uint32_t source = 1) const {
    return {source, "bob" + std::to_string(number), at, {kBob.to_uri()}};
  }
  void request_each(std::size_t count) {
    clients = std::vector<Client>(count);
    for (std::size_t i = 0; i < count; ++i) request(clients[i], key_of(static_cast<int>(i)));
  }
  static bool has_tunnel(const Client& client) { return client.tunnel != nullptr; }

  std::vector<Client> clients;  ///< of request_each
  Client other;
  int delayed = 0, refused = 0;
};

TEST_F(PoolTest, OfOneSourceOnlySoManyHandshakesAreUnderWay) {
  make_pool({.under_way = 2, .waiting = 10});
  request_each(6);
  EXPECT_EQ(dials, 2);
  EXPECT_EQ(delayed, 4);
  run_until([&] { return has_tunnel(clients[0]) || has_tunnel(clients[1]); });
  EXPECT_LE(dials, 4) << "each that is over lets one begin";
  run_until([&] { return std::ranges::all_of(clients, has_tunnel); });
  EXPECT_EQ(dials, 6);
  EXPECT_EQ(refused, 0);
}

TEST_F(PoolTest, AnotherSourceDoesNotWaitForIt) {
  make_pool({.under_way = 1, .waiting = 10});
  request_each(3);
  request(other, key_of(0, 2));
  EXPECT_EQ(dials, 2);
  EXPECT_EQ(delayed, 2);
  run_until([&] { return has_tunnel(other); });
}

TEST_F(PoolTest, WhatWaitsForTheSameTunnelWaitsOnce) {
  make_pool({.under_way = 1, .waiting = 1});
  request(other, key_of(0));
  clients = std::vector<Client>(3);
  for (auto& client : clients) request(client, key_of(1));
  EXPECT_EQ(delayed, 1);
  run_until([&] { return std::ranges::all_of(clients, has_tunnel); });
  EXPECT_EQ(dials, 2);
}

TEST_F(PoolTest, WhereTooManyWaitTheNextIsRefusedAtOnce) {
  make_pool({.under_way = 1, .waiting = 1});
  request_each(3);
  EXPECT_EQ(clients[2].phase, TunnelPhase::kNotBegun);
  EXPECT_THAT(clients[2].failure, HasSubstr("wait for their turn"));
  EXPECT_EQ(refused, 1);
  run_until([&] { return has_tunnel(clients[1]); });
}

TEST_F(PoolTest, NobodyWaitsLongerThanAConnectMayTake) {
  watcher.reset();  // the server says nothing
  make_pool({.under_way = 1, .waiting = 10}, kTimeout);
  request_each(3);
  run_until([&] { return clients[2].phase.has_value(); });
  EXPECT_EQ(clients[0].phase, TunnelPhase::kTls);
  EXPECT_EQ(clients[2].phase, TunnelPhase::kNotBegun);
  EXPECT_THAT(clients[2].failure, HasSubstr("timed out"));
  EXPECT_EQ(refused, 1);
  run_until([&] { return clients[1].phase.has_value(); });
  EXPECT_EQ(clients[1].phase, TunnelPhase::kTls) << "its turn came";
  EXPECT_EQ(pool->tunnels(), 0U);
}

TEST_F(PoolTest, WhoIsCancelledWhileItWaitsCostsNoHandshake) {
  make_pool({.under_way = 1, .waiting = 10});
  request_each(3);
  pool->cancel(clients[1]);
  pool->cancel(clients[1]);
  run_until([&] { return has_tunnel(clients[2]); });
  EXPECT_EQ(dials, 2);
  EXPECT_EQ(clients[1].tunnel, nullptr);
}

TEST_F(PoolTest, AFailedDialLetsTheNextBegin) {
  make_pool({.under_way = 1, .waiting = 10});
  request_each(3);
  dial_error = Error{ErrorCode::kOverLimit, 0, "no room"};
  run_until([&] { return clients[2].phase.has_value(); });
  EXPECT_TRUE(has_tunnel(clients[0]));
  EXPECT_EQ(clients[1].phase, TunnelPhase::kNotBegun);
  EXPECT_EQ(clients[1].failure, "no room");
  dial_error.reset();
  request(other, key_of(7));
  run_until([&] { return has_tunnel(other); });
}

TEST_F(PoolTest, ATunnelThatEndsLaterIsNoHandshakeThatIsOver) {
  make_pool({.under_way = 1, .waiting = 10});
  request(other, key_of(0));
  run_until([&] { return has_tunnel(other); });
  watcher.reset();
  clients = std::vector<Client>(2);
  request(clients[0], key_of(1));
  request(clients[1], key_of(2));
  EXPECT_EQ(dials, 2);
  other.tunnel->close("the test ends it");
  loop->run_once(milliseconds(0));
  EXPECT_EQ(dials, 2);
}

TEST_F(PoolTest, WhatADialHandsOverIsHeldAsLongAsTheTunnel) {
  make_pool({});
  held = std::make_shared<int>(0);
  const std::weak_ptr<int> watched = held;
  request(other, key_of(0));
  held.reset();
  run_until([&] { return has_tunnel(other); });
  EXPECT_FALSE(watched.expired());
  other.tunnel->close("the test ends it");
  EXPECT_TRUE(watched.expired());
}

TEST_F(PoolTest, APodThatGoesTakesItsLineAlong) {
  make_pool({.under_way = 1, .waiting = 10});
  request_each(3);
  pool->close_pod(1, "the pod is gone");
  for (const Client& client : clients) EXPECT_EQ(client.phase, TunnelPhase::kConnect);
  EXPECT_EQ(pool->tunnels(), 0U);
  EXPECT_EQ(dials, 1);
  request(other, key_of(0));
  run_until([&] { return has_tunnel(other); });
}

}  // namespace
}  // namespace weft::hbone
