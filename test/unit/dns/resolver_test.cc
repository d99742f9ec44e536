// SPDX-License-Identifier: Apache-2.0
/// The resolver against a DNS server of the test on loopback.
#include "tunnel/dns/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>

#include "test/support/dns_server.h"
#include "tunnel/dns/message.h"

namespace weft::dns {
namespace {

using std::chrono::steady_clock;
using test::DnsServer;
using test::eventually;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = state::NameAnswer::Kind;
using Manner = test::DnsAnswer::Manner;

constexpr milliseconds kSoon{10'000};

class ResolverTest : public ::testing::Test {
 protected:
  ResolverTest() : server_({IpAddress::parse("127.0.0.1").value(), 0}) {
    folder_.write("resolv.conf", "nameserver 127.0.0.1\n");
    config_.resolv_conf = folder_.path() + "/resolv.conf";
    config_.port = server_.port();
    config_.query.try_timeout = milliseconds(100);
  }
  Resolver& resolver() {
    if (!resolver_) resolver_ = std::move(*Resolver::start(config_, [this] { ++answers_; }));
    return *resolver_;
  }
  /// What comes of the name: its addresses, sorted, or the reason alone.
  std::vector<std::string> resolve(const std::string& name) {
    state::NameAnswer answer;
    EXPECT_TRUE(eventually(kSoon, [&] {
      answer = resolver().find(name);
      return answer.kind != Kind::kPending;
    })) << name;
    if (answer.kind != Kind::kAddresses) return {answer.reason};
    std::vector<std::string> out;
    for (const auto& address : *answer.addresses) out.push_back(address.to_string());
    std::ranges::sort(out);
    return out;
  }
  std::string reason(const std::string& name) {
    const auto all = resolve(name);
    return all.size() == 1 ? all.front() : "";
  }

  test::ScratchDir folder_;
  DnsServer server_;
  ResolverConfig config_;
  std::atomic<int> answers_{0};
  std::unique_ptr<Resolver> resolver_;
};

TEST_F(ResolverTest, FindsBothFamilies) {
  server_.set("a.test", {"a.test. 60 IN A 192.0.2.1", "a.test. 60 IN A 192.0.2.2", "a.test. 60 IN AAAA 2001:db8::1"});
  EXPECT_EQ(resolver().find("a.test").kind, Kind::kPending);
  EXPECT_TRUE(eventually(kSoon, [&] { return answers_ == 1; })) << "whoever waits is told";
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1", "192.0.2.2", "2001:db8::1"));
  EXPECT_THAT(resolve("A.Test."), ElementsAre("192.0.2.1", "192.0.2.2", "2001:db8::1"));
  EXPECT_EQ(server_.asked("a.test"), 2) << "once for each family";
}

TEST_F(ResolverTest, ManyAskersMakeOneLookUp) {
  server_.set("a.test", {"a.test. 60 IN A 192.0.2.1"});
  Resolver& shared = resolver();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 1000; ++k) static_cast<void>(shared.find("a.test"));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  EXPECT_EQ(server_.asked("a.test"), 2);
}

TEST_F(ResolverTest, FollowsANameThatChanges) {
  server_.set("a.test", {"a.test. 1 IN A 192.0.2.1"});
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  server_.set("a.test", {"a.test. 1 IN A 192.0.2.2"});
  EXPECT_TRUE(eventually(kSoon, [&] { return resolve("a.test") == std::vector<std::string>{"192.0.2.2"}; }));
  server_.set("a.test", {{}, Manner::kNoName});
  EXPECT_TRUE(eventually(kSoon, [&] { return reason("a.test").find("NXDOMAIN") != std::string::npos; }));
}

TEST_F(ResolverTest, AnOldAnswerServesWhileNobodyAnswers) {
  config_.cache.stale = seconds(2);
  server_.set("a.test", {"a.test. 1 IN A 192.0.2.1"});
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  const int before = server_.asked("a.test");
  server_.set("a.test", {{}, Manner::kSilent});
  EXPECT_TRUE(eventually(kSoon, [&] {
    EXPECT_EQ(resolver().find("a.test").kind, Kind::kAddresses);
    return server_.asked("a.test") >= before + 4;
  })) << "it is asked again, twice for each family";
  EXPECT_TRUE(eventually(kSoon, [&] { return reason("a.test").find("no answer") != std::string::npos; }))
      << "but not for ever";
}

TEST_F(ResolverTest, AnUnusedNameIsForgotten) {
  config_.cache.stale = seconds(1);
  server_.set("a.test", {"a.test. 1 IN A 192.0.2.1"});
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  EXPECT_TRUE(eventually(kSoon, [&] { return resolver().names() == 0; }));
  EXPECT_EQ(server_.asked("a.test"), 4) << "one renewal, as it had been used";
}

TEST_F(ResolverTest, TtlsFromZeroToHuge) {
  server_.set("zero.test", {"zero.test. 0 IN A 192.0.2.1"});
  server_.set("huge.test", {"huge.test. 2147483647 IN A 192.0.2.2"});
  for (int i = 0; i < 100; ++i) {
    EXPECT_THAT(resolve("zero.test"), ElementsAre("192.0.2.1"));
    EXPECT_THAT(resolve("huge.test"), ElementsAre("192.0.2.2"));
  }
  EXPECT_LE(server_.asked("zero.test"), 6) << "no more than once a second";
  EXPECT_EQ(server_.asked("huge.test"), 2);
}

TEST_F(ResolverTest, NoSuchNameAndNoAddress) {
  EXPECT_THAT(reason("unknown.test"), AllOf(HasSubstr("127.0.0.1"), HasSubstr("no such name (NXDOMAIN)")));
  EXPECT_EQ(server_.asked("unknown.test"), 2) << "that is an answer: nobody is asked twice";
  server_.set("empty.test", std::vector<std::string>{});
  EXPECT_THAT(reason("empty.test"), HasSubstr("has no address"));
}

TEST_F(ResolverTest, AServersFailureIsTriedAgain) {
  server_.set("a.test", {{}, Manner::kServerFailure});
  EXPECT_THAT(reason("a.test"), AllOf(HasSubstr("127.0.0.1"), HasSubstr("answered SERVFAIL")));
  EXPECT_EQ(server_.asked("a.test"), 4);
}

TEST_F(ResolverTest, SilenceEndsInTime) {
  server_.set("a.test", {{}, Manner::kSilent});
  const auto started = steady_clock::now();
  EXPECT_THAT(reason("a.test"), HasSubstr("no answer in 100 ms"));
  EXPECT_GE(steady_clock::now() - started, milliseconds(200)) << "two tries";
  EXPECT_LT(steady_clock::now() - started, milliseconds(1500));
  EXPECT_EQ(server_.asked("a.test"), 4);
}

TEST_F(ResolverTest, OneSilentFamilyDoesNotHoldTheOther) {
  config_.query.try_timeout = milliseconds(20'000);
  server_.set("a.test", {{"a.test. 60 IN A 192.0.2.1"}, Manner::kOnlyV4});
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
}

TEST_F(ResolverTest, GarbageIsNoAnswer) {
  server_.set("bad.test", {{}, Manner::kGarbage});
  EXPECT_THAT(reason("bad.test"), HasSubstr("no answer in 100 ms but what is no DNS answer"));
  server_.set("first.test", {{"first.test. 60 IN A 192.0.2.1"}, Manner::kGarbageFirst});
  EXPECT_THAT(resolve("first.test"), ElementsAre("192.0.2.1"));
}

TEST_F(ResolverTest, LongAnswersComeByTcp) {
  std::vector<std::string> records;
  for (int i = 1; i <= 50; ++i) records.push_back("a.test. 60 IN A 192.0.2." + std::to_string(i));
  server_.set("a.test", {records, Manner::kTruncated});
  EXPECT_EQ(resolve("a.test").size(), 50U);
  server_.set("broken.test", {records, Manner::kBrokenStream});
  EXPECT_THAT(reason("broken.test"), HasSubstr("by TCP: the server closed before its answer was complete"));
}

TEST_F(ResolverTest, FollowsAliases) {
  server_.set("whole.test", {"whole.test. 60 IN CNAME b.test.", "b.test. 60 IN CNAME c.test.",
                             "c.test. 60 IN A 192.0.2.1", "c.test. 60 IN AAAA 2001:db8::1"});
  EXPECT_THAT(resolve("whole.test"), ElementsAre("192.0.2.1", "2001:db8::1"));
  server_.set("parts.test", {"parts.test. 60 IN CNAME far.test."});
  server_.set("far.test", {"far.test. 60 IN CNAME farther.test."});
  server_.set("farther.test", {"farther.test. 60 IN A 192.0.2.2"});
  EXPECT_THAT(resolve("parts.test"), ElementsAre("192.0.2.2"));
}

TEST_F(ResolverTest, AliasesThatGoRoundEnd) {
  server_.set("in.test", {"in.test. 60 IN CNAME out.test.", "out.test. 60 IN CNAME in.test."});
  EXPECT_THAT(reason("in.test"), HasSubstr("more than 16 aliases in a row"));
  server_.set("x.test", {"x.test. 60 IN CNAME y.test."});
  server_.set("y.test", {"y.test. 60 IN CNAME x.test."});
  EXPECT_THAT(reason("x.test"), HasSubstr("more than 16 aliases in a row"));
  EXPECT_LE(server_.asked("x.test") + server_.asked("y.test"), 2 * 17);
}

TEST_F(ResolverTest, AnAliasBoundsTheTtl) {
  server_.set("a.test", {"a.test. 1 IN CNAME b.test.", "b.test. 300 IN A 192.0.2.1"});
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  EXPECT_TRUE(eventually(kSoon, [&] {
    resolve("a.test");
    return server_.asked("a.test") > 2;
  }));
}

TEST_F(ResolverTest, TheNextServerIsAskedWhenOneIsSilentOrAway) {
  const auto second = [&](const char* address) {
    return std::make_unique<DnsServer>(Endpoint{IpAddress::parse(address).value(), server_.port()});
  };
  const auto good = second("127.0.0.2");
  good->set("a.test", {"a.test. 60 IN A 192.0.2.1"});
  server_.set("a.test", {{}, Manner::kSilent});
  good->set("b.test", {"b.test. 60 IN A 192.0.2.2"});
  folder_.write("resolv.conf", "nameserver 127.0.0.3\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n");
  EXPECT_THAT(resolve("a.test"), ElementsAre("192.0.2.1"));
  EXPECT_EQ(server_.asked("a.test"), 2);
  server_.set("b.test", {{}, Manner::kServerFailure});
  EXPECT_THAT(resolve("b.test"), ElementsAre("192.0.2.2"));
}

TEST_F(ResolverTest, NobodyListeningIsToldAtOnce) {
  config_.query.try_timeout = milliseconds(20'000);
  folder_.write("resolv.conf", "nameserver 127.0.0.3\n");
  const auto started = steady_clock::now();
  EXPECT_THAT(reason("a.test"), AllOf(HasSubstr("127.0.0.3:"), HasSubstr("efused")));
  EXPECT_LT(steady_clock::now() - started, milliseconds(5'000));
}

TEST_F(ResolverTest, TheServersAreThoseOfTheFileNow) {
  config_.cache.failure = seconds(1);
  folder_.write("resolv.conf", "# none\n");
  server_.set("a.test", {"a.test. 60 IN A 192.0.2.1"});
  EXPECT_THAT(reason("a.test"), HasSubstr("it names no DNS server"));
  folder_.write("resolv.conf", "nameserver 127.0.0.1\n");
  EXPECT_TRUE(eventually(kSoon, [&] { return resolve("a.test") == std::vector<std::string>{"192.0.2.1"}; }));
}

TEST_F(ResolverTest, WhatIsNoNameIsNotAskedFor) {
  for (const char* name : {"", "a..test", "10.0.0.1", "*.test", "a b.test"}) {
    EXPECT_EQ(resolver().find(name).kind, Kind::kFailed) << name;
  }
  EXPECT_EQ(resolver().names(), 0U);
}

TEST_F(ResolverTest, MoreNamesThanLookUpsAtATime) {
  config_.lookups_max = 2;
  for (int i = 0; i < 20; ++i) {
    const std::string name = "n" + std::to_string(i) + ".test";
    server_.set(name, {name + ". 60 IN A 192.0.2.1"});
    static_cast<void>(resolver().find(name));
  }
  for (int i = 0; i < 20; ++i) EXPECT_THAT(resolve("n" + std::to_string(i) + ".test"), ElementsAre("192.0.2.1"));
}

TEST_F(ResolverTest, StopsWhileItLooksUp) {
  config_.query.try_timeout = milliseconds(20'000);
  server_.set("a.test", {{}, Manner::kSilent});
  EXPECT_EQ(resolver().find("a.test").kind, Kind::kPending);
  EXPECT_TRUE(eventually(kSoon, [&] { return server_.asked("a.test") == 2; }));
  resolver().stop();
  EXPECT_EQ(resolver().find("a.test").kind, Kind::kPending);
  EXPECT_EQ(answers_, 0);
}

// ---- messages

TEST(DnsMessage, ANameThatIsNoneIsRefused) {
  EXPECT_FALSE(encode({std::string(300, 'a'), RecordType::kA, 1}));
  EXPECT_FALSE(encode({"a..b", RecordType::kA, 1}));
  EXPECT_FALSE(encode({std::string("a.test\0b", 8), RecordType::kA, 1})) << "not what stands before the NUL";
}

TEST(DnsMessage, HostileBytesAreReadOrRefused) {
  const Question question{"a.test", RecordType::kA, 0x1234};
  auto message = encode(question).value();
  EXPECT_FALSE(decode(message, question)) << "a question is no answer";
  message[2] |= std::byte{0x80};  // QR
  ASSERT_TRUE(decode(message, question));
  // One A record whose owner points to the question's name.
  message[7] = std::byte{1};
  for (const unsigned value : {0xc0U, 12U, 0U, 1U, 0U, 1U, 0U, 0U, 0U, 60U, 0U, 4U, 192U, 0U, 2U, 1U}) {
    message.push_back(static_cast<std::byte>(value));
  }
  ASSERT_THAT(decode(message, question).value().addresses, ElementsAre(IpAddress::parse("192.0.2.1").value()));
  for (std::size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(decode(std::span(message).first(size), question)) << size;
  }
  const auto seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int read = 0;
  for (int i = 0; i < 20'000; ++i) {
    auto changed = message;
    for (int flips = 1 + i % 4; flips > 0; --flips)
      changed[random() % changed.size()] = static_cast<std::byte>(random());
    if (auto reply = decode(changed, question)) read += reply->addresses.size() <= 1 ? 1 : 0;
  }
  EXPECT_GT(read, 0);
}

}  // namespace
}  // namespace weft::dns
