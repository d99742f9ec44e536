// SPDX-License-Identifier: Apache-2.0
#include "tunnel/telemetry/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "test/unit/telemetry/fixture.h"
#include "tunnel/base/log.h"

namespace weft::telemetry::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(AccessLine, OfAConnectionThroughATunnel) {
  EXPECT_EQ(
      access_line(sample()),
      "connection complete src.addr=10.0.0.1:40000 src.workload=web-7d4b src.namespace=shop "
      "src.identity=spiffe://cluster.local/ns/shop/sa/web src.cluster=Kubernetes dst.addr=10.0.0.2:15008 "
      "dst.hbone_addr=10.0.0.2:5432 dst.service=db.shop.svc.cluster.local dst.workload=db-0 dst.namespace=shop "
      "dst.identity=spiffe://cluster.local/ns/shop/sa/db dst.cluster=Kubernetes direction=outbound bytes_sent=100 "
      "bytes_recv=2000 duration=1500ms");
}

TEST(AccessLine, BytesAreTheReportersView) {
  ConnectionResult result = sample();
  result.reporter = Reporter::kDestination;
  EXPECT_THAT(access_line(result), HasSubstr(" direction=inbound bytes_sent=2000 bytes_recv=100 "));
}

TEST(AccessLine, WhatIsNotKnownIsLeftOut) {
  ConnectionResult result;
  result.source.endpoint = Endpoint::parse("[2001:db8::1]:1").value();
  result.destination.endpoint = Endpoint::parse("8.8.8.8:53").value();
  EXPECT_EQ(access_line(result),
            "connection complete src.addr=[2001:db8::1]:1 dst.addr=8.8.8.8:53 direction=outbound bytes_sent=0 "
            "bytes_recv=0 duration=0ms");
}

TEST(AccessLine, AnIdentityAloneGivesTheNamespace) {
  ConnectionResult result = sample();
  result.source.workload.reset();
  EXPECT_THAT(access_line(result),
              HasSubstr(" src.namespace=shop src.identity=spiffe://cluster.local/ns/shop/sa/web dst.addr="));
}

TEST(AccessLine, EndsWithWhatWentWrong) {
  ConnectionResult result = sample();
  result.flag = ResponseFlag::kDeny;
  result.decision = {.allowed = false, .rule = "shop/deny-web", .dry_run_hits = {}};
  result.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  result.error = "denied by shop/deny-web";
  EXPECT_THAT(access_line(result), EndsWith("duration=1500ms response_flags=DENY policy=shop/deny-web "
                                            "traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 "
                                            "error=\"denied by shop/deny-web\""));
}

TEST(AccessLine, NamesTheRuleThatDecidedAndTheDryRunsThatWouldNot) {
  ConnectionResult result = sample();
  result.decision = {.allowed = true, .rule = "none", .dry_run_hits = {}};
  EXPECT_THAT(access_line(result), EndsWith("duration=1500ms"));
  result.decision = {.allowed = true, .rule = "shop/allow-web", .dry_run_hits = {"shop/a", "shop/b"}};
  EXPECT_THAT(access_line(result), EndsWith("duration=1500ms policy=shop/allow-web dry_run=shop/a,shop/b"));
  EXPECT_THAT(access_json(result), EndsWith(R"("policy":"shop/allow-web","dry_run":["shop/a","shop/b"]})"));
  result.decision = {.allowed = false, .rule = "no_allow_matched", .dry_run_hits = {}};
  EXPECT_THAT(access_line(result), EndsWith("duration=1500ms policy=no_allow_matched"));
}

TEST(AccessLine, APeersWordsCannotForgeALineOrAField) {
  ConnectionResult result = sample();
  auto liar = std::make_shared<state::Workload>(*result.source.workload);
  liar->name = "x\n2026-01-01 info connection complete dst.addr=1.2.3.4:5";
  result.source.workload = liar;
  const std::string line = access_line(result);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_THAT(line, HasSubstr("src.workload=\"x\\n2026-01-01 info connection complete dst.addr=1.2.3.4:5\" "));
  liar->name = "x=y";
  EXPECT_THAT(access_line(result), HasSubstr("src.workload=\"x=y\" "));
}

TEST(AccessJson, OneObjectWithNumbersAsNumbers) {
  EXPECT_EQ(access_json(sample()),
            "{\"message\":\"connection "
            "complete\",\"src.addr\":\"10.0.0.1:40000\",\"src.workload\":\"web-7d4b\",\"src.namespace\":\"shop\","
            "\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\"src.cluster\":\"Kubernetes\","
            "\"dst.addr\":\"10.0.0.2:15008\",\"dst.hbone_addr\":\"10.0.0.2:5432\","
            "\"dst.service\":\"db.shop.svc.cluster.local\",\"dst.workload\":\"db-0\",\"dst.namespace\":\"shop\","
            "\"dst.identity\":\"spiffe://cluster.local/ns/shop/sa/db\",\"dst.cluster\":\"Kubernetes\","
            "\"direction\":\"outbound\",\"bytes_sent\":100,\"bytes_recv\":2000,\"duration\":\"1500ms\"}");
}

TEST(AccessJson, IsAsciiWhateverThePeerSays) {
  ConnectionResult result = sample();
  result.error = "bad \xff byte \"quoted\"";
  EXPECT_THAT(access_json(result), HasSubstr("\"error\":\"bad \\u00ff byte \\\"quoted\\\"\"}"));
}

/// Gathers what is logged in a test.
class LogAccess : public ::testing::Test {
 protected:
  LogAccess() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_));
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(logger);
  }
  ~LogAccess() override { spdlog::set_default_logger(before_); }
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

TEST_F(LogAccess, InfoWhereItEndedWellWarnWhereNot) {
  log_access(sample());
  EXPECT_THAT(text_.str(), ::testing::StartsWith("info connection complete src.addr="));
  text_.str("");
  ConnectionResult failed = sample();
  failed.error = "connect 10.0.0.2:15008: Connection refused";
  log_access(failed);
  EXPECT_THAT(text_.str(), ::testing::StartsWith("warning connection complete src.addr="));
}

TEST_F(LogAccess, NothingWhereTheLevelHidesIt) {
  spdlog::default_logger()->set_level(spdlog::level::warn);
  log_access(sample());
  EXPECT_EQ(text_.str(), "");
}

TEST(LogAccessAsJson, IsOneObjectWithTheFieldsAsFields) {
  const auto before = spdlog::default_logger();
  std::string directory = (std::filesystem::temp_directory_path() / "weft-log-XXXXXX").string();
  ASSERT_NE(::mkdtemp(directory.data()), nullptr);
  ASSERT_TRUE(log::init("info", log::Format::kJson, directory + "/log"));
  log_access(sample());
  ConnectionResult failed = sample();
  failed.error = "connect: \"refused\"";
  log_access(failed);
  log::info("another line");
  ASSERT_TRUE(log::set_level("warn"));
  log_access(sample());
  std::stringstream text;
  text << std::ifstream(directory + "/log").rdbuf();
  ASSERT_TRUE(log::init("info", log::Format::kText, directory + "/log"));
  spdlog::set_default_logger(before);
  std::filesystem::remove_all(directory);

  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3U) << "a level that hides it hides it in JSON too";
  EXPECT_EQ(lines[0].at("level"), "info");
  EXPECT_EQ(lines[0].at("message"), "connection complete");
  EXPECT_EQ(lines[0].at("src.workload"), "web-7d4b");
  EXPECT_EQ(lines[0].at("bytes_sent"), 100);
  EXPECT_EQ(lines[1].at("level"), "warning");
  EXPECT_EQ(lines[1].at("error"), "connect: \"refused\"");
  EXPECT_EQ(lines[2].at("message"), "another line");
}

TEST(ResponseFlagText, IstiosSpellings) {
  EXPECT_STREQ(to_string(ResponseFlag::kNone), "-");
  EXPECT_STREQ(to_string(ResponseFlag::kDeny), "DENY");
  EXPECT_STREQ(to_string(ResponseFlag::kConnect), "CONNECT");
  EXPECT_STREQ(to_string(ResponseFlag::kTlsFailure), "TLS_FAILURE");
  EXPECT_STREQ(to_string(ResponseFlag::kH2HandshakeFailure), "H2_HANDSHAKE_FAILURE");
  EXPECT_STREQ(to_string(ResponseFlag::kNetworkPolicy), "NETWORK_POLICY");
  EXPECT_STREQ(to_string(ResponseFlag::kIdentityError), "IDENTITY_ERROR");
  EXPECT_STREQ(to_string(ResponseFlag::kCertRevoked), "CERT_REVOKED");
}

}  // namespace
}  // namespace weft::telemetry::test
