// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

namespace weft::proxy {
namespace {

using ::testing::HasSubstr;

static_assert(within_fair_share(0, 1, 0, 2));
static_assert(within_fair_share(49, 1, 49, 100), "one alone gets half");
static_assert(!within_fair_share(50, 1, 50, 100));
static_assert(!within_fair_share(0, 1, 100, 100), "nothing is left");
static_assert(!within_fair_share(0, 1, 101, 100), "the stock has shrunk");
static_assert(!within_fair_share(0, 2, 99, 100));

std::shared_ptr<const PodContext> pod(const std::string& name) {
  auto made = std::make_shared<PodContext>();
  made->namespace_name = "shop";
  made->name = name;
  return made;
}

class LimitsTest : public ::testing::Test {
 protected:
  struct Pod {
    std::shared_ptr<const PodContext> context;
    std::shared_ptr<PodUse> use;
    std::deque<Charge> charges = {};
  };
  Pod make(const std::string& name) {
    const auto context = pod(name);
    return {context, limits_.use_of(context)};
  }
  /// One more, and what became of it.
  Shed take(Pod& by, std::uint32_t descriptors = 1) {
    Admission admission = limits_.admit(by.use, descriptors);
    if (admission.refused == Shed::kNone) by.charges.push_back(std::move(admission.charge));
    return admission.refused;
  }
  /// As many as it gets.
  std::size_t take_all(Pod& by) {
    while (take(by) == Shed::kNone) {
    }
    return by.charges.size();
  }

  Limits limits_;
};

TEST_F(LimitsTest, WithoutSizesThereAreNone) {
  Pod web = make("web");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(take(web, 2), Shed::kNone);
  EXPECT_EQ(limits_.connections(), 100U);
  EXPECT_EQ(limits_.descriptors(), 200U);
  EXPECT_EQ(web.use->connections(), 100U);
}

TEST_F(LimitsTest, WhatHasEndedIsFreeAgain) {
  limits_.set_sizes({.connections = 10});
  Pod web = make("web");
  EXPECT_EQ(take_all(web), 5U);
  web.charges.pop_front();
  EXPECT_EQ(take(web), Shed::kNone);
  EXPECT_EQ(take(web), Shed::kFairShare);
  web.charges.clear();
  EXPECT_EQ(limits_.connections(), 0U);
  EXPECT_EQ(limits_.descriptors(), 0U);
  EXPECT_EQ(web.use->connections(), 0U);
  EXPECT_EQ(web.use->descriptors(), 0U);
  EXPECT_EQ(take_all(web), 5U);
}

TEST_F(LimitsTest, ThoseWhoTakeAllTheyCanLeaveAsMuchForTheNext) {
  limits_.set_sizes({.connections = 1000});
  std::deque<Pod> hogs;
  for (std::size_t n = 1; n <= 4; ++n) {
    hogs.push_back(make("hog" + std::to_string(n)));
    // In turns, until nobody gets any more.
    for (bool any = true; any;) {
      any = false;
      for (auto& hog : hogs) any = take(hog) == Shed::kNone || any;
    }
    std::size_t all = 0;
    for (const auto& hog : hogs) all += hog.charges.size();
    const std::size_t left = 1000 - all;
    Pod newcomer = make("newcomer");
    EXPECT_EQ(take_all(newcomer), (left + 1) / 2) << n << " hogs, " << left << " left";
    EXPECT_GT(newcomer.charges.size(), 0U);
    EXPECT_TRUE(n > 1 || left == 500U);
  }
}

TEST_F(LimitsTest, APodHasALimitOfItsOwn) {
  limits_.set_sizes({.connections = 1000, .connections_per_pod = 3});
  Pod web = make("web"), other = make("other");
  EXPECT_EQ(take_all(web), 3U);
  EXPECT_EQ(take(web), Shed::kPodLimit);
  EXPECT_EQ(take(other), Shed::kNone);
  EXPECT_EQ(web.use->shed(Shed::kPodLimit), 2U);
  EXPECT_EQ(other.use->shed(Shed::kPodLimit), 0U);
  EXPECT_THAT(limits_.why(Shed::kPodLimit, *web.use), HasSubstr("the pod has 3 (--max-connections-per-pod)"));
}

TEST_F(LimitsTest, DescriptorsAreSharedTheSameWay) {
  limits_.set_sizes({.descriptors = 20});
  Pod web = make("web"), other = make("other");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(take(web, 2), Shed::kNone);
  EXPECT_EQ(take(web, 1), Shed::kDescriptors);
  EXPECT_EQ(web.use->descriptors(), 10U);
  EXPECT_EQ(take(other, 2), Shed::kNone);
  EXPECT_THAT(limits_.why(Shed::kDescriptors, *web.use), HasSubstr("10 of the agent's 20, and 8 are left"));
}

TEST_F(LimitsTest, AChargeFollowsWhatIsNeeded) {
  Pod web = make("web");
  EXPECT_EQ(take(web, 2), Shed::kNone);
  web.charges.front().resize(1);
  EXPECT_EQ(web.use->descriptors(), 1U);
  EXPECT_EQ(limits_.descriptors(), 1U);
  web.charges.front().resize(3);
  EXPECT_EQ(limits_.descriptors(), 3U);
  Charge moved = std::move(web.charges.front());
  web.charges.clear();
  EXPECT_EQ(limits_.descriptors(), 3U);
  moved = Charge();
  EXPECT_EQ(limits_.descriptors(), 0U);
  EXPECT_EQ(limits_.connections(), 0U);
}

TEST_F(LimitsTest, SizesMayShrinkBelowWhatIsUsed) {
  Pod web = make("web");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(take(web), Shed::kNone);
  limits_.set_sizes({.connections = 4, .descriptors = 4});
  EXPECT_EQ(take(web), Shed::kFairShare);
  EXPECT_THAT(limits_.why(Shed::kFairShare, *web.use), HasSubstr("10 of the agent's 4, and 0 are left"));
  web.charges.clear();
  EXPECT_EQ(take_all(web), 2U);
}

TEST_F(LimitsTest, WhereMemoryIsShortThoseWithMoreThanTheAverageGetNothing) {
  Pod hog = make("hog"), modest = make("modest"), idle = make("idle");
  for (int i = 0; i < 100; ++i) EXPECT_EQ(take(hog), Shed::kNone);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(take(modest), Shed::kNone);
  limits_.set_memory_pressure(MemoryPressure::kHigh);
  EXPECT_EQ(take(hog), Shed::kMemory);
  EXPECT_EQ(take(modest), Shed::kNone);
  EXPECT_EQ(take(idle), Shed::kNone);
  hog.charges.clear();
  EXPECT_EQ(take(hog), Shed::kNone) << "few are always allowed";
  EXPECT_EQ(take(modest), Shed::kMemory) << "now it has the most";
  limits_.set_memory_pressure(MemoryPressure::kCritical);
  EXPECT_EQ(take(idle), Shed::kMemory);
  EXPECT_EQ(idle.use->shed(Shed::kMemory), 1U);
  limits_.set_memory_pressure(MemoryPressure::kNone);
  EXPECT_EQ(take(modest), Shed::kNone);
}

TEST_F(LimitsTest, WorkersShareWhatAPodHasAndItsSuccessorInheritsNothing) {
  const auto context = pod("web");
  auto first = limits_.use_of(context);
  EXPECT_EQ(limits_.use_of(context), first);
  const auto successor = pod("web");
  EXPECT_NE(limits_.use_of(successor), first);
  Admission admission = limits_.admit(first, 1);
  std::weak_ptr<PodUse> watched = first;
  first.reset();
  EXPECT_FALSE(watched.expired()) << "a connection lives on";
  EXPECT_EQ(limits_.pods().size(), 1U);
  admission.charge = Charge();
  EXPECT_TRUE(watched.expired());
  EXPECT_TRUE(limits_.pods().empty());
}

}  // namespace
}  // namespace weft::proxy
