// SPDX-License-Identifier: Apache-2.0
// Lines 11, 13 and 16 of the contract: DEL and GC.
#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

class DelTest : public PodTest {};

TEST_F(DelTest, T16_NothingIsLeft) {
  load_programs();
  const std::string before = state();
  must_add();
  EXPECT_TRUE(state() != before || !is_weft_cni());
  expect_silent_success(call("DEL", conf_with_result()));
  EXPECT_EQ(state(), before);
}

TEST_F(DelTest, T11_InEveryVersion) {
  load_programs();
  for (const char* version : {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    ASSERT_EQ(call("ADD", conf_with_result(version)).status, 0);
    expect_silent_success(call("DEL", conf(version)));
    EXPECT_EQ(all_programs(), 0) << version;
  }
}

TEST_F(DelTest, T11_TwiceAndWithoutPrevResult) {
  load_programs();
  must_add();
  expect_silent_success(call("DEL", conf()));
  expect_silent_success(call("DEL", conf()));
  EXPECT_EQ(all_programs(), 0);
}

TEST_F(DelTest, T11_APodThatWasNeverAdded) {
  const std::string before = state();
  expect_silent_success(call("DEL", conf_with_result()));
  EXPECT_EQ(state(), before);
}

TEST_F(DelTest, T11_WithoutTheNetns) {
  load_programs();
  must_add();
  Invocation del = invocation("DEL", conf());
  del.variables["CNI_NETNS"] = "";
  expect_silent_success(call_plugin(del));
  EXPECT_EQ(all_programs(), 0);
  EXPECT_TRUE(attachments().empty());
  EXPECT_TRUE(agent_->registrations().empty());
}

TEST_F(DelTest, T11_WithTheNetnsVariableUnset) {
  Invocation del = invocation("DEL", conf());
  del.variables.erase("CNI_NETNS");
  expect_silent_success(call_plugin(del));
}

TEST_F(DelTest, T11_WithTheNetnsGone) {
  load_programs();
  must_add();
  const std::string path = pod_->path();
  pod_.reset();
  for (int time = 0; time < 2; ++time) {
    Invocation del{{{"CNI_COMMAND", "DEL"},
                    {"CNI_CONTAINERID", kContainer},
                    {"CNI_NETNS", path},
                    {"CNI_IFNAME", "eth0"},
                    {"CNI_PATH", "/usr/lib/cni"},
                    {"CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop"}},
                   cni::to_text(conf()),
                   host_.get()};
    expect_silent_success(call_plugin(del));
  }
  EXPECT_TRUE(attachments().empty());
}

TEST_F(DelTest, T11_WithTheInterfaceGone) {
  load_programs();
  must_add();
  pod_->ip("link del eth0");
  expect_silent_success(call("DEL", conf()));
  EXPECT_TRUE(attachments().empty());
}

TEST_F(DelTest, T11_WithANetnsThatIsNone) {
  Invocation del = invocation("DEL", conf());
  del.variables["CNI_NETNS"] = "/dev/null";
  expect_silent_success(call_plugin(del));
}

TEST_F(DelTest, T11_ThePluginsOwnNetnsIsLeftAlone) {
  WEFT_OWN();
  host_->ip("rule add pref 1 fwmark 0x1000/0x1000 lookup 1500");
  Invocation del = invocation("DEL", conf());
  del.variables["CNI_NETNS"] = host_->path();
  expect_silent_success(call_plugin(del));
  EXPECT_THAT(host_->ip("rule show"), HasSubstr("lookup 1500"));
}

TEST_F(DelTest, T11_AgentAway) {
  WEFT_OWN();
  load_programs();
  must_add();
  stop_agent();
  expect_silent_success(call("DEL", conf()));
  EXPECT_EQ(all_programs(), 0);
  EXPECT_TRUE(attachments().empty());
}

TEST_F(DelTest, T11_AgentThatHangsOrRefuses) {
  WEFT_OWN();
  load_programs();
  must_add();
  Json conf = this->conf();
  conf["registrationTimeoutMs"] = 100;
  agent_->answer_all({FakeAgent::Answer::Kind::kSilence, {}});
  expect_silent_success(call("DEL", conf));
  EXPECT_EQ(all_programs(), 0);
  agent_->refuse_all(ErrorCode::kInternal, "broken");
  expect_silent_success(call("DEL", conf));
}

TEST_F(DelTest, T11_WithoutBpffs) {
  WEFT_OWN();
  Json conf = this->conf();
  conf["bpfRoot"] = "/nonexistent/bpf";
  expect_silent_success(call("DEL", conf));
}

TEST_F(DelTest, T11_TheAgentIsToldFirst) {
  WEFT_OWN();
  load_programs();
  must_add();
  int programs_then = -1;
  agent_->set_handler([&](const std::string&, const Fd&) {
    programs_then = all_programs();
    return FakeAgent::Answer{FakeAgent::Answer::Kind::kReply, encode(cni::Reply{})};
  });
  expect_silent_success(call("DEL", conf()));
  EXPECT_EQ(programs_then, 5);
  EXPECT_EQ(all_programs(), 0);
}

TEST_F(DelTest, T11_ExcludedNamespacesDoNotAskTheAgent) {
  WEFT_OWN();
  Invocation del = invocation("DEL", conf());
  del.variables["CNI_ARGS"] = "K8S_POD_NAMESPACE=weft-system";
  expect_silent_success(call_plugin(del));
  EXPECT_TRUE(agent_->requests().empty());
}

TEST_F(DelTest, T11_ANamespaceExcludedAfterAddIsCleanedUp) {
  WEFT_OWN();
  load_programs();
  must_add();
  Json conf = this->conf();
  conf["excludeNamespaces"] = {"shop"};
  expect_silent_success(call("DEL", conf));
  EXPECT_EQ(all_programs(), 0);
  EXPECT_TRUE(agent_->registrations().empty());
}

TEST_F(DelTest, T16_EachInterfaceIsAnAttachmentOfItsOwn) {
  WEFT_OWN();
  load_programs();
  connect_veth(*host_, "weftt1", *pod_, "net1");
  pod_->ip("addr add 10.79.0.2/24 dev net1");
  Json second = conf_with_result();
  second["name"] = "second";
  second["prevResult"]["interfaces"][1]["name"] = "net1";
  second["prevResult"]["ips"] = {{{"interface", 1}, {"address", "10.79.0.2/24"}}};
  const auto call_second = [&](const std::string& command) {
    Invocation call = invocation(command, second);
    call.variables["CNI_IFNAME"] = "net1";
    return call_plugin(call);
  };
  const auto programs_of_second = [&] { return programs_on(*pod_, "net1") + programs_on(*host_, "weftt1"); };
  const std::string bare = state();
  must_add();
  const std::string with_first = state();
  expect_result(call_second("ADD"), second["prevResult"]);
  EXPECT_EQ(programs_of_second(), 4);
  EXPECT_EQ(agent_->registrations().size(), 2U);
  expect_silent_success(call_second("CHECK"));
  expect_silent_success(call("CHECK", conf_with_result()));

  expect_silent_success(call_second("DEL"));
  EXPECT_EQ(programs_of_second(), 0);
  EXPECT_EQ(state(), with_first);
  expect_silent_success(call("CHECK", conf_with_result()));

  // The one that came first goes first: what both need stays until the other has gone too.
  expect_result(call_second("ADD"), second["prevResult"]);
  expect_silent_success(call("DEL", conf_with_result()));
  expect_silent_success(call_second("CHECK"));
  expect_silent_success(call_second("DEL"));
  EXPECT_EQ(programs_of_second(), 0);
  EXPECT_EQ(state(), bare);
}

class GcTest : public PodTest {
 protected:
  [[nodiscard]] Finished gc(const std::optional<Json>& valid, const std::string& network = "pods") const {
    Json conf = this->conf();
    conf["name"] = network;
    if (valid) conf["cni.dev/valid-attachments"] = *valid;
    Invocation call = invocation("GC", conf);
    for (const char* name : {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"}) call.variables[name] = "";
    return call_plugin(call);
  }
  static Json listed(const std::string& container_id) {
    return Json::array({{{"containerID", container_id}, {"ifname", "eth0"}}});
  }
};

TEST_F(GcTest, T13_KeepsWhatIsListed) {
  load_programs();
  must_add();
  const std::string before = state();
  expect_silent_success(gc(listed(kContainer)));
  EXPECT_EQ(state(), before);
}

TEST_F(GcTest, T13_TakesWhatIsNotListed) {
  WEFT_OWN();
  load_programs();
  must_add();
  expect_silent_success(gc(listed("another")));
  EXPECT_EQ(all_programs(), 0);
  EXPECT_TRUE(attachments().empty());
  EXPECT_TRUE(agent_->registrations().empty());
}

TEST_F(GcTest, T13_AnEmptyListTakesAll) {
  WEFT_OWN();
  load_programs();
  must_add();
  expect_silent_success(gc(Json::array()));
  EXPECT_EQ(all_programs(), 0);
}

TEST_F(GcTest, T13_AnAbsentListTakesNothing) {
  load_programs();
  must_add();
  const std::string before = state();
  expect_silent_success(gc({}));
  expect_silent_success(gc(Json()));
  EXPECT_EQ(state(), before);
}

TEST_F(GcTest, T13_PodsOfOtherNetworksAreNotTouched) {
  load_programs();
  must_add();
  const std::string before = state();
  expect_silent_success(gc(Json::array(), "another-network"));
  EXPECT_EQ(state(), before);
}

TEST_F(GcTest, T13_AMalformedListTakesNothing) {
  WEFT_OWN();
  load_programs();
  must_add();
  const std::string before = state();
  for (const Json& bad : {Json::object(), Json(7), Json::array({1}), Json::array({{{"containerID", "x"}}})}) {
    expect_error(gc(bad), 7, "cni.dev/valid-attachments");
  }
  EXPECT_EQ(state(), before);
}

TEST_F(GcTest, T13_AgentAwayIsToldButThePinsGo) {
  WEFT_OWN();
  load_programs();
  must_add();
  stop_agent();
  expect_error(gc(Json::array()), 11);
  EXPECT_EQ(all_programs(), 0);
}

}  // namespace
}  // namespace weft::test
