// SPDX-License-Identifier: Apache-2.0
/// A peer that dials a pod's HBONE port itself: what is refused, and that nothing of it harms the agent.

#include "test/netns/hbone_peer.h"

#include <poll.h>
#include <sys/socket.h>

#include "agent/identity/self_signed.h"
#include "test/netns/mesh_fixture.h"
#include "test/netns/raw_tcp.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class MeshHbonePeer : public MeshTest {
 protected:
  static constexpr std::uint16_t kHbone = 15008;
  static constexpr milliseconds kSoon{5000};

  state::Identity identity() const { return {"cluster.local", "shop", "peer"}; }
  std::string target(std::uint16_t port = Pod::kPort) const { return db->v4(port).to_string(); }

  /// A certificate of the mesh's own CA.
  hbone::CertificateBundle good() {
    const auto ca = agent::SelfSignedCa::load(mesh().ca_dir());
    if (!ca) throw TestError(ca.error().message());
    auto bundle = (*ca)->issue(identity());
    if (!bundle) throw TestError(bundle.error().message());
    return *bundle;
  }

  std::unique_ptr<HbonePeer> dial(const hbone::CertificateBundle& bundle, RawOptions options = {}) {
    const auto context = raw_context(bundle, options);
    return std::make_unique<HbonePeer>(outside->netns(), db->v4(kHbone), context.get());
  }

  /// The status of one CONNECT on a tunnel of its own.
  std::string status_of(const HbonePeer::Headers& headers) {
    const auto peer = dial(good());
    EXPECT_TRUE(peer->accepted()) << peer->refusal();
    if (!peer->accepted()) return "";
    const std::string status = peer->answer(peer->request(headers)).status;
    EXPECT_TRUE(peer->alive()) << "one bad request cost the tunnel";
    expect_works(*peer);
    return status;
  }
  std::string status_of_connect(const std::string& authority) {
    return status_of({{":method", "CONNECT"}, {":authority", authority}});
  }

  /// A request through the tunnel is answered, and the application sees the peer's address.
  void expect_works(HbonePeer& peer) {
    const auto stream = peer.connect(target());
    ASSERT_EQ(peer.answer(stream).status, "200") << peer.refusal();
    peer.send(stream, "GET /peer HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n");
    EXPECT_THAT(peer.receive_until(stream, "path=/peer"),
                HasSubstr("server=db client=" + outside->address_v4().to_string() + ":"));
  }

  /// The handshake is refused with one line in the log that says `why`, counted once, and the agent lives.
  void expect_refused(const hbone::CertificateBundle& bundle, const std::string& why, RawOptions options = {}) {
    const std::vector<std::string> labels{"reporter=\"destination\"", "response_flags=\"TLS_FAILURE\""};
    const std::string family = "istio_tcp_connections_closed_total";
    const double before = metric(node2().metrics(), family, labels);
    const std::size_t log_before = node2().log().size();
    const auto peer = dial(bundle, options);
    EXPECT_FALSE(peer->accepted());
    const std::vector<std::string> words{"connection complete", "direction=inbound",
                                         "src.addr=" + outside->address_v4().to_string(), why};
    EXPECT_TRUE(eventually(kSoon, [&] { return log_lines(node2().log(), log_before, words).size() == 1; }));
    EXPECT_EQ(metric(node2().metrics(), family, labels), before + 1);
    const std::vector<std::string> failures{"response_flags=TLS_FAILURE"};
    EXPECT_EQ(log_lines(node2().log(), log_before, failures).size(), 1U);
    const auto honest = dial(good());
    ASSERT_TRUE(honest->accepted()) << honest->refusal();
    expect_works(*honest);
  }
};

TEST_F(MeshHbonePeer, ItsTraceIsLoggedAsItCame) {
  const std::size_t before = node2().log().size();
  const auto peer = dial(good());
  for (const char* trace : {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "no trace at all"}) {
    const auto stream = peer->request({{":method", "CONNECT"}, {":authority", target(9)}, {"traceparent", trace}});
    EXPECT_EQ(peer->answer(stream).status, "503");
  }
  for (const char* logged :
       {" traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ", " traceparent=\"no trace at all\" "}) {
    EXPECT_TRUE(eventually(kSoon, [&] { return log_lines(node2().log(), before, {logged}).size() == 1; })) << logged;
  }
}

TEST_F(MeshHbonePeer, WithoutACertificateIsRefused) {
  RawOptions options;
  options.present_certificate = false;
  expect_refused(good(), "client sent no certificate", options);
}

TEST_F(MeshHbonePeer, WithACertificateOfAnotherRootIsRefused) {
  expect_refused(TestCa("another root").issue(identity()), "certificate");
}

TEST_F(MeshHbonePeer, WithAnExpiredCertificateIsRefused) {
  expect_refused(TestCa::load(mesh().ca_dir()).expired(identity()), "expired");
}

TEST_F(MeshHbonePeer, OfAnotherTrustDomainIsRefused) {
  const state::Identity other{"other.domain", "shop", "peer"};
  expect_refused(TestCa::load(mesh().ca_dir()).issue(other), "other.domain");
}

TEST_F(MeshHbonePeer, WithoutASpiffeSanIsRefused) {
  const TestCa ca = TestCa::load(mesh().ca_dir());
  expect_refused(ca.without_san(identity()), "SAN");
  expect_refused(ca.with_dns_san_only(identity()), "SAN");
  LeafOptions web;
  web.uris = {"https://example.com/ns/shop/sa/peer"};
  expect_refused(ca.issue(identity(), web), "is not spiffe://");
}

TEST_F(MeshHbonePeer, WithTwoSansIsRefused) {
  expect_refused(TestCa::load(mesh().ca_dir()).with_two_sans(identity(), db->identity()), "SAN");
}

TEST_F(MeshHbonePeer, WithoutHttp2OrTls13IsRefused) {
  RawOptions no_alpn;
  no_alpn.alpn.reset();
  expect_refused(good(), "ALPN", no_alpn);
  RawOptions old;
  old.max_version = TLS1_2_VERSION;
  expect_refused(good(), "TLS 1.3", old);
}

TEST_F(MeshHbonePeer, WithAGoodCertificateIsServed) {
  const auto peer = dial(good());
  ASSERT_TRUE(peer->accepted()) << peer->refusal();
  expect_works(*peer);
  expect_works(*peer);
}

TEST_F(MeshHbonePeer, AnythingButConnectIs400) {
  for (const char* method : {"GET", "POST", "OPTIONS"}) {
    EXPECT_EQ(status_of({{":method", method}, {":scheme", "https"}, {":authority", target()}, {":path", "/"}}), "400");
  }
}

TEST_F(MeshHbonePeer, AuthoritiesThatAreNoneAre400) {
  const std::string address = db->address_v4().to_string();
  for (const std::string& authority :
       {address, address + ":", address + ":0", address + ":65536", address + ":08080", address + ":http",
        std::string("[") + db->address_v6().to_string() + ":8080", db->address_v6().to_string() + ":8080",
        "[" + address + "]:8080", std::string(":8080"), std::string("-bad-.name:80")}) {
    EXPECT_EQ(status_of_connect(authority), "400") << authority;
  }
}

TEST_F(MeshHbonePeer, AddressesThatAreNotThePodsAndPortsOfTheProxyAre400) {
  for (const Endpoint& other : {web2->v4(), web2->v6(), outside->v4(), Endpoint{node2().address_v4(), 80}}) {
    EXPECT_EQ(status_of_connect(other.to_string()), "400") << other.to_string();
  }
  EXPECT_EQ(status_of_connect("127.0.0.1:8080"), "400");
  EXPECT_EQ(status_of_connect("[::1]:8080"), "400");
  for (const int port : {15001, 15006, 15008}) {
    EXPECT_EQ(status_of_connect(target(static_cast<std::uint16_t>(port))), "400") << port;
  }
}

TEST_F(MeshHbonePeer, AnUnknownHostnameAndAClosedPortAre503) {
  EXPECT_EQ(status_of_connect("nobody.example.com:8080"), "503");
  EXPECT_EQ(status_of_connect(target(9)), "503");
}

TEST_F(MeshHbonePeer, DeniedByPolicyIs401AndALivingTunnelStaysOpen) {
  const auto peer = dial(good());
  ASSERT_TRUE(peer->accepted()) << peer->refusal();
  expect_works(*peer);
  mesh().set_policy(deny_policy("bank", "no-peer",
                                {{"principals", nlohmann::json::array({{{"Exact", identity().to_principal()}}})}}));
  EXPECT_EQ(peer->answer(peer->connect(target())).status, "401");
  EXPECT_TRUE(peer->alive());
  mesh().remove_policy("bank", "no-peer");
  expect_works(*peer);
}

TEST_F(MeshHbonePeer, WhatItSaidBeforeItEndedAndResetReachesASlowApplication) {
  constexpr std::uint16_t kSlow = 9100;
  constexpr std::size_t kBytes = 200'000;
  const Fd listener = listen_in(db->netns(), kSlow);
  // So little that most of it waits for the application.
  const int room = 4096;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  const auto peer = dial(good());
  ASSERT_TRUE(peer->accepted()) << peer->refusal();
  const auto stream = peer->connect(target(kSlow));
  ASSERT_EQ(peer->answer(stream).status, "200");
  const Fd application = accept_from(listener);
  peer->send(stream, std::string(kBytes, 'x'));
  peer->end_and_reset(stream, NGHTTP2_CANCEL);
  expect_works(*peer);  // so it has heard of the reset
  const std::string got = read_to_end(application);
  EXPECT_TRUE(got == std::string(kBytes, 'x') + "|end") << got.size() << " bytes with " << got.substr(got.rfind('|'));
}

TEST_F(MeshHbonePeer, AnApplicationThatHasItAllHearsThatTheClientIsGone) {
  constexpr std::uint16_t kWaiting = 9101;
  const Fd listener = listen_in(db->netns(), kWaiting);
  const auto peer = dial(good());
  ASSERT_TRUE(peer->accepted()) << peer->refusal();
  const auto stream = peer->connect(target(kWaiting));
  ASSERT_EQ(peer->answer(stream).status, "200");
  const Fd application = accept_from(listener);
  peer->send(stream, "all");
  ASSERT_EQ(read_some(application, 3), "all");
  peer->end_and_reset(stream, NGHTTP2_CANCEL);
  pollfd gone{.fd = application.get(), .events = 0, .revents = 0};
  EXPECT_EQ(::poll(&gone, 1, static_cast<int>(kSoon.count())), 1) << "it would wait for a client that is not there";
  EXPECT_NE(gone.revents & POLLERR, 0);
}

TEST_F(MeshHbonePeer, AHeaderListThatIsTooLongIsRefusedAndTheTunnelGoesOn) {
  const auto peer = dial(good());
  ASSERT_TRUE(peer->accepted()) << peer->refusal();
  HbonePeer::Headers headers{{":method", "CONNECT"}, {":authority", target()}};
  for (int i = 0; i < 10; ++i) headers.emplace_back("x-filler-" + std::to_string(i), std::string(8000, 'a'));
  const auto answer = peer->answer(peer->request(headers));
  EXPECT_THAT(answer.status, AnyOf(IsEmpty(), Eq("431")));
  EXPECT_TRUE(answer.status == "431" || (answer.closed && answer.error != 0)) << "neither 431 nor a reset";
  EXPECT_TRUE(peer->alive()) << peer->refusal();
  expect_works(*peer);
  EXPECT_TRUE(node2().agent().running());
}

}  // namespace
}  // namespace weft::test
