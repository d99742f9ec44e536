// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tunnel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <span>

#include "test/support/test_ca.h"
#include "tunnel/base/sys.h"
#include "tunnel/hbone/pool.h"

namespace weft::hbone {
namespace {

using testing::HasSubstr;

const state::Identity kAlice{"cluster.local", "a", "alice"};
const state::Identity kBob{"cluster.local", "b", "bob"};

/// Accepts every CONNECT and sends back what comes.
class Echo : public StreamHandler {
 public:
  Echo(H2Session& session, std::int32_t id) : session_(session), id_(id) {}
  void on_response(const H2Headers&) override {}
  void on_data(std::span<const std::byte> data) override {
    waiting_.append(data);
    session_.resume(id_);
  }
  void on_end() override {
    ended_ = true;
    session_.resume(id_);
  }
  void on_closed(std::uint32_t) override {}
  Chunk produce(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), waiting_.size());
    if (n > 0) {
      std::memcpy(into.data(), waiting_.view().data(), n);
      waiting_.consume(n);
      session_.consume(id_, n);
    }
    return {n, ended_ && waiting_.empty()};
  }

 private:
  H2Session& session_;
  std::int32_t id_;
  loop::Buffer waiting_;
  bool ended_ = false;
};

class Server : public TunnelOwner {
 public:
  void on_tunnel_open(Tunnel&) override { ++opened; }
  void on_tunnel_request(Tunnel& t, std::int32_t id, const H2Headers& headers) override {
    authorities.push_back(headers.authority);
    echoes.push_back(std::make_unique<Echo>(t.session(), id));
    t.session().attach(id, *echoes.back());
    H2Headers ok;
    ok.status = "200";
    EXPECT_TRUE(t.session().accept(id, ok));
  }
  void on_tunnel_bad_request(Tunnel&, std::string_view) override {}
  void on_tunnel_changed(Tunnel&) override {}
  void on_tunnel_closed(Tunnel&, TunnelPhase, const std::string& why) override { closed.push_back(why); }
  int opened = 0;
  std::vector<std::string> authorities, closed;
  std::vector<std::unique_ptr<Echo>> echoes;
};

/// A client of the pool: opens a stream, sends, collects.
class Client : public TunnelRequest, public StreamHandler {
 public:
  void on_tunnel(Tunnel& t) override {
    tunnel = &t;
    H2Headers headers;
    headers.method = "CONNECT";
    headers.authority = "127.0.0.1:80";
    id = *t.session().connect(headers, *this);
  }
  void on_no_tunnel(TunnelPhase p, const std::string& why) override {
    phase = p;
    failure = why;
  }
  void on_response(const H2Headers& headers) override { status = headers.status; }
  void on_data(std::span<const std::byte> data) override {
    received += data.size();
    tunnel->session().consume(id, data.size());
  }
  void on_end() override { ended = true; }
  void on_closed(std::uint32_t code) override { closed = code; }
  Chunk produce(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), to_send);
    std::memset(into.data(), 'x', n);
    to_send -= n;
    return {n, to_send == 0};
  }
  Tunnel* tunnel = nullptr;
  std::int32_t id = 0;
  std::string status, failure;
  std::optional<TunnelPhase> phase;
  std::optional<std::uint32_t> closed;
  std::size_t to_send = 0, received = 0;
  bool ended = false;
};

class TunnelTest : public testing::Test {
 protected:
  void SetUp() override {
    listener = std::move(*sys::socket(AF_INET, SOCK_STREAM));
    ASSERT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
    ASSERT_TRUE(sys::listen(listener.get(), 64));
    at = *sys::local_endpoint(listener.get());
    alice = std::move(*TlsIdentity::create(ca.issue(kAlice)));
    bob = std::move(*TlsIdentity::create(ca.issue(kBob)));
    watcher = std::move(*loop->watch(
        listener.get(), EPOLLIN, [this](std::uint32_t) { accept(); }, true));
  }
  void TearDown() override {
    pool.reset();
    for (auto& t : served) t.reset();
    loop->run_once(milliseconds(0));
  }
  void accept() {
    auto accepted = sys::accept(listener.get());
    if (!accepted || !accepted->has_value()) return;
    served.push_back(std::move(*Tunnel::create(
        context, server, Tunnel::Side::kServer, std::move((*accepted)->fd), bob,
        [](SSL* ssl) { expect_client(ssl, "cluster.local"); }, seconds(5))));
  }
  PoolKey key(const std::string& expected = kBob.to_uri()) const { return {1, "bob", at, {expected}}; }
  void request(Client& client, const PoolKey& k) {
    pool->request(
        k, alice,
        [this]() -> Result<Fd> {
          ++dials;
          auto fd = sys::socket(AF_INET, SOCK_STREAM);
          if (auto connecting = sys::connect(fd->get(), at.to_sockaddr()); !connecting) {
            return Failure(connecting.error());
          }
          return fd;
        },
        client);
  }
  void run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < deadline) loop->run_once(milliseconds(100));
    EXPECT_TRUE(condition()) << "within 20 s";
  }

  test::TestCa ca;
  std::unique_ptr<loop::EventLoop> loop = std::move(*loop::EventLoop::create());
  Scratch scratch;
  WindowBudget budget{16U << 20};
  KeptBudget kept{64U << 20};
  TunnelContext context{*loop, scratch, budget, kept, Clock::real()};
  std::shared_ptr<const TlsIdentity> alice, bob;
  Fd listener;
  Endpoint at;
  Server server;
  std::vector<std::unique_ptr<Tunnel>> served;
  std::unique_ptr<Pool> pool = std::make_unique<Pool>(context, milliseconds(5000), milliseconds(300));
  loop::Watcher watcher;
  int dials = 0;
};

TEST_F(TunnelTest, CarriesAMegabyteThereAndBackAndKnowsBothIdentities) {
  Client client;
  client.to_send = 32U << 20;
  request(client, key());
  run_until([&] { return client.closed.has_value(); });
  EXPECT_EQ(client.status, "200");
  EXPECT_EQ(client.received, 32U << 20);
  EXPECT_TRUE(client.ended);
  EXPECT_EQ(client.closed, 0U);
  EXPECT_EQ(client.tunnel->peer_identity(), kBob);
  EXPECT_EQ(served.at(0)->peer_identity(), kAlice);
}

TEST_F(TunnelTest, StreamsOfOneKeyShareOneTunnelAndOneHandshake) {
  std::vector<Client> clients(50);
  for (auto& client : clients) {
    client.to_send = 100;
    request(client, key());
  }
  run_until([&] { return std::ranges::all_of(clients, [](const Client& c) { return c.closed.has_value(); }); });
  EXPECT_EQ(dials, 1);
  EXPECT_EQ(server.opened, 1);
}

/// Connections to it get no answer: its queue is full.
struct Silent {
  Silent() {
    EXPECT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
    EXPECT_TRUE(sys::listen(listener.get(), 0));
    at = *sys::local_endpoint(listener.get());
    for (int i = 0; i < 3; ++i) {
      fill.push_back(std::move(*sys::socket(AF_INET, SOCK_STREAM)));
      EXPECT_TRUE(sys::connect(fill.back().get(), at.to_sockaddr()));
    }
  }
  Fd listener = std::move(*sys::socket(AF_INET, SOCK_STREAM));
  Endpoint at;
  std::vector<Fd> fill;
};

/// A dial that has had no answer for a while; what comes next is dialled at the server's address again.
class StuckDial : public TunnelTest {
 protected:
  void request_and_be_stuck(std::span<Client> early) {
    const Endpoint server_at = std::exchange(at, silent.at);
    one = key();
    for (auto& client : early) request(client, one);
    const auto begun = loop->now();
    run_until([&] { return loop->now() - begun > Pool::kStuckAfter; });
    at = server_at;
  }
  void stop_listening() {
    watcher.reset();
    listener.reset();
  }
  const Silent silent;
  PoolKey one;
  std::vector<Client> clients{3};
};

TEST_F(StuckDial, HasAnotherOneBesideItForWhoComesLater) {
  request_and_be_stuck(std::span(clients).first(2));
  EXPECT_EQ(dials, 1);
  EXPECT_FALSE(clients[0].closed || clients[0].phase);
  request(clients[2], one);
  EXPECT_EQ(dials, 2);
  run_until([&] { return std::ranges::all_of(clients, [](const Client& c) { return c.closed.has_value(); }); });
  for (const Client& client : clients) EXPECT_EQ(client.status, "200") << client.failure;
  EXPECT_EQ(server.opened, 1);
  EXPECT_EQ(pool->tunnels(), 1U) << "the silent dial is given up";
}

TEST_F(StuckDial, IsAnsweredByARefusalOfAnother) {
  request_and_be_stuck(std::span(clients).first(1));
  stop_listening();
  request(clients[1], one);
  run_until([&] { return clients[0].phase && clients[1].phase; });
  EXPECT_THAT(clients[0].failure, testing::HasSubstr("refused"));
  EXPECT_EQ(pool->tunnels(), 0U);
}

TEST_F(StuckDial, EndsWithARefusalThatNobodyWaitsForAnyMore) {
  request_and_be_stuck(std::span(clients).first(1));
  stop_listening();
  request(clients[1], one);
  for (auto& client : clients) pool->cancel(client);
  run_until([&] { return pool->tunnels() == 0; });
}

TEST_F(TunnelTest, MoreStreamsThanATunnelTakesGetASecondOne) {
  std::vector<Client> clients(150);
  for (auto& client : clients)
    request(client, key());  // to_send 0: they end at once, but all wait for the first tunnel
  run_until([&] { return std::ranges::all_of(clients, [](const Client& c) { return c.closed.has_value(); }); });
  EXPECT_LE(dials, 2);
  EXPECT_EQ(server.authorities.size(), 150U);
}

TEST_F(TunnelTest, AnotherIdentityThanExpectedIsRefusedBeforeAnythingIsSent) {
  Client client;
  request(client, key("spiffe://cluster.local/ns/b/sa/mallory"));
  run_until([&] { return client.phase.has_value(); });
  EXPECT_EQ(client.phase, TunnelPhase::kTls);
  EXPECT_THAT(client.failure, HasSubstr("spiffe://cluster.local/ns/b/sa/bob"));
  EXPECT_TRUE(server.authorities.empty());
}

TEST_F(TunnelTest, AnUnknownRootIsATlsFailure) {
  test::TestCa other("other root");
  alice = std::move(*TlsIdentity::create(other.issue(kAlice)));
  Client client;
  request(client, key());
  run_until([&] { return client.phase.has_value(); });
  EXPECT_EQ(client.phase, TunnelPhase::kTls);
}

TEST_F(TunnelTest, ARefusedConnectSaysSo) {
  watcher.reset();
  listener.reset();
  Client client;
  request(client, key());
  run_until([&] { return client.phase.has_value(); });
  EXPECT_EQ(client.phase, TunnelPhase::kConnect);
  EXPECT_THAT(client.failure, HasSubstr("refused"));
}

TEST_F(TunnelTest, AnIdleTunnelIsClosedInGoodOrder) {
  Client client;
  request(client, key());
  run_until([&] { return client.closed.has_value(); });
  EXPECT_EQ(pool->tunnels(), 1U);
  run_until([&] { return pool->tunnels() == 0 && !server.closed.empty(); });
  EXPECT_EQ(server.closed.at(0), "");
}

TEST_F(TunnelTest, APodsTunnelsAreCutWithIt) {
  Client client;
  client.to_send = 1U << 30;
  request(client, key());
  run_until([&] { return client.received > 0; });
  pool->close_pod(1, "the pod is gone");
  run_until([&] { return client.closed.has_value(); });
  EXPECT_NE(client.closed, 0U);
  EXPECT_EQ(pool->tunnels(), 0U);
}

TEST_F(TunnelTest, ACancelledRequestHearsNothing) {
  Client client;
  request(client, key());
  pool->cancel(client);
  run_until([&] { return server.opened == 1; });
  EXPECT_EQ(client.tunnel, nullptr);
  EXPECT_FALSE(client.phase.has_value());
}

}  // namespace
}  // namespace weft::hbone
