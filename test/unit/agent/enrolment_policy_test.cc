// SPDX-License-Identifier: Apache-2.0
#include "agent/enrolment_policy.h"

#include <gmock/gmock.h>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using test::hbone_workload;
using test::ip;
using test::state_of;
using ::testing::HasSubstr;
using Kind = Decision::Kind;

const PodFacts kPod{"shop", "web", {ip("10.0.0.5"), ip("fd00::5")}, {}, false};

Decision decide_with(state::Workload workload, const PodFacts& pod = kPod) {
  return decide(state_of({std::move(workload)}).get(), pod, "n1");
}

state::Workload fitting() { return hbone_workload("web", {ip("fd00::5"), ip("10.0.0.5")}); }

TEST(EnrolmentPolicy, EnrolsAnHboneWorkloadOfThisNode) {
  const Decision d = decide_with(fitting());
  EXPECT_EQ(d.kind, Kind::kEnrol);
  ASSERT_TRUE(d.workload);
  EXPECT_EQ(d.workload->uid, "Kubernetes//Pod/shop/web");
  EXPECT_EQ(d.inbound, bpf::InboundPlaintext::kPass);
}

TEST(EnrolmentPolicy, EnrolsAWorkloadWithoutANode) {
  auto workload = fitting();
  workload.node.clear();
  EXPECT_EQ(decide_with(workload).kind, Kind::kEnrol);
}

TEST(EnrolmentPolicy, ChecksPlaintextWherePoliciesApply) {
  const auto state = state_of({fitting()}, {test::namespace_policy("deny")});
  EXPECT_EQ(decide(state.get(), kPod, "n1").inbound, bpf::InboundPlaintext::kCheck);
}

TEST(EnrolmentPolicy, ChecksPlaintextWhereANamedPolicyIsUnknown) {
  auto workload = fitting();
  workload.authorization_policies = {"shop/not-received"};
  EXPECT_EQ(decide_with(workload).inbound, bpf::InboundPlaintext::kCheck);
}

TEST(EnrolmentPolicy, DropsPlaintextWhereNoneIsLetIn) {
  const auto state = state_of({fitting()}, {test::strict_policy()});
  EXPECT_EQ(decide(state.get(), kPod, "n1").inbound, bpf::InboundPlaintext::kDrop);
}

TEST(EnrolmentPolicy, PoliciesCountForAPodThatDoesNotFitItsWorkload) {
  const auto state = state_of({fitting()}, {test::strict_policy()});
  PodFacts moved = kPod;
  moved.addresses = {ip("10.0.0.6")};
  const Decision d = decide(state.get(), moved, "n1");
  EXPECT_EQ(d.kind, Kind::kRefused);
  EXPECT_EQ(d.inbound, bpf::InboundPlaintext::kDrop);
}

TEST(EnrolmentPolicy, TheBypassLetsPlaintextInWhateverThePolicies) {
  PodFacts bypass = kPod;
  bypass.inbound_bypass = true;
  const auto state = state_of({fitting()}, {test::strict_policy(), test::namespace_policy("deny")});
  EXPECT_EQ(decide(state.get(), bypass, "n1").inbound, bpf::InboundPlaintext::kPass);
  EXPECT_EQ(decide(state.get(), bypass, "n1").kind, Kind::kEnrol);
  EXPECT_EQ(decide(nullptr, bypass, "n1").inbound, bpf::InboundPlaintext::kPass);
  EXPECT_EQ(decide(nullptr, bypass, "n1").kind, Kind::kPending);
}

TEST(EnrolmentPolicy, LeavesAPodAloneThatIsNoWorkload) {
  const Decision d = decide_with(fitting(), {"shop", "other", {ip("10.0.0.5")}, {}, false});
  EXPECT_EQ(d.kind, Kind::kPlain);
  EXPECT_THAT(d.reason, HasSubstr("shop/other is not a workload"));
  EXPECT_EQ(decide_with(fitting(), {"elsewhere", "web", kPod.addresses, {}, false}).kind, Kind::kPlain);
}

TEST(EnrolmentPolicy, LeavesAlone) {
  auto tcp = fitting(), elsewhere = fitting(), host = fitting(), native = fitting();
  tcp.protocol = state::TunnelProtocol::kTcp;
  elsewhere.node = "n2";
  host.network_mode = state::NetworkMode::kHostNetwork;
  native.native_tunnel = true;
  EXPECT_THAT(decide_with(tcp).reason, HasSubstr("protocol TCP"));
  EXPECT_THAT(decide_with(elsewhere).reason, HasSubstr("on node n2, this is node n1"));
  EXPECT_THAT(decide_with(host).reason, HasSubstr("host's network"));
  EXPECT_THAT(decide_with(native).reason, HasSubstr("nativeTunnel"));
  for (const auto& workload : {tcp, elsewhere, host, native}) EXPECT_EQ(decide_with(workload).kind, Kind::kPlain);
}

TEST(EnrolmentPolicy, RefusesOtherAddressesAndNamesBoth) {
  for (const auto& addresses : {std::vector{ip("10.0.0.6")}, std::vector{ip("10.0.0.5")}, std::vector<IpAddress>{}}) {
    const Decision d = decide_with(fitting(), {"shop", "web", addresses, {}, false});
    EXPECT_EQ(d.kind, Kind::kRefused);
    EXPECT_THAT(d.reason, HasSubstr("workloadIps 10.0.0.5, fd00::5"));
    EXPECT_THAT(d.reason, HasSubstr("has the addresses " + (addresses.empty() ? "none" : addresses[0].to_string())));
  }
}

TEST(EnrolmentPolicy, IsPendingBeforeTheFirstState) {
  const Decision d = decide(nullptr, kPod, "n1");
  EXPECT_EQ(d.kind, Kind::kPending);
  EXPECT_EQ(d.inbound, bpf::InboundPlaintext::kCheck);
}

PodFacts selected(Selection::Kind kind) {
  PodFacts pod = kPod;
  pod.selection = Selection{kind, "as it was said"};
  pod.expected_uid = "Kubernetes//Pod/shop/web";
  return pod;
}

TEST(EnrolmentSelection, ASelectedPodIsItsWorkloadWhateverTheProtocol) {
  auto tcp = fitting();
  tcp.protocol = state::TunnelProtocol::kTcp;
  const Decision d = decide_with(tcp, selected(Selection::Kind::kSelected));
  EXPECT_EQ(d.kind, Kind::kEnrol);
  EXPECT_EQ(d.workload_uid, tcp.uid);
  EXPECT_EQ(decide(state_of({tcp}, {test::strict_policy()}).get(), selected(Selection::Kind::kSelected), "n1").inbound,
            bpf::InboundPlaintext::kDrop);
}

TEST(EnrolmentSelection, APodThatIsNotSelectedIsLeftAloneWhateverItsWorkload) {
  for (const auto kind : {Selection::Kind::kNotSelected, Selection::Kind::kUnsaid, Selection::Kind::kLeaving}) {
    const Decision d = decide_with(fitting(), selected(kind));
    EXPECT_EQ(d.kind, Kind::kPlain);
    EXPECT_THAT(d.reason, HasSubstr("as it was said"));
    EXPECT_EQ(decide(nullptr, selected(kind), "n1").kind, Kind::kPlain) << "nor does it wait for the control plane";
  }
}

TEST(EnrolmentSelection, ASelectedPodWaitsForItsWorkloadAndForItsAddresses) {
  const PodFacts pod = selected(Selection::Kind::kSelected);
  auto moved = fitting();
  moved.addresses = {ip("10.0.0.6")};
  for (const Decision& d : {decide(nullptr, pod, "n1"), decide(state_of({}).get(), pod, "n1"),
                            decide(state_of({moved}).get(), pod, "n1")}) {
    EXPECT_EQ(d.kind, Kind::kPending) << d.reason;
    EXPECT_EQ(d.workload_uid, pod.expected_uid);
    EXPECT_EQ(d.inbound, bpf::InboundPlaintext::kCheck);
  }
  EXPECT_THAT(decide(state_of({moved}).get(), pod, "n1").reason, HasSubstr("the addresses 10.0.0.6"));
}

TEST(EnrolmentSelection, SelectedAndNotTheAgentsToCarryIsLeftAloneWithAReason) {
  auto native = fitting();
  native.native_tunnel = true;
  const Decision d = decide_with(native, selected(Selection::Kind::kSelected));
  EXPECT_EQ(d.kind, Kind::kPlain);
  EXPECT_THAT(d.reason, HasSubstr("nativeTunnel"));
}

}  // namespace
}  // namespace weft::agent
