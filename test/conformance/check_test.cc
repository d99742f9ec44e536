// SPDX-License-Identifier: Apache-2.0
// Lines 12 and 14 of the contract: CHECK and STATUS.
#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

class CheckTest : public PodTest {
 protected:
  void SetUp() override {
    PodTest::SetUp();
    if (IsSkipped()) return;
    load_programs();
    must_add();
  }
  void expect_finding(const std::string& text) const { expect_error(call("CHECK", conf_with_result()), 103, text); }
};

TEST_F(CheckTest, T12_AWiredPodIsWell) {
  for (const char* version : {"0.4.0", "1.0.0", "1.1.0"})
    expect_silent_success(call("CHECK", conf_with_result(version)));
}

TEST_F(CheckTest, T12_AMissingProgramIsFound) {
  WEFT_OWN();
  std::string folder = bpf_root() + "/links/" + attachments().at(0);
  ASSERT_EQ(::unlink((folder + "/guard").c_str()), 0);
  expect_finding("guard");
}

TEST_F(CheckTest, T12_APodThatWasNeverAddedIsFound) {
  WEFT_OWN();
  expect_silent_success(call("DEL", conf()));
  expect_finding("captured");
}

TEST_F(CheckTest, T12_AMissingRegistrationIsFound) {
  WEFT_OWN();
  agent_->forget(key());
  expect_error(call("CHECK", conf_with_result()), 100, "not registered");
}

TEST_F(CheckTest, T12_ARegistrationOfAnotherNetnsIsFound) {
  WEFT_OWN();
  agent_->set_handler([](const std::string& text, const Fd&) {
    cni::Reply reply;
    const auto request = cni::parse_request(text);
    if (!request || request->netns_inode != 1) reply.error = Error{ErrorCode::kInvalid, 0, "registered with inode 1"};
    return FakeAgent::Answer{FakeAgent::Answer::Kind::kReply, encode(reply)};
  });
  expect_error(call("CHECK", conf_with_result()), 100, "inode 1");
}

TEST_F(CheckTest, T12_AnAgentThatIsAwayIsTold) {
  WEFT_OWN();
  stop_agent();
  expect_error(call("CHECK", conf_with_result()), 11, "is weft-agent running");
}

TEST_F(CheckTest, T12_RulesAreChecked) {
  WEFT_OWN();
  pod_->ip("rule del pref 1");
  expect_finding("the IPv4 rule for the capture mark is missing");
  must_add();
  pod_->ip("-6 rule del pref 1");
  expect_finding("the IPv6 rule for the capture mark is missing");
  must_add();
  pod_->ip("rule add pref 0 from all lookup main");
  expect_finding("an IPv4 rule of priority 0 stands before");
}

TEST_F(CheckTest, T12_RoutesAreChecked) {
  WEFT_OWN();
  pod_->ip("route flush table 1500");
  expect_finding("the IPv4 local default route of table 1500 is missing");
  must_add();
  pod_->ip("-6 route flush table 1500");
  expect_finding("the IPv6 local default route of table 1500 is missing");
  must_add();
  pod_->ip("route add unreachable 10.99.0.0/16 table 1500");
  expect_finding("table 1500 has other IPv4 routes");
}

TEST_F(CheckTest, T12_TogglingIPv6IsFound) {
  WEFT_OWN();
  pod_->sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
  expect_finding("lo has no IPv6");
  pod_->sysctl("net/ipv6/conf/lo/disable_ipv6", "0");
  expect_finding("IPv6 local default route");
}

TEST_F(CheckTest, T12_LoAndAcceptLocalAreChecked) {
  WEFT_OWN();
  pod_->sysctl("net/ipv4/conf/lo/accept_local", "0");
  expect_finding("accept_local");
  must_add();
  pod_->ip("link set lo down");
  expect_finding("lo is down");
}

TEST_F(CheckTest, T12_AllFindingsAreInTheDetails) {
  WEFT_OWN();
  pod_->ip("rule del pref 1");
  pod_->ip("-6 rule del pref 1");
  const Json error = expect_error(call("CHECK", conf_with_result()), 103);
  EXPECT_THAT(cni::text_member(error, "details"), testing::AllOf(HasSubstr("IPv4 rule"), HasSubstr("IPv6 rule")));
}

TEST_F(CheckTest, T12_AnInterfaceThatIsGoneIsFound) {
  WEFT_OWN();
  pod_->ip("link del eth0");
  expect_finding("no interface eth0");
}

TEST_F(CheckTest, T12_ExcludedPodsAreWell) {
  WEFT_OWN();
  stop_agent();
  Invocation check = invocation("CHECK", conf_with_result());
  check.variables["CNI_ARGS"] = "K8S_POD_NAMESPACE=kube-system";
  expect_silent_success(call_plugin(check));
}

class StatusTest : public PodTest {
 protected:
  [[nodiscard]] Finished status(const Json& conf) const {
    Invocation call = invocation("STATUS", conf);
    for (const char* name : {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"}) call.variables[name] = "";
    return call_plugin(call);
  }
};

TEST_F(StatusTest, T14_ReadyWithAgentAndPrograms) {
  load_programs();
  expect_silent_success(status(conf()));
}

TEST_F(StatusTest, T14_NotAvailableWithoutTheAgent) {
  WEFT_OWN();
  load_programs();
  stop_agent();
  expect_error(status(conf()), 50, "is weft-agent running");
}

TEST_F(StatusTest, T14_LimitedConnectivityWhenPodsAreWired) {
  WEFT_OWN();
  load_programs();
  must_add();
  stop_agent();
  expect_error(status(conf()), 51);
}

TEST_F(StatusTest, T14_NotAvailableWhileTheAgentStarts) {
  WEFT_OWN();
  load_programs();
  agent_->refuse_all(ErrorCode::kUnavailable, "no snapshot yet");
  expect_error(status(conf()), 50, "no snapshot yet");
}

TEST_F(StatusTest, T14_NotAvailableWithoutPrograms) {
  WEFT_OWN();
  expect_error(status(conf()), 50, bpf_root());
}

TEST_F(StatusTest, T14_AnOpenPolicyServesWithoutTheAgent) {
  WEFT_OWN();
  stop_agent();
  Json conf = this->conf();
  conf["failurePolicy"] = "open";
  const Finished finished = status(conf);
  expect_silent_success(finished);
  EXPECT_THAT(finished.err, HasSubstr("agent away"));
}

}  // namespace
}  // namespace weft::test
