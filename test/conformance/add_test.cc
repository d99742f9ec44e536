// SPDX-License-Identifier: Apache-2.0
// Lines 8 to 10 and 15 of the contract: ADD.
#include <thread>

#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int kHooks = 5;  // from_pod, to_pod, deliver, to_pod_host, guard

class AddTest : public PodTest {};

TEST_F(AddTest, T08_TheResultIsPrevResultInEveryVersion) {
  load_programs();
  for (const char* version : {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    const Json conf = conf_with_result(version);
    SCOPED_TRACE(version);
    expect_result(call("ADD", conf), conf["prevResult"]);
  }
}

TEST_F(AddTest, T08_TheVersionIsTheConfiguredOne) {
  WEFT_OWN();  // runtimes convert prevResult before, and reference plugins rely on that
  load_programs();
  Json conf = conf_with_result("1.0.0");
  conf["prevResult"]["cniVersion"] = "0.4.0";
  Json expected = conf["prevResult"];
  expected["cniVersion"] = "1.0.0";
  expect_result(call("ADD", conf), expected);
}

TEST_F(AddTest, T08_ThePodIsWired) {
  WEFT_OWN();
  load_real_programs();
  pod_->ip("link set lo down");
  must_add();
  EXPECT_EQ(all_programs(), kHooks);
  EXPECT_EQ(programs_on(*pod_, "eth0"), 2);
  EXPECT_EQ(programs_on(*pod_, "lo"), 1);
  EXPECT_EQ(programs_on(*host_, kHostSide), 2);
  EXPECT_EQ(attachments().size(), 1U);
  EXPECT_THAT(pod_->ip("rule show"), HasSubstr("1:\tfrom all fwmark 0x1000/0x1000 lookup 1500"));
  EXPECT_THAT(pod_->ip("-6 rule show"), HasSubstr("1:\tfrom all fwmark 0x1000/0x1000 lookup 1500"));
  EXPECT_THAT(pod_->ip("route show table 1500"), HasSubstr("local default dev lo"));
  EXPECT_THAT(pod_->ip("-6 route show table 1500"), HasSubstr("local default dev lo"));
  EXPECT_THAT(pod_->ip("link show lo"), HasSubstr("UP"));
  EXPECT_EQ(run_in(*pod_, [] { return read_file("/proc/sys/net/ipv4/conf/lo/accept_local"); }), "1\n");
  EXPECT_EQ(agent_->registrations().at(key()), pod_->inode());
  expect_silent_success(call("CHECK", conf_with_result()));
  expect_silent_success(call("DEL", conf_with_result()));
  EXPECT_EQ(all_programs(), 0);
}

TEST_F(AddTest, T08_TheAgentIsToldWhoThePodIs) {
  WEFT_OWN();
  load_programs();
  must_add();
  const auto requests = agent_->requests();
  ASSERT_EQ(requests.size(), 1U);
  const auto request = cni::parse_request(requests[0]);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->verb, cni::Verb::kRegister);
  EXPECT_EQ(request->key, key());
  EXPECT_EQ(request->netns, pod_->path());
  EXPECT_EQ(request->pod_namespace, "shop");
  EXPECT_EQ(request->pod_name, "web-0");
  EXPECT_EQ(request->pod_uid, "7b");
  EXPECT_EQ(request->addresses,
            (std::vector{IpAddress::parse("10.77.0.2").value(), IpAddress::parse("fd77::2").value()}));
  const std::string host_link = host_->ip(std::string("-o link show ") + kHostSide);
  EXPECT_EQ(std::to_string(request->host_ifindex), host_link.substr(0, host_link.find(':')));
}

TEST_F(AddTest, T08_ThePodIsRegisteredBeforeItIsWired) {
  WEFT_OWN();
  load_programs();
  int programs_then = -1;
  agent_->set_handler([&](const std::string&, const Fd&) {
    programs_then = all_programs();
    return FakeAgent::Answer{FakeAgent::Answer::Kind::kReply, encode(cni::Reply{})};
  });
  must_add();
  EXPECT_EQ(programs_then, 0);
  EXPECT_EQ(all_programs(), kHooks);
}

TEST_F(AddTest, T08_AContainerOfNoKubernetesIsTheAgentsToDecide) {
  WEFT_OWN();
  load_programs();
  Invocation add = invocation("ADD", conf_with_result());
  add.variables["CNI_ARGS"] = "";
  EXPECT_EQ(call_plugin(add).status, 0);
  EXPECT_EQ(all_programs(), kHooks);
  EXPECT_EQ(cni::parse_request(agent_->requests().at(0)).value().pod_namespace, "");
  agent_->refuse_all(ErrorCode::kDenied, "not a pod");
  expect_error(call_plugin(add), 100, "not a pod");
}

TEST_F(AddTest, T08_AddressesAreTheInterfacesOwnWherePrevResultHasNone) {
  WEFT_OWN();
  load_programs();
  Json conf = conf_with_result();
  conf["prevResult"].erase("ips");
  EXPECT_EQ(call("ADD", conf).status, 0);
  const auto request = cni::parse_request(agent_->requests().at(0)).value();
  EXPECT_THAT(request.addresses, testing::UnorderedElementsAre(IpAddress::parse("10.77.0.2").value(),
                                                               IpAddress::parse("fd77::2").value()));
}

TEST_F(AddTest, T08_APodWithoutIPv6GetsIPv4Only) {
  WEFT_OWN();
  load_programs();
  pod_->sysctl("net/ipv6/conf/all/disable_ipv6", "1");
  Json conf = this->conf();
  conf["prevResult"] = ptp_result("1.1.0", pod_->path(), {"10.77.0.2/24"});
  const Finished finished = call("ADD", conf);
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_THAT(pod_->ip("-6 rule show"), Not(HasSubstr("1500")));
  EXPECT_THAT(pod_->ip("rule show"), HasSubstr("1500"));
  expect_silent_success(call("CHECK", conf));
}

TEST_F(AddTest, T08_LoGetsIPv6WhereThePodHasIt) {
  WEFT_OWN();
  load_programs();
  pod_->sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
  must_add();
  EXPECT_THAT(pod_->ip("-6 route show table 1500"), HasSubstr("local default dev lo"));
}

TEST_F(AddTest, T10_RepeatedAddChangesNothing) {
  load_programs();
  must_add();
  const std::string once = state();
  must_add();
  EXPECT_EQ(state(), once);
}

TEST_F(AddTest, T10_AgentAwayFailsAndUndoesItsWork) {
  WEFT_OWN();
  load_programs();
  stop_agent();
  const std::string before = state();
  expect_error(call("ADD", conf_with_result()), 11, "is weft-agent running");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_AgentThatHangsFailsInTime) {
  WEFT_OWN();
  load_programs();
  agent_->answer_all({FakeAgent::Answer::Kind::kSilence, {}});
  const std::string before = state();
  Json conf = conf_with_result();
  conf["registrationTimeoutMs"] = 200;
  expect_error(call("ADD", conf), 11, "timed out after 200 ms");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_AgentThatClosesOrIsNotReadyFails) {
  WEFT_OWN();
  load_programs();
  const std::string before = state();
  agent_->answer_all({FakeAgent::Answer::Kind::kClose, {}});
  expect_error(call("ADD", conf_with_result()), 11);
  agent_->refuse_all(ErrorCode::kUnavailable, "starting");
  expect_error(call("ADD", conf_with_result()), 11, "starting");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_AgentAwayPassesWhereThePolicyIsOpen) {
  WEFT_OWN();
  load_programs();
  stop_agent();
  const std::string before = state();
  Json conf = conf_with_result();
  conf["failurePolicy"] = "open";
  conf["logFile"] = dir_->path() + "/weft.log";
  const Finished finished = call("ADD", conf);
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_EQ(finished.out, cni::to_text(conf["prevResult"]) + "\n");
  EXPECT_THAT(finished.err, HasSubstr("not in the mesh"));
  EXPECT_THAT(read_file(dir_->path() + "/weft.log"), HasSubstr("not in the mesh"));
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_RefusalsOfTheAgentFailUnderEveryPolicy) {
  WEFT_OWN();
  load_programs();
  const std::string text = "pod has 10.77.0.2, workload shop/web-0 has 10.9.9.9";
  const std::string before = state();
  for (const auto code : {ErrorCode::kInvalid, ErrorCode::kDenied, ErrorCode::kNotFound, ErrorCode::kInternal}) {
    agent_->refuse_all(code, text);
    for (const char* policy : {"closed", "open"}) {
      Json conf = conf_with_result();
      conf["failurePolicy"] = policy;
      expect_error(call("ADD", conf), 100, text);
    }
  }
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_AnAgentOfAnotherVersionIsNamed) {
  WEFT_OWN();
  load_programs();
  const std::string before = state();
  agent_->answer_all({FakeAgent::Answer::Kind::kReply, R"({"version":7,"ok":true})"});
  expect_error(call("ADD", conf_with_result()), 105, "version 7");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_WithoutProgramsEverythingIsUndone) {
  WEFT_OWN();
  const std::string before = state();
  expect_error(call("ADD", conf_with_result()), 102, bpf_root());
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_AHookThatCannotBeTakenUndoesEverything) {
  WEFT_OWN();
  load_programs();
  // One program of the five is gone: the others must come off again.
  ASSERT_EQ(::unlink((bpf_root() + "/programs/guard").c_str()), 0);
  const std::string before = state();
  expect_error(call("ADD", conf_with_result()), 102, "guard");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_ARuleInTheWayIsNamedAndEverythingUndone) {
  WEFT_OWN();
  load_programs();
  pod_->ip("rule add pref 1 from all lookup main");
  const std::string before = state();
  expect_error(call("ADD", conf_with_result()), 101, "stands before");
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_ExcludedNamespacesNeedNoAgent) {
  WEFT_OWN();
  stop_agent();
  const std::string before = state();
  for (const char* name : {"kube-system", "istio-system", "weft-system"}) {
    Invocation add = invocation("ADD", conf_with_result());
    add.variables["CNI_ARGS"] = std::string("K8S_POD_NAME=x;K8S_POD_NAMESPACE=") + name;
    const Finished finished = call_plugin(add);
    EXPECT_EQ(finished.status, 0) << finished.out;
    EXPECT_EQ(finished.out, cni::to_text(conf_with_result()["prevResult"]) + "\n");
  }
  EXPECT_EQ(state(), before);
}

TEST_F(AddTest, T10_TheListOfExcludedNamespacesIsTheConfigured) {
  WEFT_OWN();
  load_programs();
  Json conf = conf_with_result();
  conf["excludeNamespaces"] = {"shop"};
  EXPECT_EQ(call("ADD", conf).status, 0);
  EXPECT_TRUE(agent_->requests().empty());
  Invocation add = invocation("ADD", conf);
  add.variables["CNI_ARGS"] = "K8S_POD_NAMESPACE=kube-system";
  EXPECT_EQ(call_plugin(add).status, 0);
  EXPECT_EQ(agent_->requests().size(), 1U);
}

TEST_F(AddTest, T15_UnknownKeysAndArgumentsAndLongConfigurationsAreFine) {
  load_programs();
  Json conf = conf_with_result();
  conf["somebodyElses"] = {{"x", {1, 2, 3}}};
  conf["runtimeConfig"] = {{"io.kubernetes.cri.pod-annotations", {{"note", std::string(60'000, 'x')}}}};
  Invocation add = invocation("ADD", conf);
  add.variables["CNI_ARGS"] += ";UNKNOWN=1;K8S_POD_INFRA_CONTAINER_ID=abc";
  expect_result(call_plugin(add), conf["prevResult"]);
  if (!is_weft_cni()) return;  // reference plugins refuse what is no pair
  add.variables["CNI_ARGS"] += ";nonsense;=";
  expect_result(call_plugin(add), conf["prevResult"]);
}

TEST_F(AddTest, T15_TwentyAtOnceAreSafe) {
  load_programs();
  constexpr int kPods = 20;
  std::vector<std::unique_ptr<Netns>> pods;
  std::vector<Process> running;
  for (int i = 0; i < kPods; ++i) {
    const std::string number = std::to_string(i + 1);
    auto& pod = *pods.emplace_back(std::make_unique<Netns>("p" + number));
    connect_veth(*host_, "weftp" + number, pod, "eth0");
    pod.ip("addr add 10.78.0." + number + "/24 dev eth0");
  }
  const auto start_all = [&](const std::string& command) {
    for (int i = 0; i < kPods; ++i) {
      const std::string number = std::to_string(i + 1);
      Json conf = this->conf();
      conf["prevResult"] =
          ptp_result("1.1.0", pods[static_cast<std::size_t>(i)]->path(), {"10.78.0." + number + "/24"});
      SpawnOptions options;
      options.netns = host_.get();
      options.input = cni::to_text(conf);
      options.environment = {"CNI_COMMAND=" + command,
                             "CNI_CONTAINERID=pod" + number,
                             "CNI_IFNAME=eth0",
                             "CNI_PATH=/usr/lib/cni",
                             "CNI_NETNS=" + pods[static_cast<std::size_t>(i)]->path(),
                             "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=p" + number};
      running.push_back(Process::start({plugin_path()}, options));
    }
    for (auto& process : running) {
      const Finished finished = process.finish(milliseconds(30'000));
      EXPECT_EQ(finished.status, 0) << command << finished.out << finished.err;
    }
    running.clear();
  };
  start_all("ADD");
  if (is_weft_cni()) {
    EXPECT_EQ(attachments().size(), static_cast<std::size_t>(kPods));
    EXPECT_EQ(agent_->registrations().size(), static_cast<std::size_t>(kPods));
    for (const auto& pod : pods) EXPECT_EQ(programs_on(*pod, "eth0"), 2);
  }
  start_all("CHECK");
  start_all("DEL");
  EXPECT_TRUE(attachments().empty());
  EXPECT_TRUE(agent_->registrations().empty());
}

}  // namespace
}  // namespace weft::test
