// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tunnel.h"

#include <sys/ioctl.h>

#include <array>
#include <span>

#include "test/unit/hbone/tunnel_fixture.h"

namespace weft::hbone {
namespace {

using testing::HasSubstr;

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

/// A certificate's last moments: the stream that is open lives on, the next one needs a tunnel of today.
TEST_F(TunnelTest, ATunnelWhoseCertificateEndsTakesNoMoreStreamsAndKeepsThoseItHas) {
  test::LeafOptions brief;
  brief.uris = {kAlice.to_uri()};
  brief.valid_until = seconds(3);
  const auto lasting = std::exchange(alice, std::move(*TlsIdentity::create(ca.issue(kAlice, brief))));
  Client first;
  first.to_send = SIZE_MAX;
  request(first, key());
  run_until([&] { return first.received > 0; });
  Tunnel* const old = first.tunnel;
  EXPECT_TRUE(old->takes_streams());
  EXPECT_EQ(served.at(0)->peer_certificate().not_after, alice->not_after());
  alice = lasting;
  run_until([&] { return !old->takes_streams(); });
  EXPECT_GE(Clock::real().wall_now(), old->identity().not_after());
  const std::size_t before = first.received;
  Client second;
  request(second, key());
  run_until([&] { return second.closed.has_value() && first.received > before + (1U << 20); });
  EXPECT_EQ(second.closed, 0U);
  EXPECT_NE(second.tunnel, old);
  EXPECT_EQ(dials, 2);
  EXPECT_FALSE(first.closed.has_value());
  EXPECT_EQ(second.tunnel->identity().serial(), lasting->serial());
  first.to_send = 0;
  run_until([&] { return first.closed.has_value() && server.closed.size() == 1; });
  EXPECT_EQ(first.closed, 0U);
  EXPECT_EQ(server.closed.at(0), "");
}

TEST_F(TunnelTest, ADrainedTunnelWithoutStreamsClosesAtOnce) {
  Client client;
  request(client, key());
  run_until([&] { return client.closed.has_value(); });
  pool->drain();
  run_until([&] { return pool->tunnels() == 0 && !server.closed.empty(); });
  EXPECT_EQ(server.closed.at(0), "");
}

TEST_F(TunnelTest, KnowsWhatOfItIsRevokedAndWhichRootVouchedForThePeer) {
  Client client;
  client.to_send = SIZE_MAX;
  request(client, key());
  run_until([&] { return client.received > 0; });
  const auto revoking = [&](const TlsIdentity& identity) {
    test::CrlOptions options;
    options.revoked = {identity.bundle().certificate_pem};
    return RevocationLists::parse(ca.crl(options), "crl", ca.roots_pem()).value();
  };
  std::vector<Tunnel*> open;
  pool->for_each_open([&](Tunnel& tunnel) { open.push_back(&tunnel); });
  ASSERT_EQ(open, std::vector<Tunnel*>{client.tunnel});
  EXPECT_THAT(client.tunnel->find_revoked(*revoking(*bob)).value_or(""), HasSubstr("the peer's certificate "));
  EXPECT_THAT(client.tunnel->find_revoked(*revoking(*alice)).value_or(""), HasSubstr("our certificate "));
  EXPECT_THAT(served.at(0)->find_revoked(*revoking(*alice)).value_or(""), HasSubstr("the peer's certificate "));
  EXPECT_EQ(client.tunnel->find_revoked(*revoking(**TlsIdentity::create(ca.issue(kBob)))), std::nullopt);
  EXPECT_TRUE(client.tunnel->is_trusted_by(*alice));
  const test::TestCa other("other root");
  EXPECT_FALSE(client.tunnel->is_trusted_by(**TlsIdentity::create(other.issue(kAlice))));
  pool->close_pod(1, "the test is over");
  run_until([&] { return client.closed.has_value(); });
}

TEST_F(TunnelTest, ARevokedServerIsAPhaseOfItsOwn) {
  test::CrlOptions options;
  options.revoked = {bob->bundle().certificate_pem};
  const RevocationsPtr lists = RevocationLists::parse(ca.crl(options), "crl", ca.roots_pem()).value();
  TunnelContext strict = context;
  strict.revocations = &lists;
  pool = std::make_unique<Pool>(strict, milliseconds(5000), milliseconds(300));
  Client client;
  request(client, key());
  run_until([&] { return client.phase.has_value(); });
  EXPECT_EQ(client.phase, TunnelPhase::kRevoked);
  EXPECT_THAT(client.failure, HasSubstr("the server's certificate " + bob->serial()));
  pool.reset();
}

/// A client whose handshake the test takes apart.
class SlowClient {
 public:
  SlowClient(SSL_CTX* context, const Endpoint& to)
      : ssl_(SSL_new(context)), fd_(std::move(*sys::socket(AF_INET, SOCK_STREAM))) {
    SSL_set_connect_state(ssl_.get());
    SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    EXPECT_TRUE(sys::connect(fd_.get(), to.to_sockaddr()));
  }
  /// Takes what the server said; true where only what output() gives is missing to the end.
  bool step() {
    std::array<std::byte, 16'384> room;
    if (const auto got = sys::recv(fd_.get(), room); got && got->has_value()) {
      BIO_write(SSL_get_rbio(ssl_.get()), room.data(), static_cast<int>(**got));
    }
    return SSL_do_handshake(ssl_.get()) == 1;
  }
  std::string output() {
    char* data = nullptr;
    const long length = BIO_get_mem_data(SSL_get_wbio(ssl_.get()), &data);
    std::string bytes(data, static_cast<std::size_t>(length));
    BIO_reset(SSL_get_wbio(ssl_.get()));
    return bytes;
  }
  void send(std::string_view bytes) {
    const auto sent = sys::send(fd_.get(), std::as_bytes(std::span(bytes)));
    EXPECT_TRUE(sent && *sent == bytes.size());
  }

 private:
  OpenSslPtr<SSL> ssl_;
  Fd fd_;
};

TEST_F(TunnelTest, ARevocationBetweenTheClientsCertificateAndItsLastMessageCounts) {
  RevocationsPtr lists;
  context.revocations = &lists;
  const auto bundle = ca.issue(kAlice);
  const auto raw = test::raw_context(bundle);
  SlowClient client(raw.get(), at);
  run_until([&] { return !served.empty(); });
  EXPECT_FALSE(client.step());
  client.send(client.output());
  run_until([&] { return client.step(); });
  const std::string flight = client.output();
  // TLS records (RFC 8446, 5.1): Finished is the last one.
  std::size_t last = 0;
  for (std::size_t at_record = 0; at_record < flight.size();) {
    last = at_record;
    at_record += 5 + (static_cast<unsigned char>(flight[at_record + 3]) << 8U) +
                 static_cast<unsigned char>(flight[at_record + 4]);
  }
  ASSERT_GT(last, 0U);
  client.send(flight.substr(0, last));
  run_until([&] {
    int unread = -1;
    return ::ioctl(served.at(0)->fd(), FIONREAD, &unread) == 0 && unread == 0;
  });
  test::CrlOptions options;
  options.revoked = {bundle.certificate_pem};
  lists = RevocationLists::parse(ca.crl(options), "crl", ca.roots_pem()).value();
  EXPECT_THAT(server.closed, testing::IsEmpty());
  client.send(flight.substr(last));
  run_until([&] { return !server.closed.empty(); });
  EXPECT_THAT(server.closed.at(0), HasSubstr("TLS handshake: the peer's certificate "));
  EXPECT_EQ(server.opened, 0);
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
