// SPDX-License-Identifier: Apache-2.0
/// Pods that are in the mesh because somebody selects them.
#include "test/unit/agent/enrolment_fixture.h"

namespace weft::agent {
namespace {

using test::hbone_workload;
using test::ip;
using test::state_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = Selection::Kind;

class EnrolmentSelectionTest : public test::EnrolmentTest {
 protected:
  void SetUp() override {
    select_ = [this](const std::string& namespace_name, const std::string& pod, const std::string&) {
      asked_ = namespace_name + "/" + pod;
      return Selection{said_, "as it was said"};
    };
    start_agent();
  }
  std::shared_ptr<const state::State> uncaptured() {
    auto workload = hbone_workload("web", {ip("10.0.0.5")});
    workload.protocol = state::TunnelProtocol::kTcp;
    return state_of({workload});
  }
  void say(Kind kind) {
    said_ = kind;
    enrolment_->reselect();
  }

  Kind said_ = Kind::kNotSelected;
  std::string asked_;
};

TEST_F(EnrolmentSelectionTest, EnrolsAndUnenrolsARunningPod) {
  enrolment_->apply(uncaptured());
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  EXPECT_EQ(asked_, "shop/web");
  EXPECT_EQ(state_of_pod("web"), "wired");
  say(Kind::kSelected);
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  EXPECT_TRUE(enrolment_->wired().front().captured);
  EXPECT_EQ(wanted_.size(), 1U);
  say(Kind::kNotSelected);
  EXPECT_EQ(state_of_pod("web"), "leaving");
  EXPECT_FALSE(capture_.by_slot.at(0).enrolled);
  EXPECT_FALSE(enrolment_->wired().front().captured);
}

TEST_F(EnrolmentSelectionTest, APodThatIsToLeaveStaysUntilItMay) {
  enrolment_->apply(uncaptured());
  say(Kind::kSelected);
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  for (const Kind kind : {Kind::kLeaving, Kind::kUnsaid}) {
    say(kind);
    EXPECT_EQ(state_of_pod("web"), "enrolled");
    EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  }
  // Its policies go on.
  auto workload = hbone_workload("web", {ip("10.0.0.5")});
  workload.protocol = state::TunnelProtocol::kTcp;
  enrolment_->apply(state_of({workload}, {test::strict_policy()}));
  EXPECT_EQ(capture_.by_slot.at(0).inbound, bpf::InboundPlaintext::kDrop);
}

TEST_F(EnrolmentSelectionTest, ANewPodOfWhichNothingIsSaidIsRefusedToBeAskedForAgain) {
  enrolment_->apply(uncaptured());
  say(Kind::kUnsaid);
  const auto reply = enrolment_->handle(request_for("web", "10.0.0.5"));
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->code, ErrorCode::kUnavailable);
  EXPECT_THAT(reply.error->message(), HasSubstr("shop/web could be the mesh's"));
  EXPECT_THAT(enrolment_->pods(), IsEmpty());
  // One that is still annotated from before a reboot, and is the mesh's no longer, starts.
  say(Kind::kLeaving);
  EXPECT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  EXPECT_EQ(state_of_pod("web"), "wired");
}

TEST_F(EnrolmentSelectionTest, APodWhoseWorkloadIsNotThereYetIsCapturedAsWhatItWillBe) {
  enrolment_->apply(state_of({}));
  say(Kind::kSelected);
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  EXPECT_EQ(state_of_pod("web"), "pending");
  EXPECT_TRUE(enrolment_->wired().front().captured);
  EXPECT_EQ(capture_.by_slot.at(0).inbound, bpf::InboundPlaintext::kCheck);
  const auto before = data_plane_.by_slot.at(0);
  enrolment_->apply(uncaptured());
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_EQ(data_plane_.by_slot.at(0), before) << "what waits for the workload keeps its pod";
  EXPECT_EQ(capture_.by_slot.at(0).inbound, bpf::InboundPlaintext::kPass);
  // It is gone again, as in a restart of the control plane that has lost it.
  enrolment_->apply(state_of({}));
  EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  EXPECT_EQ(capture_.by_slot.at(0).inbound, bpf::InboundPlaintext::kCheck);
}

TEST_F(EnrolmentSelectionTest, ARunningPodIsNotTakenInBeforeItsWorkloadIsThere) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  say(Kind::kSelected);
  EXPECT_EQ(state_of_pod("web"), "pending");
  EXPECT_FALSE(capture_.by_slot.at(0).enrolled) << "its connections would wait";
  EXPECT_FALSE(enrolment_->wired().front().captured);
  enrolment_->apply(uncaptured());
  EXPECT_EQ(state_of_pod("web"), "enrolled");
}

TEST_F(EnrolmentSelectionTest, ARestartedAgentKeepsWhatItHasWhileNothingIsSaid) {
  enrolment_->apply(uncaptured());
  say(Kind::kSelected);
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  said_ = Kind::kNotSelected;
  ASSERT_FALSE(enrolment_->handle(request_for("plain", "10.0.0.9")).error);
  said_ = Kind::kUnsaid;
  start_agent();
  enrolment_->apply(uncaptured());
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_EQ(state_of_pod("plain"), "wired");
}

}  // namespace
}  // namespace weft::agent
