// SPDX-License-Identifier: Apache-2.0
/// The life of certificates under traffic: they are renewed, their CA goes away and comes back, the root is replaced.

#include <filesystem>
#include <set>

#include "test/netns/certificates_fixture.h"
#include "test/netns/hbone_peer.h"
#include "test/netns/steady_load.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// Between an answer and the next request of the load beside.
constexpr double kPauseS = 0.02;

/// A time of the admin API, in seconds.
double moment(const std::string& rfc3339) {
  std::tm parts{};
  if (::strptime(rfc3339.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts) == nullptr) throw TestError("a time: " + rfc3339);
  return static_cast<double>(::timegm(&parts));
}

bool is_past(const std::string& rfc3339) { return moment(rfc3339) < static_cast<double>(std::time(nullptr)); }

/// Certificates that live as short as they may.
class Certificates : public CertificatesTest {
 protected:
  static void SetUpTestSuite() { make_mesh({.agent_arguments = {"--certificate-lifetime", "5s"}}); }
};

TEST_F(Certificates, AreRenewedAtHalfTimeAndNoConnectionFeelsIt) {
  SteadyLoad load(1, kPauseS);
  const std::string source = load.all_kinds(*client, db->v4());
  load.all_kinds(*db, client->v6());
  const json first = connection_from(*client, source).at("peerCertificate");
  EXPECT_EQ(first.at("serial"), serial_of(*db));
  // Twice over on both nodes, and the first tunnel outlives the certificates that it was made with.
  std::set<std::string> of_client, of_db;
  EXPECT_TRUE(eventually(2 * kSoon, [&] {
    of_client.insert(serial_of(*client));
    of_db.insert(serial_of(*db));
    return of_client.size() >= 4 && of_db.size() >= 4 && is_past(first.at("validUntil"));
  }));
  load.expect_all_go_on("after renewals");
  EXPECT_EQ(connection_from(*client, source).at("peerCertificate"), first);

  const Process later = client->hold(db->v4());
  const json second = connection_from(*client, field(later.out(), "own")).at("peerCertificate");
  EXPECT_NE(second.at("serial"), first.at("serial"));
  EXPECT_FALSE(is_past(second.at("validUntil")));
  expect_no_failures();
  for (const Node* node : {&node1(), &node2()}) {
    const std::string metrics = node->metrics();
    EXPECT_GE(metric(metrics, "weft_certificate_requests_total", {"result=\"issued\""}), 4);
    EXPECT_EQ(metric(metrics, "weft_certificate_requests_total", {"result=\"failed\""}), 0);
    EXPECT_EQ(metric(metrics, "weft_ca_usable", {}), 1);
    EXPECT_EQ(metric(metrics, "weft_certificates", {"state=\"expired\""}), 0);
  }
  EXPECT_NEAR(metric(node1().metrics(), "weft_certificate_expiry_timestamp_seconds", {client->identity()}),
              moment(certificate_of(*client).at("validUntil")), 6);
}

/// The directory of the CA, away as long as this lives.
class CaAway {
 public:
  explicit CaAway(std::string dir) : dir_(std::move(dir)) { fs::rename(dir_, dir_ + ".away"); }
  ~CaAway() { come_back(); }
  void come_back() {
    if (!std::exchange(back_, true)) fs::rename(dir_ + ".away", dir_);
  }

 private:
  std::string dir_;
  bool back_ = false;
};

TEST_F(Certificates, WithoutTheirCaRunOutAndComeBackWithIt) {
  Process held = client->hold(db->v4());
  CaAway away(mesh().ca_dir());
  ASSERT_TRUE(eventually(kSoon, [&] {
    return !ask(node1(), "/status")["ca"]["usable"].get<bool>() && !ask(node2(), "/status")["ca"]["usable"].get<bool>();
  }));
  // They are good for the rest of their life: it takes half of it at least.
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
  ASSERT_TRUE(
      eventually(kSoon, [&] { return all_certificates([](const json& c) { return c.at("state") == "expired"; }); }));
  Pod& late = *add_serving_pod(mesh(), 1, "shop", "late", true);

  // What is open lives on; what would be new is refused on both sides, and all say why.
  const auto beats = held.out().size();
  EXPECT_TRUE(eventually(kSoon, [&] { return held.out().size() > beats; })) << held.out();
  Process refused = client->start({program("weft-testapp"), "get", db->v4().to_string(), "--timeout", "10"});
  Process of_late = late.start({program("weft-testapp"), "get", db->v4().to_string(), "--timeout", "10"});
  EXPECT_FALSE(refused.finish(2 * kSoon).ok());
  EXPECT_FALSE(of_late.finish(2 * kSoon).ok());
  const auto log = [&](const Pod& pod, const char* why) {
    return logged(1, {"response_flags=IDENTITY_ERROR", "src.workload=" + pod.name(), why}).size();
  };
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log(*client, "the certificate of the pod's identity expired at ") == 1 &&
           log(late, "no certificate for the pod's identity yet") == 1;
  }));
  const std::string metrics = node1().metrics();
  EXPECT_EQ(metric(metrics, "weft_ca_usable", {}), 0);
  EXPECT_EQ(metric(metrics, "weft_certificates", {"state=\"expired\""}), 2);
  EXPECT_EQ(metric(metrics, "weft_certificates", {"state=\"none\""}), 1);
  EXPECT_GE(metric(metrics, "weft_certificate_requests_total", {"result=\"failed\""}), 3);
  EXPECT_THAT(weftctl(node1(), {"certificates"}).out,
              AllOf(HasSubstr("expired"), HasSubstr("none"), HasSubstr("there is no such directory")));
  EXPECT_THAT(weftctl(node1(), {"status"}).out,
              AllOf(HasSubstr("2 expired, 1 none"), HasSubstr("problem       load the CA from " + mesh().ca_dir())));
  EXPECT_THAT(logged(1, {"CA cannot be used"}), testing::SizeIs(1));

  away.come_back();
  const auto back = std::chrono::steady_clock::now();
  EXPECT_TRUE(
      eventually(kSoon, [&] { return all_certificates([](const json& c) { return c.at("state") == "valid"; }); }));
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - back);
  std::printf("  every certificate is new %lld ms after the CA is back\n", static_cast<long long>(took.count()));
  EXPECT_THAT(client->get(db->v4()), IsAnswer("db", client->address_v4()));
  EXPECT_THAT(late.get(db->v4()), IsAnswer("db", late.address_v4()));
  EXPECT_THAT(logged(1, {"CA in force"}), testing::SizeIs(1));
  EXPECT_TRUE(held.running()) << held.out();
  held.kill();
  mesh().remove_pod(late);
}

class CertificateRoots : public CertificatesTest {
 protected:
  static void SetUpTestSuite() { make_mesh({}); }
  /// Waits until every certificate of both nodes has so many roots, and hangs on this one.
  static bool settled(std::size_t roots, const std::function<bool(const std::string&)>& issuer) {
    return eventually(kSoon, [&] {
      return all_certificates([&](const json& certificate) {
        return certificate.at("state") == "valid" && certificate.at("roots").size() == roots &&
               issuer(certificate.at("issuerRoot").get<std::string>());
      });
    });
  }
};

TEST_F(CertificateRoots, AreReplacedUnderTraffic) {
  const std::string dir = mesh().ca_dir();
  const TestCa old = TestCa::load(dir);
  const std::string first = certificate_of(*client).at("issuerRoot");
  const auto is_first = [&](const std::string& root) { return root == first; };
  const auto is_not_first = [&](const std::string& root) { return root != first; };
  const auto context = raw_context(old.issue({"cluster.local", "shop", "peer"}));
  const auto dial = [&] { return std::make_unique<HbonePeer>(outside->netns(), db->v4(15008), context.get()); };
  SteadyLoad load(1, kPauseS);
  load.all_kinds(*client, db->v4());
  load.all_kinds(*db, client->v6());

  ca({"rotate", "prepare", dir});
  ASSERT_TRUE(settled(2, is_first));
  EXPECT_EQ(ask(node2(), "/config_dump").at("certificates").at(0).at("rootCerts").size(), 2U);
  EXPECT_THAT(weftctl(node1(), {"certificates"}).out, HasSubstr(first.substr(0, 16) + " until "));
  const auto before = dial();
  EXPECT_TRUE(before->accepted()) << before->refusal();
  load.expect_all_go_on("with two roots");

  ca({"rotate", "activate", "--now", dir});
  ASSERT_TRUE(settled(2, is_not_first));
  EXPECT_TRUE(dial()->accepted());
  load.expect_all_go_on("with the new root's certificates");

  ca({"rotate", "finish", "--now", dir});
  ASSERT_TRUE(settled(1, is_not_first));
  load.expect_all_go_on("with the new root alone");
  // Whoever hangs on the old root alone gets in no more, and where he is he gets no further.
  const auto refused = dial();
  EXPECT_FALSE(refused->accepted());
  EXPECT_THAT(refused->refusal(), HasSubstr("unknown ca"));
  EXPECT_TRUE(eventually(kSoon, [&] { return !before->alive(); }));
  EXPECT_THAT(logged(2, {"HBONE tunnel drains: the root of its peer left", "sa/peer"}), testing::SizeIs(1));
  EXPECT_THAT(logged(1, {"response_flags="}), IsEmpty());
  EXPECT_THAT(logged(2, {"response_flags=", "sa/client"}), IsEmpty());
  EXPECT_EQ(metric(node1().metrics(), "weft_root_expiry_timestamp_seconds", {first}), 0);
}

}  // namespace
}  // namespace weft::test
