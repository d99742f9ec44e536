// SPDX-License-Identifier: Apache-2.0
/// Pods that leave, and what becomes of enrolment when one agent takes over from another.
#include <filesystem>

#include "test/unit/agent/enrolment_fixture.h"

namespace weft::agent {
namespace {

using test::EnrolmentTest;
using test::hbone_workload;
using test::ip;
using test::state_of;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(EnrolmentTest, APodThatComesBackBeforeItHasLeftKeepsItsListeners) {
  const auto in = state_of({hbone_workload("web", {ip("10.0.0.5")})});
  enrolment_->apply(in);
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  enrolment_->apply(state_of({}));
  journal_.clear();
  enrolment_->apply(in);
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_THAT(journal_, Contains("set_pod 0 enrolled pass"));
  EXPECT_THAT(journal_, Not(Contains("add_pod 0 as Kubernetes//Pod/shop/web")));
  // As somebody else it may keep nothing.
  auto other = hbone_workload("web", {ip("10.0.0.5")});
  other.uid = "other";
  enrolment_->apply(state_of({}));
  enrolment_->apply(state_of({other}));
  EXPECT_THAT(journal_, Contains("add_pod 0 as other"));
}

TEST_F(EnrolmentTest, APodHasLeftAfterAWhile) {
  leave_time_ = milliseconds(0);
  start_agent();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  enrolment_->apply(state_of({}));
  journal_.clear();
  enrolment_->sweep();
  EXPECT_THAT(journal_, ElementsAre("set_pod 0 wired pass", "retire_pod 0"));
  EXPECT_EQ(state_of_pod("web"), "wired");
  EXPECT_THAT(wanted_, IsEmpty());
  // Its live connections are the worker's still; it comes back with new listeners.
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_THAT(journal_, Contains("add_pod 0 as Kubernetes//Pod/shop/web"));
}

/// The agent before it may have captured what its list had alone, and one that was to follow may have.
TEST_F(EnrolmentTest, AnAgentThatCapturesAllSaysSoWhenItTakesOverAndWhenItGoesOn) {
  capture_all_ = true;
  start_agent(Inheritance());
  EXPECT_THAT(journal_, Contains("capture all"));
  journal_.clear();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_THAT(journal_, Contains("destinations 10.0.0.5")) << "what guard keeps";
  EXPECT_THAT(journal_, Not(Contains("capture listed")));
  EXPECT_TRUE(enrolment_->captures_all());
  enrolment_->hold();
  journal_.clear();
  enrolment_->go_on();
  EXPECT_THAT(journal_, Contains("capture all"));
}

TEST_F(EnrolmentTest, AHeldAgentTellsItsWorkersAloneAndCatchesUp) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  enrolment_->hold();
  journal_.clear();
  enrolment_->apply(state_of({}, {test::strict_policy()}));
  enrolment_->sweep();
  EXPECT_THAT(journal_, ElementsAre("state"));
  EXPECT_TRUE(enrolment_->handle(request_for("late", "10.0.0.6")).error);
  enrolment_->go_on();
  EXPECT_THAT(journal_, Contains("set_pod 0 leaving pass"));
  EXPECT_FALSE(enrolment_->handle(request_for("late", "10.0.0.6")).error);
}

TEST_F(EnrolmentTest, ARetiredAgentTouchesNothingOfTheNodeButCutsWhatIsDeniedAndGone) {
  const auto workload = hbone_workload("web", {ip("10.0.0.5")});
  enrolment_->apply(state_of({workload}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  ASSERT_TRUE(enrolment_->handle(request_for("gone", "10.0.0.6")).created);
  ASSERT_TRUE(enrolment_->handle(request_for("told", "10.0.0.7")).created);
  enrolment_->hold();
  netns_.live = {{Endpoint::parse("10.0.0.5:80").value(), Endpoint::parse("10.0.0.9:1000").value()}};
  enrolment_->apply(state_of({workload}, {test::strict_policy()}));
  EXPECT_EQ(netns_.live.size(), 1U) << "it may go on yet";
  enrolment_->retire();
  EXPECT_THAT(netns_.live, IsEmpty());
  journal_.clear();
  std::filesystem::remove(netns_path("gone"));
  enrolment_->sweep();
  enrolment_->forget_slot(2);
  enrolment_->apply(state_of({}));
  EXPECT_THAT(journal_, ElementsAre("remove_pod 1", "remove_pod 2", "state"));
  EXPECT_TRUE(capture_.by_slot.contains(1)) << "its successor's";
}

TEST_F(EnrolmentTest, GoesOnWithTheListenersOfARunningAgent) {
  const auto state = state_of({hbone_workload("web", {ip("10.0.0.5")})}, {test::strict_policy()});
  enrolment_->apply(state);
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  make_agent();
  capture_.listeners[0].clear();
  enrolment_->apply(state);
  EXPECT_THAT(journal_, ElementsAre("state")) << "before it has taken over it changes nothing";
  netns_.fail_listeners = true;  // none are needed
  ASSERT_TRUE(enrolment_->start(inheritance_of(0, 2)));
  EXPECT_THAT(journal_, Not(Contains("capture all")));
  EXPECT_THAT(journal_, Not(Contains("set_pod 0 enrolled check"))) << "its plaintext is denied as before";
  EXPECT_THAT(journal_, Contains("add_pod 0 as Kubernetes//Pod/shop/web"));
  EXPECT_THAT(data_plane_.sets[0], ElementsAre(1U, 1U));
  EXPECT_THAT(capture_.listeners[0], IsEmpty()) << "those that are there stay there";
  EXPECT_EQ(state_of_pod("web"), "enrolled");
}

TEST_F(EnrolmentTest, GoesOnWithTheListenersOfMoreOrFewerWorkers) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  start_agent(inheritance_of(0, 5));
  EXPECT_THAT(data_plane_.sets[0], ElementsAre(3U, 2U)) << "what waits in the others' queues is taken too";
  capture_.listeners[0].clear();
  capture_.workers_used = 0;
  start_agent(inheritance_of(0, 1));
  EXPECT_THAT(data_plane_.sets[0], ElementsAre(1U, 1U));
  EXPECT_EQ(capture_.listeners[0].size(), 3U) << "of the second worker, new";
  EXPECT_EQ(capture_.workers_used, 1);
}

TEST_F(EnrolmentTest, GoesOnWithTheDnsSocketsOfARunningAgent) {
  dns_capture_ = true;
  start_agent();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  const auto with_sockets = [](Inheritance inheritance) {
    for (auto& worker : inheritance.listeners) {
      for (Fd* fd : {&worker[0][0].dns_v4, &worker[0][0].dns_v6}) fd->reset(::memfd_create("dns", MFD_CLOEXEC));
    }
    return inheritance;
  };
  capture_.dns_sockets.clear();
  data_plane_.dns_sockets = 0;
  start_agent(with_sockets(inheritance_of(0, 2)));
  EXPECT_THAT(capture_.dns_sockets[0], IsEmpty()) << "those that are there stay there";
  EXPECT_EQ(data_plane_.dns_sockets, 4);
  start_agent(with_sockets(inheritance_of(0, 1)));
  EXPECT_THAT(capture_.dns_sockets[0], ElementsAre(std::pair{4, 1U}, std::pair{6, 1U})) << "of the second worker, new";
  capture_.dns_sockets.clear();
  start_agent(inheritance_of(0, 2));
  EXPECT_EQ(capture_.dns_sockets[0].size(), 4U) << "an agent that knew nothing of DNS had none";
  EXPECT_TRUE(capture_.by_slot.at(0).dns);
}

}  // namespace
}  // namespace weft::agent
