// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/headers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace weft::hbone {
namespace {

using ::testing::HasSubstr;

state::Workload full_workload() {
  state::Workload w;
  w.cluster_id = "Kubernetes";
  w.namespace_name = "shop";
  w.workload_type = "deployment";
  w.workload_name = "web";
  w.canonical_name = "web";
  w.canonical_revision = "v1";
  w.locality = {"eu", "eu-1", "rack"};
  return w;
}

TEST(Baggage, FullWorkload) {
  EXPECT_EQ(baggage(full_workload()),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,"
            "service.version=v1,cloud.region=eu,cloud.availability_zone=eu-1");
}

TEST(Baggage, MissingValuesAreLeftOut) {
  state::Workload w;
  w.cluster_id = "";
  w.namespace_name = "shop";
  EXPECT_EQ(baggage(w), "k8s.namespace.name=shop");
  EXPECT_EQ(baggage([] {
              state::Workload x;
              x.cluster_id = "";
              return x;
            }()),
            "");
}

TEST(Baggage, UnknownWorkloadTypeNamesNoKey) {
  auto w = full_workload();
  w.workload_type = "x=y,evil";
  EXPECT_THAT(baggage(w), ::testing::Not(HasSubstr("evil")));
  w.workload_type = "CronJob";
  EXPECT_THAT(baggage(w), HasSubstr("k8s.cronjob.name=web"));
}

TEST(Baggage, ValuesAreEncodedAndComeBack) {
  auto w = full_workload();
  w.canonical_name = "a,b;c=d %\"e\\f";
  const std::string header = baggage(w);
  EXPECT_THAT(header, HasSubstr("service.name=a%2Cb%3Bc=d%20%25%22e%5Cf,"));
  const auto peer = parse_baggage(header);
  EXPECT_EQ(peer.canonical_name, w.canonical_name);
  EXPECT_EQ(peer.cluster, "Kubernetes");
  EXPECT_EQ(peer.namespace_name, "shop");
  EXPECT_EQ(peer.workload_name, "web");
  EXPECT_EQ(peer.workload_type, "deployment");
  EXPECT_EQ(peer.canonical_revision, "v1");
  EXPECT_EQ(peer.region, "eu");
  EXPECT_EQ(peer.zone, "eu-1");
}

TEST(ParseBaggage, LenientWithBlanksPropertiesAndUnknownKeys) {
  const auto peer = parse_baggage(
      " k8s.namespace.name = shop ;p=1;q , x=y,,=,nonsense, k8s.job.name=sum\t, "
      "k8s.daemon.name=no,service.name=");
  EXPECT_EQ(peer.namespace_name, "shop");
  EXPECT_EQ(peer.workload_type, "job");
  EXPECT_EQ(peer.workload_name, "sum");
  EXPECT_EQ(peer.canonical_name, "");
}

TEST(ParseBaggage, BadValuesAreSkipped) {
  for (const std::string value :
       {"%", "%1", "%zz", "%-1", "% 1", "%+1", "%0x", "a%00b", "a%0Ab", "\x01", "\xff", "%C3%A9"}) {
    EXPECT_EQ(parse_baggage("k8s.cluster.name=" + value).cluster, "") << value;
  }
  EXPECT_EQ(parse_baggage("k8s.cluster.name=" + std::string(256, 'a')).cluster.size(), 256U);
  EXPECT_EQ(parse_baggage("k8s.cluster.name=" + std::string(257, 'a')).cluster, "");
  EXPECT_EQ(parse_baggage("k8s.cluster.name=%41").cluster, "A");
  EXPECT_EQ(parse_baggage("k8s.cluster.name=x%4").cluster, "");
}

TEST(ParseBaggage, WorkIsBounded) {
  std::string many;
  for (int i = 0; i < 64; ++i) many += "a=b,";
  EXPECT_EQ(parse_baggage(many + "service.name=late").canonical_name, "");
  EXPECT_EQ(parse_baggage(many.substr(4) + "service.name=last").canonical_name, "last");
  EXPECT_EQ(parse_baggage("x=" + std::string(9000, 'y') + ",service.name=late").canonical_name, "");
}

TEST(Forwarded, Written) {
  EXPECT_EQ(forwarded(*Endpoint::parse("10.0.0.1:4321"), ""), "for=\"10.0.0.1:4321\"");
  EXPECT_EQ(forwarded(*Endpoint::parse("[2001:db8::1]:80"), "db.shop.svc.cluster.local"),
            "for=\"[2001:db8::1]:80\";host=db.shop.svc.cluster.local");
  EXPECT_EQ(forwarded(*Endpoint::parse("10.0.0.1:1"), "a\"b;c\r\nd"), "for=\"10.0.0.1:1\";host=\"a\\\"b;cd\"");
}

TEST(Forwarded, Read) {
  const std::vector<std::pair<std::string, std::string>> table = {
      {R"(for="10.0.0.1:4321")", "10.0.0.1:4321"},
      {R"(for="[2001:db8::1]:80";host=x)", "[2001:db8::1]:80"},
      {R"(host=x;For="10.0.0.1:1")", "10.0.0.1:1"},
      {R"( proto=http ; host="a;b,c" ; FOR="10.0.0.1:1")", "10.0.0.1:1"},
      {R"(for="10.0.0.1:1", for="10.0.0.2:2")", "10.0.0.1:1"},
      {R"(for=10.0.0.1:1)", "10.0.0.1:1"},
      {R"(by=x;for="1\0.0.0.1:1")", "10.0.0.1:1"},
      {R"(x;for="10.0.0.1:1")", "10.0.0.1:1"},
  };
  for (const auto& [header, expected] : table) {
    const auto endpoint = parse_forwarded(header);
    ASSERT_TRUE(endpoint) << header;
    EXPECT_EQ(endpoint->to_string(), expected) << header;
  }
}

TEST(Forwarded, WhatIsNoEndpointGivesNone) {
  using namespace std::string_literals;
  for (const auto& header :
       {""s, "for"s, "for="s, "for=\""s, "for=\"10.0.0.1:1\\"s, "for=unknown"s, "for=\"10.0.0.1\""s,
        "for=\"10.0.0.1:0\""s, "for=\"10.0.0.1:99999\""s, "for=_hidden;for=\"10.0.0.1:1\""s, "host=\"for=10.0.0.1:1"s,
        "for=\"10.0.0.1\0x:1\""s, ";;;,,,"s, "="s, "x=y;" + std::string(9000, 'z') + ";for=\"10.0.0.1:1\""}) {
    EXPECT_FALSE(parse_forwarded(header)) << header;
  }
}

TEST(Forwarded, TheHostIsTheServiceThatWasDialled) {
  EXPECT_EQ(forwarded_host(forwarded(Endpoint::parse("10.0.0.1:1").value(), "db.bank.svc")), "db.bank.svc");
  EXPECT_EQ(forwarded_host(R"(for="[fd00::1]:1";host="a \"b\"")"), "a \"b\"");
  for (const char* none : {"", "for=\"10.0.0.1:1\"", "host", "for=\"host=x\""})
    EXPECT_EQ(forwarded_host(none), "") << none;
}

TEST(Traceparent, WellFormedComesBack) {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  EXPECT_EQ(traceparent(good, 1, 2), good);
}

TEST(Traceparent, AnythingElseIsReplaced) {
  const std::string good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  std::vector<std::string> bad = {"", "x", good + "-x", good.substr(1), "ff" + good.substr(2), "01" + good.substr(2)};
  for (const std::size_t at : {0U, 2U, 10U, 35U, 40U, 52U, 54U}) {
    bad.push_back(good);
    bad.back()[at] = 'G';
  }
  bad.push_back("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  bad.push_back("00-00000000000000000000000000000000-b7ad6b7169203331-01");
  bad.push_back("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01");
  for (const auto& header : bad) {
    const auto made = traceparent(header, 0x0123456789abcdef, 0xfedcba9876543210);
    EXPECT_TRUE(made.starts_with("00-0123456789abcdeffedcba9876543210-")) << header;
    EXPECT_EQ(traceparent(made, 0, 0), made) << header;  // itself well-formed
  }
}

TEST(Traceparent, ZeroNumbersMakeAValidOne) {
  const auto made = traceparent("", 0, 0);
  EXPECT_EQ(traceparent(made, 5, 5), made);
}

TEST(Authority, Good) {
  struct Row {
    std::string text, host, address;
    int port;
  };
  const std::vector<Row> table = {
      {"10.0.0.1:80", "10.0.0.1", "10.0.0.1", 80},
      {"10.0.0.1:1", "10.0.0.1", "10.0.0.1", 1},
      {"10.0.0.1:65535", "10.0.0.1", "10.0.0.1", 65535},
      {"[2001:db8::1]:8080", "2001:db8::1", "2001:db8::1", 8080},
      {"[::1]:8080", "::1", "::1", 8080},
      {"[2001:DB8::A]:8080", "2001:DB8::A", "2001:db8::a", 8080},
      {"db.shop.svc.cluster.local:5432", "db.shop.svc.cluster.local", "", 5432},
      {"db:5432", "db", "", 5432},
      {"a_b-c.0x.9a:1", "a_b-c.0x.9a", "", 1},
      {"dead.beef:1", "dead.beef", "", 1},
  };
  for (const auto& row : table) {
    const auto got = parse_authority(row.text);
    ASSERT_TRUE(got) << row.text << ": " << got.error().message();
    EXPECT_EQ(got->host, row.host);
    EXPECT_EQ(got->port, row.port);
    EXPECT_EQ(got->address ? got->address->to_string() : "", row.address) << row.text;
  }
  const std::string long_name =
      std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + "." + std::string(61, 'd');
  EXPECT_EQ(long_name.size(), 253U);
  EXPECT_TRUE(parse_authority(long_name + ":65535"));
  EXPECT_FALSE(parse_authority(long_name + "d:65535"));
  EXPECT_FALSE(parse_authority(std::string(64, 'a') + ":80"));
}

TEST(Authority, Bad) {
  using namespace std::string_literals;
  const std::vector<std::string> table = {
      ""s,
      ":"s,
      ":80"s,
      "10.0.0.1"s,
      "10.0.0.1:"s,
      "10.0.0.1:0"s,
      "10.0.0.1:65536"s,
      "10.0.0.1:99999"s,
      "10.0.0.1:100000"s,
      "10.0.0.1:080"s,
      "10.0.0.1:+80"s,
      "10.0.0.1:-1"s,
      "10.0.0.1: 80"s,
      "10.0.0.1:80 "s,
      " 10.0.0.1:80"s,
      "10.0.0.1:8a"s,
      "2001:db8::1:80"s,
      "::1:80"s,
      "[::1]"s,
      "[::1]80"s,
      "[::1:80"s,
      "::1]:80"s,
      "[]:80"s,
      "[:80"s,
      "]:80"s,
      "[10.0.0.1]:80"s,
      "[::ffff:10.0.0.1]:80"s,
      "[fe80::1%eth0]:80"s,
      "[::1]]:80"s,
      "[[::1]]:80"s,
      "[db]:80"s,
      "user@10.0.0.1:80"s,
      "http://10.0.0.1:80"s,
      "10.0.0.1:80/path"s,
      "10.0.0.1/8:80"s,
      "a..b:80"s,
      ".a:80"s,
      "a.:80"s,
      "-a:80"s,
      "a-:80"s,
      "a b:80"s,
      "a\0b:80"s,
      "10.0.0.1\0:80"s,
      "10.0.0.1\0.x:80"s,
      "10.0.0.1:8\0"s,
      "\xc3\xa9:80"s,
      "*.example:80"s,
      "127.1:80"s,
      "2130706433:80"s,
      "0x7f.0.0.0x1:80"s,
      "10.0.0.256:80"s,
      "10.0.0.01:80"s,
      "1.2.3.4.5:80"s,
      "%31:80"s,
      std::string(100000, 'a') + ":80",
  };
  for (const auto& text : table) {
    const auto got = parse_authority(text);
    ASSERT_FALSE(got) << text;
    EXPECT_EQ(got.error().code, ErrorCode::kInvalid);
    const auto message = got.error().message();
    EXPECT_TRUE(message.starts_with("authority '")) << message;
    EXPECT_LT(message.size(), 200U);
    EXPECT_TRUE(std::ranges::all_of(message, [](char c) { return c >= ' ' && c <= '~'; })) << message;
  }
}

TEST(Headers, RandomBytesNeverBreakTheParsers) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string alphabet("for=;,\"\\[]:.%k8s.pod.name=0123456789abcdef- \t\0\n\xff", 48);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (auto n = random() % 40; n > 0; --n) text += alphabet[random() % alphabet.size()];
    const auto authority = parse_authority(text);
    EXPECT_TRUE(!authority || authority->port != 0);
    const auto endpoint = parse_forwarded(text);
    EXPECT_TRUE(!endpoint || endpoint->address.valid());
    EXPECT_EQ(traceparent(text, 1, 2).size(), 55U);
    EXPECT_LE(parse_baggage(text).workload_name.size(), 256U);
  }
}

}  // namespace
}  // namespace weft::hbone
