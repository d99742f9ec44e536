// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/cert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include <atomic>
#include <thread>

#include "test/support/test_ca.h"

namespace weft::hbone {
namespace {

using test::LeafOptions;
using test::raw_context;
using test::RawOptions;
using test::TestCa;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const state::Identity kClient{"cluster.local", "shop", "web"};
const state::Identity kServer{"cluster.local", "shop", "db"};
const state::Identity kOther{"cluster.local", "shop", "cache"};

std::shared_ptr<const TlsIdentity> tls(CertificateBundle bundle) {
  auto out = TlsIdentity::create(std::move(bundle));
  EXPECT_TRUE(out) << out.error().message();
  return out ? *out : nullptr;
}

/// Two TLS ends joined in memory, and how their handshake went. Texts are empty where nothing failed.
class Pair {
 public:
  Pair(SSL_CTX* client, SSL_CTX* server) : client_(SSL_new(client)), server_(SSL_new(server)) {
    SSL_set_connect_state(client_.get());
    SSL_set_accept_state(server_.get());
    for (SSL* ssl : {client_.get(), server_.get()}) SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  }

  SSL* client() { return client_.get(); }
  SSL* server() { return server_.get(); }
  [[nodiscard]] const std::string& client_error() const { return client_error_; }
  [[nodiscard]] const std::string& server_error() const { return server_error_; }
  /// Changes what the client sends first, on its way.
  void rewrite_client_hello(std::function<void(std::string&)> rewrite) { rewrite_ = std::move(rewrite); }

  /// Steps both ends until neither has anything to say; then lets both read, since the alert of a server that refuses
  /// the client's certificate arrives after the client's handshake is done.
  Pair& run() {
    for (int turn = 0; turn < 6; ++turn) {
      step(client(), client_error_);
      move(client(), server());
      step(server(), server_error_);
      move(server(), client());
    }
    for (auto [ssl, error] : {std::pair(client(), &client_error_), std::pair(server(), &server_error_)}) {
      char byte = 0;
      ERR_clear_error();
      if (!error->empty() || !SSL_is_init_finished(ssl)) continue;
      const int n = SSL_read(ssl, &byte, 1);
      if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_SSL) *error = handshake_error(ssl);
    }
    return *this;
  }
  bool succeeded() { return client_error_.empty() && server_error_.empty() && done(client()) && done(server()); }

 private:
  static bool done(SSL* ssl) { return SSL_is_init_finished(ssl) != 0; }
  static void step(SSL* ssl, std::string& error) {
    if (!error.empty() || done(ssl)) return;
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl);
    if (result == 1) return;
    if (SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ) error = handshake_error(ssl);
  }
  void move(SSL* from, SSL* to) {
    char* data = nullptr;
    const long length = BIO_get_mem_data(SSL_get_wbio(from), &data);
    if (length <= 0) return;
    std::string bytes(data, static_cast<std::size_t>(length));
    BIO_reset(SSL_get_wbio(from));
    if (from == client() && rewrite_) std::exchange(rewrite_, nullptr)(bytes);
    BIO_write(SSL_get_rbio(to), bytes.data(), static_cast<int>(bytes.size()));
  }

  OpenSslPtr<SSL> client_, server_;
  std::string client_error_, server_error_;
  std::function<void(std::string&)> rewrite_;
};

class TlsTest : public ::testing::Test {
 protected:
  /// Our server against a peer that presents `bundle`, which may be bad.
  std::string refusal_of_client(const CertificateBundle& bundle, RawOptions options = {}) {
    const auto server = tls(ca_.issue(kServer));
    const auto client = raw_context(bundle, options);
    Pair pair(client.get(), server->server_context());
    expect_client(pair.server(), "cluster.local");
    pair.run();
    EXPECT_FALSE(SSL_is_init_finished(pair.server()));
    EXPECT_FALSE(peer_identity(pair.server()));
    peer_saw_ = pair.client_error();
    return pair.server_error();
  }
  /// Our client against a server that presents `bundle`.
  std::string refusal_of_server(const CertificateBundle& bundle,
                                std::vector<std::string> expected = {kServer.to_uri()}) {
    const auto client = tls(ca_.issue(kClient));
    RawOptions options;
    options.server = true;
    const auto server = raw_context(bundle, options);
    Pair pair(client->client_context(), server.get());
    expect_server(pair.client(), {std::move(expected)});
    pair.run();
    EXPECT_FALSE(peer_identity(pair.client()));
    peer_saw_ = pair.server_error();
    return pair.client_error();
  }

  TestCa ca_;
  TestCa other_ca_;  // the same name and another key, as two meshes may have
  std::string peer_saw_;
};

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

TEST_F(TlsTest, BundleFaultsAreNamed) {
  const auto error_of = [](CertificateBundle bundle) {
    auto out = TlsIdentity::create(std::move(bundle));
    EXPECT_FALSE(out);
    EXPECT_EQ(ERR_peek_error(), 0UL);
    return out ? "" : out.error().message();
  };
  const auto good = ca_.issue(kClient);
  auto bundle = good;
  bundle.private_key_pem = ca_.issue(kClient).private_key_pem;
  EXPECT_EQ(error_of(bundle),
            "tls identity spiffe://cluster.local/ns/shop/sa/web: the private key does not belong to the certificate");
  bundle = good;
  bundle.identity = kOther;
  EXPECT_THAT(error_of(bundle),
              HasSubstr("the certificate is for spiffe://cluster.local/ns/shop/sa/web, expected exactly "
                        "spiffe://cluster.local/ns/shop/sa/cache"));
  EXPECT_THAT(error_of(ca_.without_san(kClient)), HasSubstr("the certificate is for no URI SAN"));
  EXPECT_THAT(error_of(ca_.with_two_sans(kClient, kOther.to_uri())), HasSubstr("web, spiffe://"));
  EXPECT_THAT(error_of(ca_.with_usage(kClient, LeafOptions::Usage::kClientOnly)),
              HasSubstr("both as TLS client and server"));
  bundle = good;
  bundle.roots_pem = other_ca_.roots_pem();
  EXPECT_THAT(error_of(bundle), HasSubstr("the certificate does not chain to the roots: "));
  bundle = good;
  bundle.roots_pem.clear();
  EXPECT_THAT(error_of(bundle), HasSubstr("read roots: no certificate in it"));
  bundle = good;
  bundle.certificate_pem = "rubbish";
  EXPECT_THAT(error_of(bundle), HasSubstr("read certificate: 0 in it, expected one"));
  bundle = good;
  bundle.certificate_pem.replace(100, 8, "!!!!!!!!");
  EXPECT_THAT(error_of(bundle), HasSubstr("read certificate: certificate 1 is not a PEM certificate"));
  bundle = good;
  bundle.chain_pem = good.certificate_pem.substr(0, 200);
  EXPECT_THAT(error_of(bundle), HasSubstr("read chain: "));
  bundle = good;
  bundle.private_key_pem = "";
  EXPECT_THAT(error_of(bundle), HasSubstr("read private key: not an unencrypted PEM private key"));
}

TEST_F(TlsTest, ARevokedPeerIsRefusedByEitherEnd) {
  const auto client = tls(ca_.issue(kClient)), server = tls(ca_.issue(kServer));
  const auto handshake = [&](const CertificateBundle& revoked, bool by_client) {
    auto pair = std::make_unique<Pair>(client->client_context(), server->server_context());
    test::CrlOptions crl;
    crl.revoked = {revoked.certificate_pem};
    const RevocationsPtr lists = RevocationLists::parse(ca_.crl(crl), "crl", ca_.roots_pem()).value();
    expect_client(pair->server(), "cluster.local");
    expect_server(pair->client(), {{kServer.to_uri()}});
    refuse_revoked(by_client ? pair->client() : pair->server(), &lists);
    pair->run();
    return pair;
  };
  auto refused = handshake(server->bundle(), true);
  EXPECT_THAT(refused->client_error(), HasSubstr("the server's certificate " + server->serial() + " of " +
                                                 kServer.to_uri() + " was revoked at "));
  EXPECT_TRUE(refused_as_revoked(refused->client()));
  EXPECT_THAT(refused->server_error(), HasSubstr("certificate revoked"));
  refused = handshake(client->bundle(), false);
  EXPECT_THAT(refused->server_error(), HasSubstr("the client's certificate " + client->serial()));
  EXPECT_TRUE(refused_as_revoked(refused->server()));
  EXPECT_FALSE(refused_as_revoked(refused->client()));
  EXPECT_THAT(refused->client_error(), HasSubstr("(its revocation list names our certificate)"));
  // Its own certificate is the peer's business, and others are nobody's.
  EXPECT_TRUE(handshake(client->bundle(), true)->succeeded());
  EXPECT_TRUE(handshake(ca_.issue(kClient), false)->succeeded());
}

TEST_F(TlsTest, ListsThatChangeCountAtOnce) {
  const auto client = tls(ca_.issue(kClient)), server = tls(ca_.issue(kServer));
  RevocationsPtr lists;
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  refuse_revoked(pair.server(), &lists);
  test::CrlOptions crl;
  crl.revoked = {client->bundle().certificate_pem};
  lists = RevocationLists::parse(ca_.crl(crl), "crl", ca_.roots_pem()).value();
  EXPECT_FALSE(pair.run().succeeded());
}

TEST_F(TlsTest, SeveralRootsAreTrustedAndTold) {
  const TestCa next("next root");
  auto of_old = ca_.issue(kClient), of_new = next.issue(kServer);
  of_old.roots_pem = of_new.roots_pem = ca_.roots_pem() + next.roots_pem();
  const auto client = tls(of_old), server = tls(of_new);
  Pair pair(client->client_context(), server->server_context());
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  ASSERT_TRUE(pair.run().succeeded()) << pair.client_error() << " / " << pair.server_error();
  const auto chain = peer_chain(pair.client());
  ASSERT_EQ(chain.size(), 2U);
  EXPECT_TRUE(client->has_root(chain.back()));
  EXPECT_FALSE(client->has_root(chain.front()));
  EXPECT_FALSE(tls(ca_.issue(kClient))->has_root(chain.back()));
  EXPECT_EQ(server->chain().size(), 2U);
}

TEST_F(TlsTest, DatesAndSerialAreKept) {
  const auto identity = tls(ca_.issue(kClient));
  EXPECT_EQ(identity->not_after() - identity->not_before(), std::chrono::seconds(3660));
  EXPECT_LT(identity->not_before(), std::chrono::system_clock::now());
  EXPECT_THAT(identity->serial(), ::testing::MatchesRegex("[0-9A-F]+"));
  EXPECT_EQ(identity->bundle().identity, kClient);
  EXPECT_NE(tls(ca_.expired(kClient)), nullptr);  // dates are the peer's to check
}

TEST_F(TlsTest, ConnectionOutlivesRenewal) {
  CertStore store;
  store.put(tls(ca_.issue(kClient)));
  const auto server = tls(ca_.issue(kServer));
  Pair pair(store.get(kClient)->client_context(), server->server_context());
  store.put(tls(ca_.issue(kClient)));
  expect_client(pair.server(), "cluster.local");
  expect_server(pair.client(), {{kServer.to_uri()}});
  EXPECT_TRUE(pair.run().succeeded()) << pair.client_error();
}

TEST_F(TlsTest, ACertificatePastItsEndIsKeptAndNotGiven) {
  CertStore store;
  EXPECT_THAT(store.why_none(kClient), HasSubstr("no certificate for the pod's identity yet"));
  store.put(tls(ca_.expired(kClient)));
  EXPECT_EQ(store.get(kClient), nullptr);
  EXPECT_EQ(store.all().size(), 1U);
  EXPECT_THAT(store.why_none(kClient), ::testing::MatchesRegex("the certificate of the pod's identity expired at "
                                                               "20.*Z and could not be renewed .*"));
  store.put(tls(ca_.issue(kClient)));
  EXPECT_NE(store.get(kClient), nullptr);
}

TEST_F(TlsTest, StoreKeepsOneForEachIdentity) {
  CertStore store;
  EXPECT_EQ(store.get(kClient), nullptr);
  const auto first = tls(ca_.issue(kClient)), second = tls(ca_.issue(kClient)), server = tls(ca_.issue(kServer));
  store.put(first);
  store.put(server);
  store.put(second);
  EXPECT_EQ(store.get(kClient), second);
  EXPECT_EQ(store.all().size(), 2U);
  store.remove(kClient);
  store.remove(kClient);
  EXPECT_EQ(store.get(kClient), nullptr);
  EXPECT_EQ(store.get(kServer), server);
}

TEST_F(TlsTest, StoreServesThreadsWhileItChanges) {
  CertStore store;
  const std::vector<std::shared_ptr<const TlsIdentity>> made = {tls(ca_.issue(kClient)), tls(ca_.issue(kClient))};
  store.put(made[0]);
  std::atomic<bool> stop{false}, wrong{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const auto got = store.get(kClient);
        const OpenSslPtr<SSL> ssl(got ? SSL_new(got->client_context()) : nullptr);
        if (!ssl) wrong = true;
      }
    });
  }
  for (std::size_t i = 0; i < 2000; ++i) store.put(made[i % 2]);
  stop = true;
  for (auto& reader : readers) reader.join();
  EXPECT_FALSE(wrong);
}

}  // namespace
}  // namespace weft::hbone
