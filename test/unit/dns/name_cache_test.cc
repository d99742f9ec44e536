// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/name_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tunnel/dns/lookup.h"

namespace weft::dns {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = state::NameAnswer::Kind;

IpAddress ip(const char* text) { return IpAddress::parse(text).value(); }
Outcome found(const char* address, seconds ttl) { return {{ip(address)}, ttl, true, {}}; }
/// An answer for one family, and none for the other.
Outcome half(const char* address, seconds ttl) { return combine(found(address, ttl), std::nullopt); }
Outcome none(const char* reason) { return {{}, {}, true, reason}; }
Outcome failed(const char* reason) { return {{}, {}, false, reason}; }

class NameCacheTest : public ::testing::Test {
 protected:
  NameCache::Found find(const std::string& name = "a.test") { return cache_.find(name, clock_.now()); }
  bool store(const Outcome& outcome, const std::string& name = "a.test") {
    return cache_.store(name, outcome, clock_.now());
  }
  /// The first address known now; its answer's kind as a word where there is none.
  std::string known(const std::string& name = "a.test") {
    const auto answer = find(name).answer;
    if (answer.kind == Kind::kPending) return "pending";
    return answer.kind == Kind::kFailed ? answer.reason : answer.addresses->front().to_string();
  }
  std::vector<std::string> sweep() { return cache_.sweep(clock_.now()); }

  FakeClock clock_;
  NameCache cache_{CacheLimits()};
};

TEST_F(NameCacheTest, OneLookUpAtATime) {
  EXPECT_TRUE(find().look_up);
  EXPECT_FALSE(find().look_up);
  EXPECT_EQ(known(), "pending");
  EXPECT_TRUE(store(found("192.0.2.1", seconds(30)))) << "somebody waits";
  EXPECT_EQ(known(), "192.0.2.1");
  EXPECT_FALSE(find().look_up);
}

TEST_F(NameCacheTest, ATtlIsBounded) {
  for (const auto& [ttl, kept] :
       {std::pair{seconds(0), seconds(1)}, {seconds(30), seconds(30)}, {seconds(0x7fffffff), seconds(300)}}) {
    find();
    store(found("192.0.2.1", ttl));
    clock_.advance(kept - milliseconds(1));
    EXPECT_FALSE(find().look_up) << ttl.count();
    clock_.advance(milliseconds(1));
    EXPECT_TRUE(find().look_up) << ttl.count();
    store(none("gone"));
    clock_.advance(seconds(5));
  }
}

TEST_F(NameCacheTest, StaleAddressesServeWhileNobodyGivesNewerOnes) {
  find();
  store(found("192.0.2.1", seconds(10)));
  clock_.advance(seconds(10));
  EXPECT_TRUE(find().look_up);
  EXPECT_EQ(known(), "192.0.2.1") << "while it is renewed";
  EXPECT_FALSE(store(failed("no answer"))) << "nobody waits";
  EXPECT_EQ(known(), "192.0.2.1") << "when that has failed";
  EXPECT_FALSE(find().look_up) << "the failure counts for 5 s";
  clock_.advance(seconds(5));
  EXPECT_TRUE(find().look_up);
  store(failed("no answer"));
  clock_.advance(seconds(54));
  EXPECT_EQ(known(), "192.0.2.1");
  store(failed("still no answer"));
  clock_.advance(seconds(1));
  EXPECT_EQ(known(), "still no answer") << "60 s behind its time it is over";
  clock_.advance(seconds(5));
  EXPECT_EQ(known(), "pending");
}

TEST_F(NameCacheTest, ANewAnswerReplacesTheOldOne) {
  find();
  store(found("192.0.2.1", seconds(10)));
  clock_.advance(seconds(10));
  find();
  store(found("192.0.2.2", seconds(10)));
  EXPECT_EQ(known(), "192.0.2.2");
  clock_.advance(seconds(10));
  find();
  store(none("no such name"));
  EXPECT_EQ(known(), "no such name") << "that is an answer, not a failure to get one";
}

TEST_F(NameCacheTest, OneFamilyAloneDoesNotHideTheOther) {
  const auto addresses = [&] { return *find().answer.addresses; };
  find();
  store(half("2001:db8::1", seconds(300)));
  EXPECT_THAT(addresses(), ElementsAre(ip("2001:db8::1")));
  clock_.advance(milliseconds(4'999));
  EXPECT_FALSE(find().look_up);
  clock_.advance(milliseconds(1));
  EXPECT_TRUE(find().look_up) << "the other family may exist";
  store(combine(found("192.0.2.1", seconds(10)), found("2001:db8::1", seconds(10))));
  clock_.advance(seconds(10));
  find();
  store(half("2001:db8::2", seconds(300)));
  EXPECT_THAT(addresses(), ElementsAre(ip("192.0.2.1"), ip("2001:db8::1"))) << "a whole answer that may still be used";
  clock_.advance(seconds(5));
  EXPECT_TRUE(find().look_up);
  store(half("192.0.2.2", seconds(300)));
  clock_.advance(seconds(55));
  EXPECT_TRUE(find().look_up);
  store(half("192.0.2.2", seconds(300)));
  EXPECT_THAT(addresses(), ElementsAre(ip("192.0.2.2"))) << "60 s behind its time that is over";
}

TEST_F(NameCacheTest, AFamilyThatIsSaidNotToExistIsNotMissed) {
  find();
  store(combine(found("192.0.2.1", seconds(10)), found("2001:db8::1", seconds(10))));
  clock_.advance(seconds(10));
  find();
  store(combine(found("192.0.2.2", seconds(30)), none("no address")));
  EXPECT_THAT(*find().answer.addresses, ElementsAre(ip("192.0.2.2")));
  clock_.advance(milliseconds(29'999));
  EXPECT_FALSE(find().look_up);
}

TEST_F(NameCacheTest, AFailureCountsForFiveSeconds) {
  find();
  EXPECT_TRUE(store(failed("no answer")));
  EXPECT_EQ(known(), "no answer");
  clock_.advance(milliseconds(4'999));
  EXPECT_EQ(known(), "no answer");
  clock_.advance(milliseconds(1));
  EXPECT_TRUE(find().look_up);
  EXPECT_EQ(known(), "pending");
}

TEST_F(NameCacheTest, WhatIsUsedIsRenewedAndTheRestForgotten) {
  for (const char* name : {"used.test", "unused.test"}) {
    find(name);
    store(found("192.0.2.1", seconds(10)), name);
  }
  find("used.test");
  EXPECT_EQ(cache_.next_sweep(clock_.now()), clock_.now() + seconds(10));
  clock_.advance(seconds(10));
  EXPECT_THAT(sweep(), ElementsAre("used.test"));
  EXPECT_THAT(sweep(), IsEmpty()) << "it is under way";
  EXPECT_EQ(cache_.next_sweep(clock_.now()), clock_.now() + seconds(60)) << "to forget the other";
  store(found("192.0.2.2", seconds(10)), "used.test");
  clock_.advance(seconds(60));
  EXPECT_THAT(sweep(), IsEmpty()) << "nobody has asked since";
  EXPECT_EQ(cache_.size(), 1U);
  clock_.advance(seconds(10));
  EXPECT_THAT(sweep(), IsEmpty());
  EXPECT_EQ(cache_.size(), 0U);
  EXPECT_EQ(cache_.next_sweep(clock_.now()), std::nullopt);
}

TEST_F(NameCacheTest, IsBounded) {
  CacheLimits limits;
  limits.names_max = 2;
  cache_ = NameCache(limits);
  find("a.test");
  find("b.test");
  const auto refused = find("c.test");
  EXPECT_EQ(refused.answer.kind, Kind::kFailed) << "both are being looked up";
  EXPECT_FALSE(refused.look_up);
  store(found("192.0.2.1", seconds(10)), "a.test");
  store(found("192.0.2.2", seconds(10)), "b.test");
  clock_.advance(seconds(1));
  find("a.test");
  EXPECT_TRUE(find("c.test").look_up);
  EXPECT_EQ(cache_.size(), 2U);
  EXPECT_EQ(known("a.test"), "192.0.2.1") << "b.test was not asked for the longest";
  EXPECT_FALSE(store(found("192.0.2.2", seconds(10)), "b.test")) << "it is not known any more";
}

TEST(CombinedOutcome, TakesWhatThereIs) {
  const auto both = combine(found("192.0.2.1", seconds(30)), found("2001:db8::1", seconds(20)));
  EXPECT_THAT(both.addresses, ElementsAre(ip("192.0.2.1"), ip("2001:db8::1")));
  EXPECT_EQ(both.ttl, seconds(20));
  const auto one = combine(found("192.0.2.1", seconds(30)), failed("no answer"));
  EXPECT_THAT(one.addresses, ElementsAre(ip("192.0.2.1")));
  EXPECT_EQ(one.ttl, seconds(30));
  EXPECT_EQ(combine(found("192.0.2.1", seconds(30)), std::nullopt).addresses.size(), 1U);
}

TEST(CombinedOutcome, IsDefiniteOnlyWhereBothAre) {
  EXPECT_TRUE(combine(none("none"), none("none")).definite);
  for (const auto& mixed : {combine(none("none"), failed("no answer")), combine(failed("no answer"), none("none"))}) {
    EXPECT_FALSE(mixed.definite);
    EXPECT_EQ(mixed.reason, "no answer");
  }
}

}  // namespace
}  // namespace weft::dns
