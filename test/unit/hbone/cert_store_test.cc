// SPDX-License-Identifier: Apache-2.0
/// What an identity is made of, what of it may change under a tunnel, and the store of all of them.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "test/unit/hbone/tls_fixture.h"

namespace weft::hbone {
namespace {

using ::testing::HasSubstr;

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
