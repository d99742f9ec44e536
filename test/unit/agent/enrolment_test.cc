// SPDX-License-Identifier: Apache-2.0
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
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(EnrolmentTest, CapturesEverythingUntilTheFirstState) {
  EXPECT_TRUE(capture_.capture_all);
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_FALSE(capture_.capture_all);
  EXPECT_LT(position("destinations 10.0.0.5"), position("capture listed"));
  EXPECT_LT(position("state"), position("capture listed"));
}

TEST_F(EnrolmentTest, RegistersAWorkloadWithListenersForEveryWorker) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  const auto reply = enrolment_->handle(request_for("web", "10.0.0.5"));
  ASSERT_FALSE(reply.error) << reply.error->message();
  EXPECT_TRUE(reply.enrolled);
  EXPECT_EQ(capture_.listeners.at(0).size(), 3U * data_plane_.workers());
  EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  EXPECT_EQ(capture_.by_slot.at(0).host_ifindex, 17U);
  EXPECT_EQ(data_plane_.by_slot.at(0)->workload_uid, "Kubernetes//Pod/shop/web");
  EXPECT_THAT(wanted_, ElementsAre(state::Identity{"cluster.local", "shop", "web-sa"}));
  EXPECT_EQ(state_of_pod("web"), "enrolled");
}

TEST_F(EnrolmentTest, WiresAPodThatIsNoWorkloadWithoutListeners) {
  enrolment_->apply(state_of({}));
  const auto reply = enrolment_->handle(request_for("plain", "10.0.0.9"));
  ASSERT_FALSE(reply.error) << reply.error->message();
  EXPECT_FALSE(reply.enrolled);
  EXPECT_FALSE(capture_.by_slot.at(0).enrolled);
  EXPECT_THAT(capture_.listeners, IsEmpty());
  EXPECT_THAT(data_plane_.by_slot, IsEmpty());
  EXPECT_THAT(wanted_, IsEmpty());
}

TEST_F(EnrolmentTest, RefusesOtherAddressesThanTheWorkloads) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  const auto reply = enrolment_->handle(request_for("web", "10.0.0.6"));
  ASSERT_TRUE(reply.error);
  EXPECT_EQ(reply.error->code, ErrorCode::kInvalid);
  EXPECT_THAT(reply.error->message(), HasSubstr("10.0.0.6"));
  EXPECT_THAT(reply.error->message(), HasSubstr("10.0.0.5"));
  EXPECT_THAT(capture_.by_slot, IsEmpty());
}

TEST_F(EnrolmentTest, RefusesIncompleteRequests) {
  const auto refused = [&](cni::Request request, const char* field) {
    const auto reply = enrolment_->handle(std::move(request));
    ASSERT_TRUE(reply.error) << field;
    EXPECT_EQ(reply.error->code, ErrorCode::kInvalid);
    EXPECT_THAT(reply.error->message(), HasSubstr(field));
  };
  auto request = request_for("web", "10.0.0.5");
  request.addresses.clear();
  refused(std::move(request), "addresses is missing");
  request = request_for("web", "10.0.0.5");
  request.netns_fd.reset();
  refused(std::move(request), "netns descriptor is missing");
  request = request_for("web", "10.0.0.5");
  request.pod_name.clear();
  refused(std::move(request), "podName is missing");
  request = request_for("web", "10.0.0.5");
  request.netns_fd.reset(::open("/", O_RDONLY | O_CLOEXEC));
  refused(std::move(request), "not a network namespace");
}

TEST_F(EnrolmentTest, KeepsARepeatedRegistrationAndReplacesAnotherNetns) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  journal_.clear();
  auto again = enrolment_->handle(request_for("web", "10.0.0.5"));
  ASSERT_FALSE(again.error);
  EXPECT_TRUE(again.enrolled);
  EXPECT_THAT(journal_, IsEmpty());

  auto moved = enrolment_->handle(request_for("web", "10.0.0.5", "web-second"));
  ASSERT_FALSE(moved.error) << moved.error->message();
  EXPECT_THAT(journal_, ElementsAre("remove_pod 0", "unset_pod 0", "set_pod 0 enrolled pass",
                                    "add_pod 0 as Kubernetes//Pod/shop/web"));
  EXPECT_EQ(enrolment_->pods().size(), 1U);
}

TEST_F(EnrolmentTest, RefusesAnAddressThatALivePodHasAndTakesItFromAGoneOne) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("a", "10.0.0.9")).error);
  const auto refused = enrolment_->handle(request_for("b", "10.0.0.9"));
  ASSERT_TRUE(refused.error);
  EXPECT_THAT(refused.error->message(), HasSubstr("slots 0 and 1"));
  EXPECT_EQ(state_of_pod("b"), "absent");

  std::filesystem::remove(netns_path("a"));
  EXPECT_FALSE(enrolment_->handle(request_for("b", "10.0.0.9")).error);
  EXPECT_EQ(state_of_pod("a"), "absent");
}

TEST_F(EnrolmentTest, RefusesMorePodsThanSlotsAndReusesFreedOnes) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("a", "10.0.0.1")).error);
  ASSERT_FALSE(enrolment_->handle(request_for("b", "10.0.0.2")).error);
  ASSERT_FALSE(enrolment_->handle(request_for("c", "10.0.0.3")).error);
  const auto full = enrolment_->handle(request_for("d", "10.0.0.4"));
  ASSERT_TRUE(full.error);
  EXPECT_EQ(full.error->code, ErrorCode::kUnavailable);
  ASSERT_FALSE(send(cni::Verb::kUnregister, "b").error);
  ASSERT_FALSE(enrolment_->handle(request_for("d", "10.0.0.4")).error);
  EXPECT_EQ(capture_.by_slot.at(1).addresses, std::vector{ip("10.0.0.4")});
}

TEST_F(EnrolmentTest, AddsDestinationsBeforeTheSnapshotAndRemovesAfter) {
  enrolment_->apply(state_of({hbone_workload("old", {ip("10.0.0.1")})}));
  journal_.clear();
  enrolment_->apply(state_of({hbone_workload("new", {ip("10.0.0.2")})}));
  EXPECT_THAT(journal_, ElementsAre("destinations 10.0.0.1 10.0.0.2", "state", "destinations 10.0.0.2"));
}

TEST_F(EnrolmentTest, WritesDestinationsWhereTheyChange) {
  auto web = hbone_workload("web", {ip("10.0.0.5")});
  enrolment_->apply(state_of({web}));
  journal_.clear();
  web.status = state::HealthStatus::kUnhealthy;
  enrolment_->apply(state_of({web}));
  EXPECT_THAT(journal_, ElementsAre("state"));

  // Another agent that was to take over has written others.
  enrolment_->hold();
  web.status = state::HealthStatus::kHealthy;
  enrolment_->apply(state_of({web}));
  journal_.clear();
  enrolment_->go_on();
  EXPECT_THAT(journal_, Contains("destinations 10.0.0.5"));

  // It may have, also where nothing has changed.
  enrolment_->hold();
  journal_.clear();
  enrolment_->go_on();
  EXPECT_THAT(journal_, ElementsAre("destinations 10.0.0.5"));
}

TEST_F(EnrolmentTest, EnrolsAndUnenrolsWiredPods) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  journal_.clear();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_LT(position("destinations 10.0.0.5"), position("set_pod 0 enrolled pass"));
  EXPECT_LT(position("add_pod 0 as Kubernetes//Pod/shop/web"), position("state")) << "it takes what the workers send";
  EXPECT_EQ(wanted_.size(), 1U);

  journal_.clear();
  auto plain = hbone_workload("web", {ip("10.0.0.5")});
  plain.protocol = state::TunnelProtocol::kTcp;
  enrolment_->apply(state_of({plain}));
  EXPECT_EQ(state_of_pod("web"), "leaving");
  EXPECT_THAT(journal_, ElementsAre("state", "set_pod 0 leaving pass", "destinations")) << "what lives goes on";
  EXPECT_EQ(wanted_.size(), 1U) << "peers may still call it";
}

TEST_F(EnrolmentTest, ChecksPlaintextBeforeTheWorkersKnowThePolicyAndPassesAfter) {
  const auto workload = hbone_workload("web", {ip("10.0.0.5")});
  enrolment_->apply(state_of({workload}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  journal_.clear();
  enrolment_->apply(state_of({workload}, {test::namespace_policy("deny")}));
  EXPECT_LT(position("set_pod 0 enrolled check"), position("state"));
  journal_.clear();
  enrolment_->apply(state_of({workload}));
  EXPECT_LT(position("state"), position("set_pod 0 enrolled pass"));
  EXPECT_THAT(journal_, Contains("set_pod 0 enrolled pass"));
}

TEST_F(EnrolmentTest, DropsBeforeTheWorkersKnowThePolicyAndChecksAgainOnlyAfter) {
  const auto workload = hbone_workload("web", {ip("10.0.0.5")});
  enrolment_->apply(state_of({workload}, {test::namespace_policy("deny")}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  journal_.clear();
  enrolment_->apply(state_of({workload}, {test::strict_policy()}));
  EXPECT_LT(position("set_pod 0 enrolled drop"), position("state"));
  journal_.clear();
  enrolment_->apply(state_of({workload}, {test::namespace_policy("deny")}));
  EXPECT_LT(position("state"), position("set_pod 0 enrolled check"));
  EXPECT_THAT(journal_, Contains("set_pod 0 enrolled check"));
}

TEST_F(EnrolmentTest, CutsLivePlaintextThatAChangeDeniesAndNothingElse) {
  const auto workload = hbone_workload("web", {ip("10.0.0.5")});
  const auto at = [](const char* text) { return Endpoint::parse(text).value(); };
  enrolment_->apply(state_of({workload}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  netns_.live = {{at("10.0.0.5:9"), at("10.0.0.6:1000")}, {at("10.0.0.5:80"), at("10.0.0.6:1001")}};
  enrolment_->apply(state_of({workload}));
  EXPECT_EQ(netns_.looks, 0) << "nothing denies anything";
  enrolment_->apply(state_of({workload}, {test::namespace_policy("deny-9")}));
  enrolment_->apply(state_of({workload}, {test::namespace_policy("deny-9")}));
  EXPECT_EQ(netns_.looks, 1) << "the second time no policy has changed";
  EXPECT_THAT(netns_.live, testing::ElementsAre(testing::Pair(at("10.0.0.5:80"), at("10.0.0.6:1001"))));
  enrolment_->apply(state_of({workload}, {test::strict_policy()}));
  EXPECT_THAT(netns_.live, IsEmpty());
  // What is there although nothing could come in is older than the pod's enrolment.
  netns_.live = {{at("10.0.0.5:80"), at("10.0.0.6:1002")}};
  enrolment_->apply(state_of({workload}, {test::strict_policy(), test::namespace_policy("deny-9")}));
  EXPECT_EQ(netns_.live.size(), 1U);
}

TEST_F(EnrolmentTest, APodThatBypassesPassesPlaintextAlsoAfterARestart) {
  const auto state = state_of({hbone_workload("web", {ip("10.0.0.5")})}, {test::strict_policy()});
  enrolment_->apply(state);
  auto request = request_for("web", "10.0.0.5");
  request.annotations = {{std::string(cni::kBypassInbound), "true"}};
  ASSERT_TRUE(enrolment_->handle(std::move(request)).enrolled);
  EXPECT_EQ(capture_.by_slot[0].inbound, bpf::InboundPlaintext::kPass);
  start_agent();
  EXPECT_EQ(capture_.by_slot[0].inbound, bpf::InboundPlaintext::kPass);
  EXPECT_TRUE(capture_.by_slot[0].enrolled);
  enrolment_->apply(state);
  EXPECT_EQ(capture_.by_slot[0].inbound, bpf::InboundPlaintext::kPass);
  // Any other value is none.
  auto other = request_for("web", "10.0.0.5", "another");
  other.annotations = {{std::string(cni::kBypassInbound), "yes"}};
  ASSERT_TRUE(enrolment_->handle(std::move(other)).enrolled);
  EXPECT_EQ(capture_.by_slot[0].inbound, bpf::InboundPlaintext::kDrop);
}

TEST_F(EnrolmentTest, APodSaysWhetherItsDnsIsCaptured) {
  const auto in = state_of({hbone_workload("web", {ip("10.0.0.5")})});
  enrolment_->apply(in);
  const auto enrolled_with = [&](const std::string& value) {
    auto request = request_for("web", "10.0.0.5", "netns" + value);
    if (!value.empty()) request.annotations = {{std::string(cni::kDnsCapture), value}};
    EXPECT_TRUE(enrolment_->handle(std::move(request)).enrolled);
    EXPECT_EQ(data_plane_.by_slot.at(0)->dns, capture_.by_slot.at(0).dns) << value;
    EXPECT_EQ(capture_.dns_sockets[0].size(), capture_.by_slot.at(0).dns ? 4U : 0U) << "two workers, two families";
    return capture_.by_slot.at(0).dns;
  };
  EXPECT_TRUE(enrolled_with("true"));
  EXPECT_FALSE(enrolled_with("false"));
  EXPECT_FALSE(enrolled_with("yes"));
  EXPECT_FALSE(enrolled_with(""));
  dns_capture_ = true;
  start_agent();
  EXPECT_TRUE(capture_.by_slot.at(0).dns) << "the agent's default is no part of the record";
  enrolment_->apply(in);
  EXPECT_FALSE(enrolled_with("false"));
  EXPECT_TRUE(enrolled_with("yes"));
  netns_.has_v6 = false;
  EXPECT_EQ(data_plane_.dns_sockets % 2, 0);
  auto request = request_for("web", "10.0.0.5", "without-v6");
  ASSERT_TRUE(enrolment_->handle(std::move(request)).enrolled);
  EXPECT_THAT(capture_.dns_sockets[0], ElementsAre(std::pair{4, 0U}, std::pair{4, 1U}));
  // Outside the mesh it has its own.
  enrolment_->apply(state_of({}));
  EXPECT_FALSE(capture_.by_slot.at(0).dns);
}

TEST_F(EnrolmentTest, KeepsAnEnrolledPodWhoseWorkloadChangesItsAddresses) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.6")})}));
  EXPECT_EQ(state_of_pod("web"), "refused");
  EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  EXPECT_TRUE(data_plane_.by_slot.contains(0));
}

TEST_F(EnrolmentTest, CapturesAPodBeforeTheFirstStateAndThenDecides) {
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  ASSERT_TRUE(enrolment_->handle(request_for("plain", "10.0.0.9")).enrolled);
  EXPECT_EQ(state_of_pod("web"), "pending");
  EXPECT_EQ(capture_.by_slot.at(0).inbound, bpf::InboundPlaintext::kCheck);
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_EQ(data_plane_.by_slot.at(0)->workload_uid, "Kubernetes//Pod/shop/web");
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_EQ(state_of_pod("plain"), "wired");
  EXPECT_FALSE(capture_.by_slot.at(1).enrolled);
}

TEST_F(EnrolmentTest, StaysClosedWhenListenersFailAndTriesAgain) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  netns_.fail_listeners = true;
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_EQ(state_of_pod("web"), "failed");
  EXPECT_TRUE(capture_.by_slot.at(0).enrolled);
  netns_.fail_listeners = false;
  enrolment_->sweep();
  EXPECT_EQ(state_of_pod("web"), "enrolled");

  netns_.fail_listeners = true;
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")}), hbone_workload("b", {ip("10.0.0.6")})}));
  const auto refused = enrolment_->handle(request_for("b", "10.0.0.6"));
  ASSERT_TRUE(refused.error);
  EXPECT_FALSE(capture_.by_slot.contains(1));
}

TEST_F(EnrolmentTest, TheRegistryIsOpenBeforeTheWorkersKnowAndClosedAfterThem) {
  egress_ = {.registry_only = true, .exempt = {Cidr::parse("192.0.2.0/24").value()}};
  start_agent();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_LT(position("registry 10.0.0.5 192.0.2.0/24"), position("state"));
  journal_.clear();
  enrolment_->apply(state_of({hbone_workload("b", {ip("10.0.0.6")})}));
  EXPECT_LT(position("registry 10.0.0.5 10.0.0.6 192.0.2.0/24"), position("state"));
  EXPECT_LT(position("state"), position("registry 10.0.0.6 192.0.2.0/24"));
  EXPECT_LT(position("registry 10.0.0.6 192.0.2.0/24"), journal_.size());
}

TEST_F(EnrolmentTest, ARegistryThatCannotBeWrittenIsTriedAgain) {
  egress_.registry_only = true;
  start_agent();
  capture_.fail_registry = ErrorCode::kInternal;
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  capture_.fail_registry.reset();
  journal_.clear();
  enrolment_->sweep();
  EXPECT_LT(position("registry 10.0.0.5"), journal_.size());
  journal_.clear();
  enrolment_->sweep();
  EXPECT_EQ(position("registry 10.0.0.5"), journal_.size());
}

TEST_F(EnrolmentTest, WithoutThePolicyThereIsNoRegistry) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  for (const auto& entry : journal_) EXPECT_FALSE(entry.starts_with("registry")) << entry;
}

TEST_F(EnrolmentTest, CapturesEverythingWhileDestinationsCannotBeWritten) {
  capture_.fail_destinations = ErrorCode::kInternal;
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_TRUE(capture_.capture_all);
  EXPECT_TRUE(enrolment_->captures_all());
  capture_.fail_destinations.reset();
  enrolment_->sweep();
  EXPECT_FALSE(capture_.capture_all);
  EXPECT_FALSE(enrolment_->captures_all());
  // Too many: the maps themselves capture everything then.
  capture_.fail_destinations = ErrorCode::kUnavailable;
  enrolment_->apply(state_of({}));
  EXPECT_FALSE(capture_.capture_all);
  EXPECT_TRUE(enrolment_->captures_all());
  capture_.fail_destinations = ErrorCode::kInternal;
  enrolment_->apply(state_of({}));
  EXPECT_TRUE(capture_.capture_all);
}

TEST_F(EnrolmentTest, DropsPodsWhoseNetnsIsGone) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  enrolment_->sweep();
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  std::filesystem::remove(netns_path("web"));
  enrolment_->sweep();
  EXPECT_EQ(state_of_pod("web"), "absent");
  EXPECT_THAT(capture_.by_slot, IsEmpty());
  EXPECT_THAT(data_plane_.by_slot, IsEmpty());
  EXPECT_THAT(wanted_, IsEmpty());
}

TEST_F(EnrolmentTest, ARestartTakesUpWhatIsThereAndDropsWhatIsNot) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")}), hbone_workload("gone", {ip("10.0.0.7")})}));
  ASSERT_TRUE(enrolment_->handle(request_for("gone", "10.0.0.7")).enrolled);
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  ASSERT_FALSE(enrolment_->handle(request_for("plain", "10.0.0.9")).enrolled);
  std::filesystem::remove(netns_path("gone"));
  capture_.listeners.clear();  // they died with the process

  start_agent();
  EXPECT_TRUE(capture_.capture_all);
  EXPECT_EQ(state_of_pod("gone"), "absent");
  EXPECT_FALSE(capture_.by_slot.contains(0));
  EXPECT_EQ(capture_.listeners.at(1).size(), 3U * data_plane_.workers());
  EXPECT_EQ(data_plane_.by_slot.at(1)->workload_uid, "Kubernetes//Pod/shop/web");
  EXPECT_FALSE(capture_.by_slot.at(2).enrolled);
  EXPECT_FALSE(capture_.listeners.contains(2));

  journal_.clear();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_EQ(state_of_pod("web"), "enrolled");
  EXPECT_EQ(state_of_pod("plain"), "wired");
  EXPECT_THAT(journal_, Not(Contains(HasSubstr("add_pod"))));  // the connections since the restart live on
}

TEST_F(EnrolmentTest, ARestartRemovesMapEntriesWithoutARecord) {
  capture_.by_slot[2] = {.slot = 2, .addresses = {ip("10.0.0.99")}, .host_ifindex = 5, .enrolled = true};
  start_agent();
  EXPECT_THAT(capture_.by_slot, IsEmpty());
}

TEST_F(EnrolmentTest, UnregisterNeverFailsAndForgets) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_FALSE(send(cni::Verb::kUnregister, "web").error);
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  journal_.clear();
  data_plane_.answers = false;
  const auto reply = send(cni::Verb::kUnregister, "web");
  EXPECT_FALSE(reply.error);
  EXPECT_THAT(reply.notes, Contains(HasSubstr("did not let it go")));
  EXPECT_THAT(journal_, ElementsAre("remove_pod 0", "unset_pod 0"));
  start_agent();
  EXPECT_THAT(enrolment_->pods(), IsEmpty());
}

TEST_F(EnrolmentTest, CheckComparesWithTheNetnsAndTheMaps) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  auto unknown = send(cni::Verb::kCheck, "web");
  ASSERT_TRUE(unknown.error);
  EXPECT_EQ(unknown.error->code, ErrorCode::kNotFound);
  ASSERT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  EXPECT_FALSE(send(cni::Verb::kCheck, "web").error);
  EXPECT_TRUE(send(cni::Verb::kCheck, "web").enrolled);

  cni::Request other;
  other.verb = cni::Verb::kCheck;
  other.key = {"container-web", "eth0"};
  other.netns_inode = 1;
  EXPECT_TRUE(enrolment_->handle(std::move(other)).error);
  const auto open = std::exchange(capture_.listeners, {});
  const auto deaf = send(cni::Verb::kCheck, "web");
  ASSERT_TRUE(deaf.error);
  EXPECT_THAT(deaf.error->message(), HasSubstr("0 of its"));
  capture_.listeners = open;
  EXPECT_FALSE(send(cni::Verb::kCheck, "web").error);
  capture_.by_slot.clear();
  EXPECT_TRUE(send(cni::Verb::kCheck, "web").error);
}

TEST_F(EnrolmentTest, GcKeepsWhatIsListed) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("a", "10.0.0.1")).error);
  ASSERT_FALSE(enrolment_->handle(request_for("b", "10.0.0.2")).error);
  cni::Request request;
  request.verb = cni::Verb::kGc;
  request.valid = {{"container-b", "eth0"}, {"container-x", "eth0"}};
  const auto reply = enrolment_->handle(std::move(request));
  EXPECT_FALSE(reply.error);
  EXPECT_THAT(reply.notes, Contains(HasSubstr("container-a/eth0")));
  EXPECT_EQ(state_of_pod("a"), "absent");
  EXPECT_EQ(state_of_pod("b"), "wired");
}

TEST_F(EnrolmentTest, FurtherInterfacesOfAPodAreWhatItsFirstOneIs) {
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  EXPECT_TRUE(enrolment_->handle(request_for("web", "10.0.0.5")).enrolled);
  cni::Request second = request_for("web", "10.9.0.5");
  second.key.if_name = "net1";
  second.ifindex = 3;
  second.host_ifindex = 18;
  const cni::Reply reply = enrolment_->handle(std::move(second));
  ASSERT_FALSE(reply.error) << reply.error->message();
  EXPECT_TRUE(reply.enrolled);
  EXPECT_EQ(capture_.by_slot.size(), 2U);
  // A new workload of other addresses fits neither; one that is no workload any more takes both out.
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.6")})}));
  for (const auto& pod : enrolment_->pods()) EXPECT_EQ(pod.state, "refused");
  enrolment_->apply(state_of({}));
  for (const auto& [slot, pod] : capture_.by_slot) EXPECT_FALSE(pod.enrolled);
  start_agent();
  enrolment_->apply(state_of({hbone_workload("web", {ip("10.0.0.5")})}));
  for (const auto& pod : enrolment_->pods()) {
    EXPECT_EQ(pod.state, "enrolled");
    EXPECT_EQ(pod.registration.secondary, pod.registration.key.if_name == "net1");
  }
}

TEST_F(EnrolmentTest, ANetnsBelongsToOnePod) {
  enrolment_->apply(state_of({}));
  EXPECT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5", "one")).error);
  const cni::Reply reply = enrolment_->handle(request_for("db", "10.0.0.6", "one"));
  ASSERT_TRUE(reply.error);
  EXPECT_THAT(reply.error->message(), HasSubstr("is registered as pod shop/web"));
}

TEST_F(EnrolmentTest, ObservationsAreShownAndStrangersRemoved) {
  enrolment_->apply(state_of({}));
  ASSERT_FALSE(enrolment_->handle(request_for("web", "10.0.0.5")).error);
  enrolment_->observe({"container-web", "eth0"}, {.problems = {"p"}, .uncaptured = {"net1"}, .rerouted = {}});
  enrolment_->observe({"container-none", "eth0"}, {.problems = {"q"}, .uncaptured = {}, .rerouted = {}});
  EXPECT_THAT(enrolment_->pods().at(0).observation.uncaptured, ElementsAre("net1"));
  const auto age = Clock::real().wall_now() - enrolment_->pods().at(0).registration.registered_at;
  EXPECT_LT(std::chrono::abs(age), std::chrono::minutes(1));
  capture_.by_slot[2] = {.slot = 2, .addresses = {ip("10.0.0.9")}, .host_ifindex = 0};
  EXPECT_EQ(enrolment_->drop_strangers().value(), 1U);
  EXPECT_EQ(capture_.by_slot.size(), 1U);
}

}  // namespace
}  // namespace weft::agent
