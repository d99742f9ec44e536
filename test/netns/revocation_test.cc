// SPDX-License-Identifier: Apache-2.0
/// Certificates that are revoked while they are in use. Each node has a list of its own, so that it is known which of
/// them acted.

#include <chrono>
#include <filesystem>

#include "test/netns/certificates_fixture.h"
#include "test/netns/hbone_peer.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

/// From the moment that the file is in its place.
constexpr milliseconds kCut{5'000};
const std::vector<std::string> kRevoked{"connection complete", "response_flags=CERT_REVOKED"};

class Revocations : public CertificatesTest {
 protected:
  static void SetUpTestSuite() {
    make_mesh({.node_arguments = [](const Mesh& mesh, int node) {
      return std::vector<std::string>{"--crl", mesh.folder().path() + "/crl" + std::to_string(node) + ".pem"};
    }});
  }
  /// Gives a node this list, at once.
  static void give(int node, const std::string& pem) {
    mesh().folder().write("crl" + std::to_string(node) + ".pem", pem);
    given_ = std::chrono::steady_clock::now();
  }
  static std::string list() { return read_file(mesh().ca_dir() + "/crl.pem"); }
  static void revoke(const std::vector<std::string>& what) {
    std::vector<std::string> arguments{"revoke", mesh().ca_dir()};
    arguments.insert(arguments.end(), what.begin(), what.end());
    ca(arguments);
  }
  static void expect_cut(Process& held) {
    EXPECT_TRUE(eventually(kCut, [&] { return held.out().find("ended how=reset") != std::string::npos; }))
        << "still there: " << held.out();
    const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - given_);
    std::printf("  cut %lld ms after the list was in its place\n", static_cast<long long>(took.count()));
  }
  static inline std::chrono::steady_clock::time_point given_;  ///< when a node got its last list
  static double cut_tunnels(const Node& node, const char* reporter) {
    return metric(node.metrics(), "weft_tunnels_revoked_total", {std::string("reporter=\"") + reporter + "\""});
  }
  /// The words of a connection that a node cut or refused, and why.
  std::size_t told(int node, std::vector<std::string> words) const {
    words.insert(words.end(), kRevoked.begin(), kRevoked.end());
    return logged(node, words).size();
  }
};

TEST_F(Revocations, OfAClientCutItsTunnelsAndRefuseItUntilItHasAnotherCertificate) {
  Process held = client->hold(db->v4()), held6 = client->hold(db->v6()), other = web1->hold(db->v4());
  const std::string serial = serial_of(*client);
  revoke({"--serial", serial});
  const double cut = cut_tunnels(node2(), "destination");
  give(2, list());
  expect_cut(held);
  expect_cut(held6);
  EXPECT_TRUE(eventually(kSoon, [&] {
    return told(2, {"direction=inbound", "src.identity=" + client->identity(), "the peer's certificate " + serial}) ==
           2;
  }));
  EXPECT_GE(cut_tunnels(node2(), "destination"), cut + 2);
  // Its own agent knows of nothing: the handshake is refused.
  EXPECT_FALSE(client->get(db->v4()).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return told(2, {"direction=inbound", "the client's certificate " + serial}) >= 1 &&
           logged(1, {"response_flags=TLS_FAILURE", "its revocation list names our certificate"}).size() == 1;
  }));
  EXPECT_TRUE(other.running()) << other.out();

  give(1, list());
  EXPECT_TRUE(eventually(kSoon, [&] { return serial_of(*client) != serial; }));
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
  EXPECT_TRUE(other.running()) << other.out();
}

TEST_F(Revocations, OfAServerCutItsTunnelsAndRefuseIt) {
  Process held = client->hold(db->v4()), other = client->hold(web1->v4());
  const std::string serial = serial_of(*db);
  revoke({"--serial", serial});
  const double cut = cut_tunnels(node1(), "source");
  give(1, list());
  expect_cut(held);
  EXPECT_TRUE(eventually(kSoon, [&] {
    return told(1, {"direction=outbound", "dst.identity=" + db->identity(), "the peer's certificate " + serial}) == 1;
  }));
  EXPECT_GE(cut_tunnels(node1(), "source"), cut + 1);
  EXPECT_FALSE(client->get(db->v4()).ok());
  EXPECT_TRUE(eventually(kSoon, [&] {
    return told(1, {"direction=outbound", "the server's certificate " + serial}) == 1;
  }));
  give(2, list());
  EXPECT_TRUE(eventually(kSoon, [&] { return serial_of(*db) != serial; }));
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
  EXPECT_TRUE(other.running()) << other.out();
}

/// A certificate of `weftctl ca issue`, as somebody may have who is no agent.
TEST_F(Revocations, NothingThatIsWrongWithAListOpensWhatItCloses) {
  const std::string out = mesh().folder().path() + "/issued";
  EXPECT_THAT(ca({"issue", mesh().ca_dir(), "--identity", "spiffe://cluster.local/ns/shop/sa/peer", "--out", out}),
              HasSubstr("serial "));
  const auto context = raw_context({{"cluster.local", "shop", "peer"},
                                    read_file(out + "/cert.pem"),
                                    read_file(out + "/key.pem"),
                                    "",
                                    read_file(out + "/roots.pem")});
  const auto dial = [&] { return std::make_unique<HbonePeer>(outside->netns(), db->v4(15008), context.get()); };
  const auto live = dial();
  ASSERT_TRUE(live->accepted()) << live->refusal();
  revoke({"--certificate", out + "/cert.pem", "--next-update", "60s"});
  const std::string sound = list();
  give(2, sound);
  EXPECT_TRUE(eventually(kCut, [&] { return !live->alive(); }));
  const auto expect_closed = [&] {
    const auto refused = dial();
    EXPECT_FALSE(refused->accepted());
    EXPECT_THAT(refused->refusal(), HasSubstr("certificate revoked"));
  };
  expect_closed();

  const auto crl = [] { return ask(node2(), "/status").at("ca").at("crl"); };
  std::string changed = sound;
  char& byte = changed[changed.size() / 2];
  byte = byte == 'A' ? 'B' : 'A';
  for (const auto& [name, bad] : {std::pair<const char*, std::string>{"cut short", sound.substr(0, 150)},
                                  {"no list", "rubbish"},
                                  {"changed", changed}}) {
    SCOPED_TRACE(name);
    const auto refused_before = crl().at("refused").get<int>();
    give(2, bad);
    EXPECT_TRUE(eventually(kSoon, [&] { return crl().at("refused").get<int>() == refused_before + 1; }));
    EXPECT_FALSE(crl().at("usable").get<bool>());
    EXPECT_EQ(metric(node2().metrics(), "weft_crl_usable", {}), 0);
    expect_closed();
  }
  EXPECT_GE(metric(node2().metrics(), "weft_crl_refused_total", {}), 3);
  EXPECT_THAT(weftctl(node2(), {"status"}).out, AllOf(HasSubstr("CRL "), HasSubstr("problem       read ")));
  EXPECT_THAT(logged(2, {"CRL refused, the last version stays in force"}), SizeIs(3));

  CrlOptions older;
  older.this_update = std::chrono::hours(-24);
  older.next_update = std::chrono::hours(-1);
  give(2, TestCa::load(mesh().ca_dir()).crl(older));
  EXPECT_TRUE(eventually(kSoon, [&] { return crl().at("usable").get<bool>() && !crl().at("notes").empty(); }));
  EXPECT_THAT(crl().at("notes").at(0).get<std::string>(), HasSubstr("older than the one that counts"));
  expect_closed();
  fs::remove(mesh().folder().path() + "/crl2.pem");
  EXPECT_TRUE(eventually(kSoon, [&] {
    const json notes = crl().at("notes");
    return notes.size() == 1 && notes[0].get<std::string>().find("is not in the file any more") != std::string::npos;
  }));
  expect_closed();
  EXPECT_THAT(logged(2, {"CRL is not as it should be"}), SizeIs(2));
  give(2, sound);
  EXPECT_TRUE(eventually(kSoon, [&] { return crl().at("notes").empty(); }));
}

}  // namespace
}  // namespace weft::test
