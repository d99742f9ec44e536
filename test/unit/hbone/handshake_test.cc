// SPDX-License-Identifier: Apache-2.0
/// Handshakes: who is let in, who is refused, and how it is told.
#include <gmock/gmock.h>

#include "test/unit/hbone/tls_fixture.h"

namespace weft::hbone {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST_F(TlsTest, GoodHandshakeShowsEachTheOther) {
  const auto client = tls(ca_.issue(kClient));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kOther.to_uri(), kServer.to_uri()}});
  ASSERT_TRUE(pair.run().succeeded()) << pair.client_error() << " / " << pair.server_error();
  EXPECT_EQ(peer_identity(pair.client()).value(), kServer);
  EXPECT_EQ(peer_identity(pair.server()).value(), kClient);
  EXPECT_TRUE(alpn_is_h2(pair.client()));
  EXPECT_TRUE(alpn_is_h2(pair.server()));
  EXPECT_STREQ(SSL_get_version(pair.client()), "TLSv1.3");
  EXPECT_STREQ(SSL_get_cipher_name(pair.client()), "TLS_AES_128_GCM_SHA256");
  EXPECT_EQ(SSL_get_negotiated_group(pair.client()), NID_X25519);
  EXPECT_EQ(SSL_get_servername(pair.server(), TLSEXT_NAMETYPE_host_name), nullptr);
  EXPECT_FALSE(SSL_SESSION_is_resumable(SSL_get0_session(pair.client())));
}

TEST_F(TlsTest, PayloadPassesBothWays) {
  const auto client = tls(ca_.issue(kClient));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  ASSERT_TRUE(pair.run().succeeded());
  ASSERT_EQ(SSL_write(pair.client(), "ping", 4), 4);
  char* data = nullptr;
  const long length = BIO_get_mem_data(SSL_get_wbio(pair.client()), &data);
  EXPECT_EQ(std::string(data, static_cast<std::size_t>(length)).find("ping"), std::string::npos);
  BIO_write(SSL_get_rbio(pair.server()), data, static_cast<int>(length));
  char got[8] = {};
  ASSERT_EQ(SSL_read(pair.server(), got, sizeof got), 4);
  EXPECT_STREQ(got, "ping");
}

TEST_F(TlsTest, IntermediatesAreSentAndFollowed) {
  const TestCa below = ca_.intermediate().intermediate("test second intermediate");
  const auto client = tls(below.issue(kClient));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  ASSERT_TRUE(pair.run().succeeded()) << pair.server_error();
  EXPECT_EQ(sk_X509_num(SSL_get_peer_cert_chain(pair.server())), 2);  // no root: the server does not list the leaf here
}

TEST_F(TlsTest, IssuerBelowTheRootMayBeTheAnchor) {
  const TestCa below = ca_.intermediate();
  auto client_bundle = below.issue(kClient), server_bundle = below.issue(kServer);
  for (auto* bundle : {&client_bundle, &server_bundle}) bundle->roots_pem = std::exchange(bundle->chain_pem, "");
  const auto client = tls(client_bundle);
  const auto server = tls(server_bundle);
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  EXPECT_TRUE(pair.run().succeeded()) << pair.server_error() << pair.client_error();
}

TEST_F(TlsTest, ClientFromAnotherRootIsRefused) {
  EXPECT_THAT(refusal_of_client(other_ca_.issue(kClient)),
              AllOf(HasSubstr("client certificate for spiffe://cluster.local/ns/shop/sa/web is from an unknown root"),
                    HasSubstr("CN=test root")));
  EXPECT_THAT(peer_saw_, HasSubstr("peer refused with TLS alert 'unknown CA' (it does not trust the root"));
}

TEST_F(TlsTest, ExpiredClientIsRefused) {
  EXPECT_THAT(refusal_of_client(ca_.expired(kClient)),
              ::testing::MatchesRegex("client certificate for spiffe://cluster.local/ns/shop/sa/web expired at "
                                      "20[0-9-]+T[0-9:]+Z .did its renewal fail, or is a clock wrong[?]."));
  EXPECT_THAT(peer_saw_, HasSubstr("'certificate expired'"));
}

TEST_F(TlsTest, ClientNotYetValidIsRefused) {
  EXPECT_THAT(refusal_of_client(ca_.not_yet_valid(kClient)),
              AllOf(HasSubstr("is not yet valid: it starts at 20"), HasSubstr("clocks apart")));
}

TEST_F(TlsTest, ClientWithoutSpiffeSanIsRefused) {
  EXPECT_EQ(refusal_of_client(ca_.without_san(kClient)), "client certificate has no SPIFFE SAN");
  EXPECT_THAT(peer_saw_, HasSubstr("'certificate unknown' (it does not accept our identity)"));
  EXPECT_EQ(refusal_of_client(ca_.with_dns_san_only(kClient)),
            "client certificate has no SPIFFE SAN (it has only SANs of other kinds)");
}

TEST_F(TlsTest, ClientWithTwoSansIsRefusedWhateverTheyAre) {
  EXPECT_EQ(refusal_of_client(ca_.with_two_sans(kClient, kOther.to_uri())),
            "client certificate has 2 URI SANs, exactly one is allowed: spiffe://cluster.local/ns/shop/sa/web or "
            "spiffe://cluster.local/ns/shop/sa/cache");
  EXPECT_THAT(refusal_of_client(ca_.with_two_sans(kClient, "https://example.com")), HasSubstr("2 URI SANs"));
  EXPECT_THAT(refusal_of_client(ca_.with_two_sans(kClient, kClient.to_uri())), HasSubstr("2 URI SANs"));
}

TEST_F(TlsTest, ClientOfAnotherTrustDomainIsRefused) {
  EXPECT_EQ(refusal_of_client(ca_.issue({"other.example", "shop", "web"})),
            "client identity spiffe://other.example/ns/shop/sa/web is of trust domain 'other.example', expected "
            "'cluster.local'");
}

TEST_F(TlsTest, ClientUriThatIsNoIdentityIsRefusedAndShownSafely) {
  using namespace std::string_literals;
  const std::vector<std::string> uris = {
      "spiffe://cluster.local/ns/shop"s,
      "spiffe://cluster.local/ns/shop/sa/web/x"s,
      "spiffe://cluster.local/ns//sa/web"s,
      "SPIFFE://cluster.local/ns/shop/sa/web"s,
      "https://cluster.local/ns/shop/sa/web"s,
      "spiffe://cluster.local/ns/shop/sa/web\0.evil"s,
      "spiffe://cluster.local/ns/shop/sa/web\n"s,
      "spiffe://cluster.local/ns/shop/sa/w\xc3\xa9"s,
      ""s,
  };
  for (const auto& uri : uris) {
    LeafOptions options;
    options.uris = {uri};
    const std::string text = refusal_of_client(ca_.issue(kClient, options));
    EXPECT_THAT(text, HasSubstr("is not spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")) << uri;
    EXPECT_EQ(text.find_first_of(std::string("\0\n\xc3", 3)), std::string::npos) << uri;
  }
}

TEST_F(TlsTest, HugeSanIsCutInTheText) {
  LeafOptions options;
  options.uris = {"spiffe://cluster.local/" + std::string(8000, 'x')};
  EXPECT_LT(refusal_of_client(ca_.issue(kClient, options)).size(), 400U);
}

TEST_F(TlsTest, ClientWithServerUsageOnlyIsRefused) {
  EXPECT_THAT(refusal_of_client(ca_.with_usage(kClient, LeafOptions::Usage::kServerOnly)),
              HasSubstr("may not be used by a TLS client"));
}

TEST_F(TlsTest, CaCertificateAsLeafIsRefused) {
  LeafOptions options;
  options.uris = {kClient.to_uri()};
  options.is_ca = true;
  EXPECT_THAT(refusal_of_client(ca_.issue(kClient, options)), HasSubstr("is a CA's, not a workload's"));
}

TEST_F(TlsTest, ClientWithoutCertificateIsRefused) {
  RawOptions options;
  options.present_certificate = false;
  EXPECT_EQ(refusal_of_client(ca_.issue(kClient), options), "client sent no certificate, one is required");
  EXPECT_THAT(peer_saw_, HasSubstr("certificate required"));
}

TEST_F(TlsTest, ClientWithoutH2IsRefused) {
  RawOptions none, other;
  none.alpn = std::nullopt;
  other.alpn = "http/1.1";
  EXPECT_THAT(refusal_of_client(ca_.issue(kClient), none), HasSubstr("client offers no ALPN, h2 is required"));
  EXPECT_THAT(peer_saw_, HasSubstr("no application protocol"));
  EXPECT_THAT(refusal_of_client(ca_.issue(kClient), other), HasSubstr("client does not offer ALPN h2"));
  EXPECT_THAT(peer_saw_, HasSubstr("no application protocol"));
}

TEST_F(TlsTest, ClientWithoutASharedGroupIsRefused) {
  RawOptions options;
  options.groups = "P-521";
  EXPECT_EQ(refusal_of_client(ca_.issue(kClient), options),
            "no key-exchange group in common: this side has X25519, P-256 and P-384");
  EXPECT_THAT(peer_saw_, HasSubstr("no cipher or key-exchange group in common"));
}

TEST_F(TlsTest, PostQuantumOnlyClientIsRefusedWithItsReason) {
  const auto server = tls(ca_.issue(kServer));
  RawOptions options;
  options.groups = "P-521";
  const auto client = raw_context(ca_.issue(kClient), options);
  Pair pair(client.get(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  bool rewritten = false;
  // OpenSSL 3.0 has no such group to offer, so P-521 (0x0019) is renamed to X25519MLKEM768 (0x11ec) in supported_groups
  // (extension 10) and in key_share (extension 51).
  pair.rewrite_client_hello([&](std::string& hello) {
    const auto groups = hello.find(std::string("\x00\x0a\x00\x04\x00\x02\x00\x19", 8));
    if (groups == std::string::npos) return;
    hello.replace(groups + 6, 2, "\x11\xec");
    const auto share =
        hello.find(std::string("\x00\x19\x00\x85", 4));  // the group and the length of its 133-byte point
    if (share == std::string::npos) return;
    hello.replace(share, 2, "\x11\xec");
    rewritten = true;
  });
  pair.run();
  ASSERT_TRUE(rewritten);
  EXPECT_THAT(pair.server_error(), HasSubstr("the peer offers only post-quantum groups"));
}

TEST_F(TlsTest, OldTlsIsRefusedInBothDirections) {
  RawOptions options;
  options.max_version = TLS1_2_VERSION;
  EXPECT_EQ(refusal_of_client(ca_.issue(kClient), options), "peer does not speak TLS 1.3");
  EXPECT_THAT(peer_saw_, HasSubstr("'protocol version' (it does not speak TLS 1.3)"));
  options.server = true;
  const auto client = tls(ca_.issue(kClient));
  const auto server = raw_context(ca_.issue(kServer), options);
  Pair pair(client->client_context(), server.get());
  expect_server(pair.client(), {{kServer.to_uri()}});
  EXPECT_THAT(pair.run().client_error(), HasSubstr("TLS 1.3"));
}

TEST_F(TlsTest, PlaintextIsNamedAsSuch) {
  const auto server = tls(ca_.issue(kServer));
  const auto client = raw_context(ca_.issue(kClient));
  Pair pair(client.get(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  pair.rewrite_client_hello([](std::string& hello) { hello = "GET / HTTP/1.1\r\nhost: x\r\n\r\n"; });
  EXPECT_EQ(pair.run().server_error(), "peer does not speak TLS (is it plaintext to the HBONE port?)");
}

TEST_F(TlsTest, AbortedHandshakeHasItsText) {
  const auto server = tls(ca_.issue(kServer));
  OpenSslPtr<SSL> ssl(SSL_new(server->server_context()));
  SSL_set_accept_state(ssl.get());
  SSL_set_bio(ssl.get(), BIO_new_mem_buf("", 0), BIO_new(BIO_s_mem()));
  expect_client(ssl.get(), "cluster.local");
  EXPECT_LE(SSL_do_handshake(ssl.get()), 0);
  EXPECT_THAT(handshake_error(ssl.get()), HasSubstr("peer closed the connection"));
  EXPECT_EQ(ERR_peek_error(), 0UL);
}

TEST_F(TlsTest, WrongServerIdentityNamesFoundAndExpected) {
  EXPECT_EQ(refusal_of_server(ca_.issue(kOther), {kServer.to_uri(), "spiffe://cluster.local/ns/shop/sa/db2"}),
            "server identity is spiffe://cluster.local/ns/shop/sa/cache, expected "
            "spiffe://cluster.local/ns/shop/sa/db or spiffe://cluster.local/ns/shop/sa/db2 (was the address given to "
            "another pod?)");
  EXPECT_THAT(peer_saw_, HasSubstr("'certificate unknown'"));
}

TEST_F(TlsTest, ServerRefusals) {
  EXPECT_THAT(refusal_of_server(other_ca_.issue(kServer)), HasSubstr("server certificate for spiffe://cluster.local/ns/"
                                                                     "shop/sa/db is from an unknown root"));
  EXPECT_THAT(refusal_of_server(ca_.expired(kServer)), HasSubstr("expired at"));
  EXPECT_THAT(refusal_of_server(ca_.without_san(kServer)),
              HasSubstr("server certificate has no SPIFFE SAN, expected "));
  EXPECT_THAT(refusal_of_server(ca_.with_usage(kServer, LeafOptions::Usage::kClientOnly)),
              HasSubstr("may not be used by a TLS server"));
  EXPECT_THAT(refusal_of_server(ca_.issue(kServer), {}), HasSubstr("expected none"));
}

TEST_F(TlsTest, ServerWithoutAlpnIsSeenByTheClient) {
  const auto client = tls(ca_.issue(kClient));
  RawOptions options;
  options.server = true;
  options.alpn = std::nullopt;
  const auto server = raw_context(ca_.issue(kServer), options);
  Pair pair(client->client_context(), server.get());
  expect_server(pair.client(), {{kServer.to_uri()}});
  pair.run();
  ASSERT_TRUE(SSL_is_init_finished(pair.client()));
  EXPECT_FALSE(alpn_is_h2(pair.client()));
  EXPECT_THAT(handshake_error(pair.client()), HasSubstr("server did not choose ALPN h2"));
}

TEST_F(TlsTest, NothingExpectedMeansNobodyIsTrusted) {
  const auto client = tls(ca_.issue(kClient));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(client->client_context(), server->server_context());
  pair.run();
  EXPECT_FALSE(SSL_is_init_finished(pair.client()));
  EXPECT_THAT(pair.client_error(), ::testing::Not(IsEmpty()));
}

TEST_F(TlsTest, ExpectationMayBeReplacedBeforeTheHandshake) {
  const auto client = tls(ca_.issue(kClient));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  expect_server(pair.client(), {{kOther.to_uri()}});
  EXPECT_THAT(pair.run().client_error(), HasSubstr("expected spiffe://cluster.local/ns/shop/sa/cache"));
}

}  // namespace
}  // namespace weft::hbone
