// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "agent/cli/output.h"
#include "agent/cli/session.h"
#include "test/unit/agent/cli_fixture.h"
#include "tunnel/base/log.h"

namespace weft::cli {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Weftctl = test::WeftctlFixture;

TEST_F(Weftctl, StatusTellsReadyFromNotReady) {
  EXPECT_EQ(query({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("node            n1\n"), HasSubstr("ready           yes\n"),
                          HasSubstr("1 enrolled, 1 wired"), HasSubstr("file /etc/mesh.yaml")));
  missing_ = {"no configuration yet"};
  EXPECT_EQ(query({"status"}), kNotReady);
  EXPECT_THAT(out_, AllOf(HasSubstr("ready           no\n"), HasSubstr("missing       no configuration yet")));
  EXPECT_EQ(query({"status", "-o", "json"}), kNotReady);
  EXPECT_EQ(json::parse(out_).at("ready"), false);
}

TEST_F(Weftctl, AgentsThatDrainAreShownAndTheirConnectionsToo) {
  EXPECT_EQ(query({"status"}), kOk);
  EXPECT_THAT(out_, Not(HasSubstr("generation"))) << "one alone says nothing";
  generations_.insert(generations_.begin(),
                      {.number = 2, .version = "0.0.9", .pid = 20, .started = {}, .load = {.connections = 7}});
  connections_.front().generation = 2;
  EXPECT_EQ(query({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("2 (drains): pid 20, version 0.0.9, started 1970-01-01T00:00:00Z, 7 connections"),
                          HasSubstr("3 (serves): pid 30, version 0.1")));
  EXPECT_EQ(query({"connections"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("DRAINS"), HasSubstr("2.2s  2")));
}

TEST_F(Weftctl, PodsAsTableAndJson) {
  EXPECT_EQ(query({"pods"}), kOk);
  EXPECT_THAT(out_,
              AllOf(HasSubstr("POD          STATE     CAPTURED  SINCE   VERIFIED       ADDRESSES"),
                    HasSubstr("shop/web     enrolled  yes       2d ago  42s ago, well  10.0.0.5"),
                    HasSubstr("other/plain  wired     no        -       not yet"),
                    HasSubstr("spiffe://cluster.local/ns/shop/sa/web-sa"), HasSubstr("net1,net2   the rule is gone")));
  EXPECT_EQ(query({"pods", "-o", "json"}), kOk);
  EXPECT_EQ(json::parse(out_).size(), 2U);
}

TEST_F(Weftctl, ConnectionsAsTable) {
  EXPECT_EQ(query({"connections"}), kOk);
  EXPECT_THAT(out_,
              AllOf(HasSubstr("10.0.0.5:40000"), HasSubstr("10.0.1.7:15008"), HasSubstr("1.5K"), HasSubstr("2.2s")));
}

TEST_F(Weftctl, PlaintextConnectionsAreListedAndExpired) {
  EXPECT_EQ(query({"connections", "--plaintext"}), kOk);
  EXPECT_THAT(out_, HasSubstr("shop/web  inbound    10.0.0.5:8080  10.0.1.9:40000  live"));
  EXPECT_NE(query({"connections", "--plaintext", "--pod", "shop/other"}), kOk);
  EXPECT_THAT(err_, HasSubstr("no pod shop/other"));
  EXPECT_NE(query({"connections", "--expire"}), kOk) << "what is the mesh's is not ended by it";
  EXPECT_EQ(query({"connections", "--plaintext", "--expire", "--pod", "shop/web"}), kOk);
  EXPECT_THAT(out_, HasSubstr("expired"));
  EXPECT_EQ(query({"connections", "--plaintext"}), kOk);
  EXPECT_EQ(out_, "none\n");
}

TEST_F(Weftctl, DropsShowsOnlyDropsLargestFirst) {
  EXPECT_EQ(query({"drops"}), kOk);
  EXPECT_THAT(out_, Not(HasSubstr("not TCP")));
  EXPECT_THAT(out_, Not(HasSubstr("refused")));
  EXPECT_LT(out_.find("quoted"), out_.find("a VLAN tag"));
  EXPECT_EQ(query({"drops", "-o", "json"}), kOk);
  EXPECT_EQ(json::parse(out_).size(), 2U);
}

TEST_F(Weftctl, TheMeshAsTables) {
  EXPECT_EQ(query({"workloads"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("WORKLOAD  ADDRESSES  PROTOCOL"), HasSubstr("shop/web  10.0.0.5   HBONE"),
                          HasSubstr("shop/way.shop.svc")));
  EXPECT_EQ(query({"services"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("shop/web.shop.svc  10.96.0.1  80>8080  1/1"), HasSubstr("Standard")));
  EXPECT_EQ(query({"policies"}), kOk);
  EXPECT_THAT(out_, HasSubstr("shop/deny  Namespace  Deny    1      1          -\n"));
  agent::CertManager::Status status;
  status.identity = {"cluster.local", "shop", "web-sa"};
  status.last_error = "the CA is away";
  certificate_status_ = {status};
  EXPECT_EQ(query({"certificates"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("spiffe://cluster.local/ns/shop/sa/web-sa  none"), HasSubstr("the CA is away")));
  for (const char* name : {"workloads", "services", "policies", "certificates"}) {
    EXPECT_EQ(query({name, "-o", "json"}), kOk);
    EXPECT_EQ(json::parse(out_).size(), 1U) << name;
  }
}

TEST_F(Weftctl, StatusTellsOfTheCaAndOfTheRevocationLists) {
  EXPECT_EQ(query({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("certificates    0\n"), HasSubstr("CA              /etc/weft/ca, 0 roots\n"),
                          HasSubstr("CRL             none\n"), Not(HasSubstr("problem"))));
  ca_.problem = "away";
  ca_.roots = {{.subject = "CN=a", .sha256 = "aa", .not_after = {}, .signs = true}};
  ca_.crl = {.file = "/crl.pem", .problem = "cut short", .notes = {"old"}, .lists = {}, .refused = 2};
  ca_.crl.lists = {{.issuer = "CN=a", .this_update = {}, .next_update = {}, .revoked = 3, .verified = true}};
  agent::CertManager::Status status;
  status.identity = {"cluster.local", "shop", "web-sa"};
  certificate_status_ = {status};
  EXPECT_EQ(query({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("certificates    1 none\n"),
                          HasSubstr("CA              /etc/weft/ca, 1 root\n  problem       away\n"),
                          HasSubstr("CRL             /crl.pem, 1 list, 3 certificates revoked\n"
                                    "  problem       cut short\n  note          old\n")));
}

TEST_F(Weftctl, LogLevelIsShownSetAndReset) {
  const std::string before = log::level();
  EXPECT_EQ(query({"log-level"}), kOk);
  EXPECT_EQ(out_, before + "\n");
  EXPECT_EQ(query({"log-level", "error"}), kOk);
  EXPECT_EQ(log::level(), "error");
  EXPECT_EQ(query({"log-level", "-o", "json"}), kOk);
  EXPECT_EQ(json::parse(out_), json({{"level", "error"}}));
  EXPECT_EQ(query({"log-level", "reset"}), kOk);
  EXPECT_EQ(log::level(), before);
  EXPECT_EQ(query({"log-level", "loud"}), kUsage);
}

TEST_F(Weftctl, ExplainSaysWhatWouldHappenAndExitsWithIt) {
  EXPECT_EQ(query({"explain", "shop/web", "[2001:db8::1]:443"}), kRefused);
  EXPECT_THAT(out_, HasSubstr("result        refused: the source has no IPv6 address\n"));
  EXPECT_EQ(query({"explain", "shop/web", "192.0.2.1:443"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("source        shop/web (10.0.0.5) as spiffe://cluster.local/ns/shop/sa/web-sa"),
                          HasSubstr("captured      no: 192.0.2.1 is no destination of the mesh"),
                          HasSubstr("ENDPOINT  TARGET         WEIGHT    TRANSPORT"),
                          HasSubstr("192.0.2.1:443  1 (100%)  plaintext"), HasSubstr("result        allowed\n")));
  EXPECT_EQ(query({"explain", "shop/web", "192.0.2.1:443", "-o", "json"}), kOk);
  EXPECT_EQ(json::parse(out_).at("outcome"), "allowed");
  EXPECT_EQ(query({"explain", "shop/nobody", "192.0.2.1:443"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("no wired pod of this node and no workload has that name"));
  EXPECT_EQ(query({"explain", "shop/web"}), kUsage);
}

TEST_F(Weftctl, SaysThatAnAgentIsTooOld) {
  server_ = admin::HttpServer::start("admin", Endpoint::parse("127.0.0.1:0").value(), {}).value();
  EXPECT_EQ(query({"explain", "shop/web", "192.0.2.1:443"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("is weft-agent older than weftctl?"));
  EXPECT_EQ(query({"log-level"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("log level at 127.0.0.1"));
}

TEST_F(Weftctl, SaysThatNobodyAnswers) {
  const std::string address = server_->address().to_string();
  server_.reset();
  EXPECT_EQ(run_with({"pods", "--admin", address}), kUnreachable);
  EXPECT_THAT(err_, AllOf(HasSubstr(address), HasSubstr("is weft-agent running")));
  EXPECT_EQ(out_, "");
}

TEST_F(Weftctl, TakesTheAddressFromTheEnvironment) {
  ::setenv("WEFT_ADMIN", server_->address().to_string().c_str(), 1);
  EXPECT_EQ(run_with({"status"}), kOk);
  ::unsetenv("WEFT_ADMIN");
}

TEST_F(Weftctl, RefusesBadCommandLines) {
  EXPECT_EQ(run_with({}), kUsage);
  EXPECT_EQ(run_with({"dance"}), kUsage);
  EXPECT_THAT(err_, HasSubstr("weftctl: unknown command \"dance\"\n"));
  EXPECT_EQ(run_with({"pod"}), kUsage);
  EXPECT_THAT(err_, HasSubstr("did you mean \"pods\"?"));
  EXPECT_EQ(run_with({"pods", "--ouput", "json"}), kUsage);
  EXPECT_THAT(err_, HasSubstr("did you mean \"--output\"?"));
  EXPECT_EQ(run_with({"pods", "-o", "xml"}), kUsage);
  EXPECT_EQ(run_with({"ca"}), kUsage);
  EXPECT_EQ(run_with({"ca", "init"}), kUsage);
  EXPECT_EQ(run_with({"ca", "issue", "/x", "--identity", "a", "--out", "b", "--ttl", "soon"}), kUsage);
  EXPECT_NE(err_, "");
  EXPECT_EQ(run_with({"pods", "--admin", "nowhere"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("expected ADDRESS:PORT"));
}

TEST_F(Weftctl, HelpAndVersion) {
  EXPECT_EQ(run_with({"--help"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("Exit codes:\n  0  done\n"), HasSubstr("drops"), HasSubstr("  5  explain")));
  EXPECT_EQ(run_with({"explain", "--help"}), kOk);
  EXPECT_THAT(out_, HasSubstr("5 it would be refused"));
  EXPECT_EQ(run_with({"version"}), kOk);
  EXPECT_EQ(out_, "weftctl " WEFT_VERSION "\n");
}

TEST_F(Weftctl, ReplacesARootStepByStep) {
  const agent::test::TemporaryDirectory directory;
  const std::string ca = directory.path() + "/ca";
  ASSERT_EQ(run_with({"ca", "init", ca}), kOk) << err_;
  const auto rotate = [&](std::vector<std::string> what) {
    what.insert(what.begin(), {"ca", "rotate"});
    what.push_back(ca);
    return run_with(what);
  };
  EXPECT_EQ(rotate({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("signs    'CN=Weft mesh root "), HasSubstr("roots    1\nstep     no rotation")));
  EXPECT_EQ(rotate({"activate"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("begin with `weftctl ca rotate prepare`"));
  EXPECT_EQ(rotate({"prepare"}), kOk) << err_;
  EXPECT_EQ(rotate({"status"}), kOk);
  EXPECT_THAT(out_, AllOf(HasSubstr("roots    2\nstep     prepared since 20"), HasSubstr("next: activate, or back")));
  EXPECT_EQ(rotate({"activate"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("--now"));
  EXPECT_EQ(rotate({"activate", "--now"}), kOk) << err_;
  EXPECT_EQ(rotate({"back", "--now"}), kOk) << err_;
  EXPECT_EQ(rotate({"activate", "--now"}), kOk) << err_;
  EXPECT_EQ(rotate({"status"}), kOk);
  EXPECT_THAT(out_, HasSubstr("step     activated since 20"));
  EXPECT_EQ(rotate({"finish", "--now"}), kOk) << err_;
  EXPECT_EQ(run_with({"ca", "rotate", ca}), kUsage);
  EXPECT_EQ(rotate({"prepare", "--now"}), kUsage);
}

TEST_F(Weftctl, RevokesWhatItIssued) {
  const agent::test::TemporaryDirectory directory;
  const std::string ca = directory.path() + "/ca", leaf = directory.path() + "/leaf";
  ASSERT_EQ(run_with({"ca", "init", ca}), kOk) << err_;
  ASSERT_EQ(run_with({"ca", "issue", ca, "--identity", "spiffe://a/ns/b/sa/c", "--out", leaf}), kOk) << err_;
  const std::string marker = ", serial ";
  const std::string serial = out_.substr(out_.find(marker) + marker.size(), 32);
  EXPECT_EQ(run_with({"ca", "revoke", ca, "--serial", serial, "--next-update", "7d"}), kOk) << err_;
  EXPECT_THAT(out_, AllOf(HasSubstr("revoked " + serial + "\n"), HasSubstr("1 certificate is revoked")));
  EXPECT_EQ(run_with({"ca", "revoke", ca, "--certificate", leaf + "/cert.pem"}), kOk) << err_;
  EXPECT_THAT(out_, HasSubstr("revoked already " + serial + "\n"));
  EXPECT_TRUE(std::filesystem::exists(ca + "/crl.pem"));
  EXPECT_EQ(run_with({"ca", "revoke", ca, "--serial", "it"}), kFailed);
  EXPECT_THAT(err_, HasSubstr("expected hexadecimal digits"));
  EXPECT_EQ(run_with({"ca", "revoke", ca, "--next-update", "1s"}), kUsage);
}

TEST_F(Weftctl, MakesACaAndIssues) {
  const agent::test::TemporaryDirectory directory;
  const std::string ca = directory.path() + "/ca", leaf = directory.path() + "/leaf";
  ASSERT_EQ(run_with({"ca", "init", ca}), kOk) << err_;
  EXPECT_TRUE(std::filesystem::exists(ca + "/root.pem"));
  EXPECT_EQ(run_with({"ca", "init", ca}), kFailed);
  ASSERT_EQ(run_with({"ca", "issue", ca, "--identity", "spiffe://cluster.local/ns/shop/sa/web", "--out", leaf, "--ttl",
                      "90m"}),
            kOk)
      << err_;
  EXPECT_THAT(out_, HasSubstr("spiffe://cluster.local/ns/shop/sa/web"));
  EXPECT_TRUE(std::filesystem::exists(leaf + "/cert.pem"));
  EXPECT_EQ(run_with({"ca", "issue", ca, "--identity", "web", "--out", leaf}), kFailed);
  EXPECT_EQ(run_with({"ca", "issue", directory.path() + "/none", "--identity", "spiffe://a/ns/b/sa/c", "--out", leaf}),
            kFailed);
  EXPECT_THAT(err_, HasSubstr("weftctl ca init"));
}

TEST(WeftctlOutput, PadsColumnsAndTrimsLines) {
  EXPECT_EQ(table({"A", "LONG"}, {{"value", "x"}, {"v", ""}}), "A      LONG\nvalue  x\nv\n");
}

TEST(WeftctlOutput, WritesBytesForPeople) {
  EXPECT_EQ(human_bytes(0), "0");
  EXPECT_EQ(human_bytes(1023), "1023");
  EXPECT_EQ(human_bytes(1024), "1.0K");
  EXPECT_EQ(human_bytes(5.5 * 1024 * 1024), "5.5M");
}

TEST(WeftctlOutput, WritesAgesForPeople) {
  EXPECT_EQ(human_age(-1), "0s");
  EXPECT_EQ(human_age(42.4), "42s");
  EXPECT_EQ(human_age(300), "5m");
  EXPECT_EQ(human_age(3 * 3600), "3h");
  EXPECT_EQ(human_age(50 * 3600), "2d");
}

TEST(WeftctlOutput, EncodesQueries) {
  EXPECT_EQ(percent_encoded("shop/web&x=[fd00::1]:80 +"), "shop%2Fweb%26x%3D%5Bfd00%3A%3A1%5D%3A80%20%2B");
}

TEST(WeftctlOutput, SaysThatAnAnswerIsNotUnderstood) {
  auto pods = pods_table(json::parse(R"([{"name": "x"}])"));
  ASSERT_FALSE(pods);
  EXPECT_THAT(pods.error().message(), HasSubstr("different versions"));
  EXPECT_EQ(drops_table(json::array()).value(), "nothing was dropped\n");
}

}  // namespace
}  // namespace weft::cli
