// SPDX-License-Identifier: Apache-2.0
#include "agent/control/demand.h"

#include <gmock/gmock.h>

namespace weft::control {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class DemandTest : public ::testing::Test {
 protected:
  DemandTest() {
    clock_.advance(1h);
    demand_.on_asked([this] { ++calls_; });
    demand_.connected();
  }
  /// Asks, and has it answered by snapshot `number`.
  void answer(const std::string& name, std::uint64_t number) {
    EXPECT_FALSE(demand_.is_told({name}, number));
    EXPECT_THAT(demand_.take(), ElementsAre(name));
    EXPECT_TRUE(demand_.answered({{name}}, number));
  }

  FakeClock clock_;
  Demand demand_{{.fresh = 3s, .patience = 2s, .names_max = 3, .batch_max = 2}, clock_};
  int calls_ = 0;
};

TEST_F(DemandTest, NothingIsAskedWhereThereAreNoNames) {
  EXPECT_TRUE(demand_.is_told({}, 0));
  EXPECT_EQ(calls_, 0);
}

TEST_F(DemandTest, ANameIsAskedForOnceAndToldWithItsSnapshot) {
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_FALSE(demand_.is_told({"a", "b"}, 1));
  EXPECT_EQ(calls_, 2);
  EXPECT_THAT(demand_.take(), ElementsAre("a", "b"));
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_EQ(calls_, 2) << "there is nothing more to take";
  EXPECT_TRUE(demand_.answered({{"a"}}, 2));
  EXPECT_FALSE(demand_.is_told({"a"}, 1)) << "the answer is not in that snapshot";
  EXPECT_TRUE(demand_.is_told({"a"}, 2));
  EXPECT_TRUE(demand_.is_told({"a"}, 3));
  EXPECT_FALSE(demand_.is_told({"a", "b"}, 3));
  EXPECT_TRUE(demand_.answered({{"b"}}, 3));
  EXPECT_TRUE(demand_.is_told({"a", "b"}, 3));
}

TEST_F(DemandTest, OneQuestionIsUnderWayAtATime) {
  EXPECT_FALSE(demand_.is_told({"a", "b", "c"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a", "b"));
  EXPECT_THAT(demand_.take(), IsEmpty());
  const int calls = calls_;
  demand_.answered({{"a"}}, 1);
  EXPECT_EQ(calls_, calls + 1);
  EXPECT_THAT(demand_.take(), ElementsAre("c"));
  clock_.advance(2s);
  EXPECT_THAT(demand_.take(), IsEmpty()) << "there is none";
  demand_.answered({{"another"}}, 1);
  EXPECT_FALSE(demand_.is_told({"a", "c"}, 1)) << "istiod has said something, but not that";
}

TEST_F(DemandTest, AQuestionThatIsNotAnsweredHoldsUpOthersForAWhile) {
  EXPECT_FALSE(demand_.is_told({"a", "b", "c"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a", "b"));
  clock_.advance(1999ms);
  EXPECT_THAT(demand_.take(), IsEmpty());
  clock_.advance(1ms);
  EXPECT_THAT(demand_.take(), ElementsAre("c"));
}

TEST_F(DemandTest, WhatNobodyAskedForIsNoAnswer) {
  EXPECT_FALSE(demand_.answered({{"a"}}, 1));
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
  EXPECT_TRUE(demand_.answered({{"a"}}, 2));
  EXPECT_FALSE(demand_.answered({{"a"}}, 3)) << "it is told already";
  EXPECT_TRUE(demand_.is_told({"a"}, 2));
}

TEST_F(DemandTest, NamesOfOneThingAreAnsweredTogether) {
  EXPECT_FALSE(demand_.is_told({"vip"}, 0));
  EXPECT_TRUE(demand_.answered({{"other", "another"}, {"vip", "service"}}, 1));
  EXPECT_TRUE(demand_.is_told({"vip", "service"}, 1));
  EXPECT_FALSE(demand_.is_told({"other"}, 1)) << "nobody asked for it, it may be half of what there is";
}

TEST_F(DemandTest, AnAnswerIsRenewedInTimeAndHoldsTwiceAsLong) {
  answer("a", 1);
  clock_.advance(2999ms);
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), IsEmpty());
  clock_.advance(1ms);
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
  EXPECT_FALSE(demand_.answered({{"a"}}, 1)) << "nobody waits for it";
  clock_.advance(2999ms);
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), IsEmpty()) << "it is new";
  clock_.advance(3001ms);
  EXPECT_FALSE(demand_.is_told({"a"}, 1)) << "and has not been used since";
  EXPECT_TRUE(demand_.answered({{"a"}}, 2));
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_TRUE(demand_.is_told({"a"}, 2));
}

TEST_F(DemandTest, WhereIstiodDoesNotAnswerTheLastAnswerHolds) {
  answer("a", 1);
  clock_.advance(24h);
  EXPECT_FALSE(demand_.is_told({"a", "b"}, 1));
  EXPECT_FALSE(demand_.is_overdue());
  clock_.advance(2s);
  EXPECT_TRUE(demand_.is_overdue());
  EXPECT_FALSE(demand_.is_overdue()) << "said once";
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  EXPECT_FALSE(demand_.is_told({"b"}, 1)) << "there is none";
  EXPECT_FALSE(demand_.is_overdue());
}

TEST_F(DemandTest, WhatWaitsForItsTurnIsNotLate) {
  answer("a", 1);
  clock_.advance(24h);
  EXPECT_FALSE(demand_.is_told({"b"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("b"));
  clock_.advance(100ms);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  clock_.advance(1800ms);
  EXPECT_TRUE(demand_.answered({{"b"}}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
  clock_.advance(1999ms);
  EXPECT_FALSE(demand_.is_told({"a"}, 1)) << "a day old, and istiod answers";
  clock_.advance(1ms);
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  demand_.disconnected();
  demand_.connected();
  EXPECT_FALSE(demand_.is_told({"a"}, 1)) << "there is an istiod to ask";
}

TEST_F(DemandTest, WhatIsNotAnsweredIsAskedForAgain) {
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
  clock_.advance(5999ms);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), IsEmpty());
  clock_.advance(1ms);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
}

TEST_F(DemandTest, ForgetsAllAnswers) {
  answer("a", 1);
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
  demand_.forget();
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
}

TEST_F(DemandTest, AnAnswerThatCannotBeReadIsNoneNorIsTheLast) {
  answer("a", 1);
  clock_.advance(10s);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  demand_.unreadable({"a", "b"});
  clock_.advance(10s);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_FALSE(demand_.is_overdue());
  EXPECT_TRUE(demand_.answered({{"a"}}, 1));
  EXPECT_TRUE(demand_.is_told({"a"}, 1));
}

TEST_F(DemandTest, ANewStreamIsAskedForWhatTheLastDidNotAnswer) {
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a"));
  demand_.disconnected();
  EXPECT_FALSE(demand_.is_told({"b"}, 1));
  EXPECT_THAT(demand_.take(), IsEmpty());
  demand_.connected();
  EXPECT_THAT(demand_.take(), UnorderedElementsAre("a", "b"));
}

TEST_F(DemandTest, AskingAheadAsksOnce) {
  answer("a", 1);
  clock_.advance(24h);
  demand_.ask_ahead({"a", "b"});
  EXPECT_THAT(demand_.take(), ElementsAre("b"));
  EXPECT_FALSE(demand_.answered({{"b"}}, 1)) << "nobody waits";
  EXPECT_TRUE(demand_.is_told({"b"}, 1));
}

TEST_F(DemandTest, ForgetsWhatNobodyAsksForWhereThereIsTooMuch) {
  EXPECT_FALSE(demand_.is_told({"a", "b", "c", "d"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("a", "b"));
  EXPECT_TRUE(demand_.answered({{"a"}, {"b"}}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("c")) << "no room for d";
  clock_.advance(5999ms);
  EXPECT_FALSE(demand_.is_told({"d"}, 1));
  clock_.advance(1s);
  EXPECT_FALSE(demand_.is_told({"d"}, 1));
  EXPECT_THAT(demand_.take(), ElementsAre("d"));
}

TEST_F(DemandTest, ForgetsNoAnswerWhileIstiodIsAway) {
  EXPECT_FALSE(demand_.is_told({"a", "b"}, 1));
  EXPECT_TRUE(demand_.answered({{"a"}, {"b"}}, 1));
  demand_.disconnected();
  EXPECT_FALSE(demand_.is_told({"nobody"}, 1));
  clock_.advance(24h);
  EXPECT_FALSE(demand_.is_told({"a", "b"}, 1));
  clock_.advance(2s);
  EXPECT_FALSE(demand_.is_told({"somebody"}, 1)) << "in the place of the one without an answer";
  clock_.advance(10s);
  EXPECT_TRUE(demand_.is_told({"a", "b"}, 1));
}

TEST_F(DemandTest, CallsNobodyAnyMore) {
  demand_.on_asked(nullptr);
  EXPECT_FALSE(demand_.is_told({"a"}, 1));
  EXPECT_EQ(calls_, 0);
}

}  // namespace
}  // namespace weft::control
