// SPDX-License-Identifier: Apache-2.0
/// A peer that dials the HBONE port of both data planes itself and asks for the same: what they answer.

#include "test/interop/fixture.h"
#include "test/netns/hbone_peer.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr std::uint16_t kHbone = 15008;

/// What is asked of a pod, and the status that each data plane gives.
struct Question {
  const char* name;
  std::string method, authority;
  const char *at_weft, *at_ztunnel;
};

class ZtunnelPeer : public ZtunnelTest {
 protected:
  static hbone::CertificateBundle certificate(const state::Identity& identity) {
    return TestCa::load(mesh().ca_dir()).issue(identity);
  }
  static std::unique_ptr<HbonePeer> dial(const Endpoint& gateway, const hbone::CertificateBundle& bundle,
                                         const RawOptions& options = {}) {
    const auto context = raw_context(bundle, options);
    return std::make_unique<HbonePeer>(weft().netns(), gateway, context.get());
  }
  static std::vector<Question> questions(const Pod& pod, const Pod& other, bool v6) {
    const auto at = [v6](const Pod& of, std::uint16_t port) { return (v6 ? of.v6(port) : of.v4(port)).to_string(); };
    return {
        {"its application", "CONNECT", at(pod, Pod::kPort), "200", "200"},
        {"another method", "OPTIONS", at(pod, Pod::kPort), "400", "400"},
        {"an authority without a port", "CONNECT", "10.71.1.2", "400", "400"},
        {"another pod's address", "CONNECT", at(other, Pod::kPort), "400", "400"},
        {"an address outside the mesh", "CONNECT", "192.0.2.1:80", "400", "400"},
        {"a port where nothing listens", "CONNECT", at(pod, 9495), "503", "503"},
        {"a hostname that is no service", "CONNECT", "nobody.shop.svc.cluster.local:80", "503", "503"},
        // ztunnel calls it a call to itself, which it cannot serve; to Weft it is a request that no honest peer makes.
        {"the proxy's HBONE port", "CONNECT", at(pod, 15008), "400", "503"},
        {"the proxy's outbound port", "CONNECT", at(pod, 15001), "400", "503"},
        {"the proxy's plaintext port", "CONNECT", at(pod, 15006), "400", "503"}};
  }
  static std::string answer_of(const Endpoint& gateway, const Question& question) {
    const auto peer = dial(gateway, certificate({"cluster.local", "shop", "peer"}));
    EXPECT_TRUE(peer->accepted()) << peer->refusal();
    if (!peer->accepted()) return "no tunnel";
    HbonePeer::Headers headers{{":method", question.method}, {":authority", question.authority}};
    if (question.method != "CONNECT") headers.insert(headers.begin() + 1, {{":scheme", "https"}, {":path", "/"}});
    return peer->answer(peer->request(headers)).status;
  }
};

TEST_F(ZtunnelPeer, TheSameRequestGetsTheSameStatus) {
  for (const bool v6 : {false, true}) {
    const auto gateway = [v6](const Pod& pod) { return v6 ? pod.v6(kHbone) : pod.v4(kHbone); };
    for (const Question& question : questions(*web, *zweb, v6)) {
      EXPECT_EQ(answer_of(gateway(*web), question), question.at_weft) << "weft, " << question.name;
    }
    for (const Question& question : questions(*zweb, *web, v6)) {
      EXPECT_EQ(answer_of(gateway(*zweb), question), question.at_ztunnel) << "ztunnel, " << question.name;
    }
  }
}

TEST_F(ZtunnelPeer, ADenialIs401AtBoth) {
  const json match = {{"principals", json::array({{{"Exact", "cluster.local/ns/shop/sa/peer"}}})}};
  mesh().set_policy(deny_policy("shop", "no-peer", match));
  set_policy(deny_policy("bank", "no-peer", match));
  for (const Pod* pod : {web, zweb}) {
    const Question question{"its application", "CONNECT", pod->v4().to_string(), "401", "401"};
    EXPECT_EQ(answer_of(pod->v4(kHbone), question), "401") << pod->name();
  }
  mesh().remove_policy("shop", "no-peer");
  remove_policy("bank", "no-peer");
}

TEST_F(ZtunnelPeer, BothRefuseTheSameCertificates) {
  const TestCa mesh_ca = TestCa::load(mesh().ca_dir());
  const TestCa stranger("another root");
  const state::Identity good{"cluster.local", "shop", "peer"};
  const state::Identity foreign{"other.example", "shop", "peer"};
  LeafOptions server_only;
  server_only.uris = {good.to_uri()};
  server_only.usage = LeafOptions::Usage::kServerOnly;
  const std::vector<std::pair<const char*, hbone::CertificateBundle>> bad{
      {"of another root", stranger.issue(good)},
      {"of another trust domain", mesh_ca.issue(foreign)},
      {"expired", mesh_ca.expired(good)},
      {"not yet valid", mesh_ca.not_yet_valid(good)},
      {"without a SAN", mesh_ca.without_san(good)},
      {"with a DNS name alone", mesh_ca.with_dns_san_only(good)},
      {"for servers alone", mesh_ca.issue(good, server_only)}};
  for (const Pod* pod : {web, zweb}) {
    for (const auto& [name, bundle] : bad) {
      EXPECT_FALSE(dial(pod->v4(kHbone), bundle)->accepted()) << pod->name() << ": a certificate " << name;
    }
    RawOptions silent;
    silent.present_certificate = false;
    EXPECT_FALSE(dial(pod->v4(kHbone), mesh_ca.issue(good), silent)->accepted()) << pod->name() << ": no certificate";
    EXPECT_TRUE(dial(pod->v4(kHbone), mesh_ca.issue(good))->accepted()) << pod->name() << ": a good one";
  }
}

/// ztunnel takes a certificate with several identities for any of them that fits; Weft demands exactly one.
TEST_F(ZtunnelPeer, TwoIdentitiesInOneCertificateAreRefusedByWeftAlone) {
  const auto two = TestCa::load(mesh().ca_dir())
                       .with_two_sans({"cluster.local", "shop", "peer"}, "spiffe://cluster.local/ns/bank/sa/db");
  EXPECT_FALSE(dial(web->v4(kHbone), two)->accepted());
  EXPECT_TRUE(dial(zweb->v4(kHbone), two)->accepted());
}

}  // namespace
}  // namespace weft::test
