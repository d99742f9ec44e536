// SPDX-License-Identifier: Apache-2.0
// Lines 1 to 7 of the contract: what can be refused from the variables and the document alone. Needs no root.
#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::ElementsAreArray;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;

constexpr const char* kVersions[] = {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};

std::map<std::string, std::string> variables(const std::string& command) {
  return {{"CNI_COMMAND", command},
          {"CNI_CONTAINERID", "c0ffee"},
          {"CNI_NETNS", "/nonexistent/netns"},
          {"CNI_IFNAME", "eth0"},
          {"CNI_ARGS", ""},
          {"CNI_PATH", "/opt/cni/bin"}};
}

Finished call(const std::string& command, const std::string& input) {
  return call_plugin({variables(command), input, {}});
}

Finished call_without(const std::string& command, const std::vector<std::string>& missing, bool empty) {
  auto set = variables(command);
  for (const auto& name : missing) {
    if (empty) {
      set[name] = "";
    } else {
      set.erase(name);
    }
  }
  Json conf = base_conf();
  conf["prevResult"] = ptp_result("1.1.0", "/nonexistent/netns", {"10.0.0.2/24"});
  return call_plugin({set, cni::to_text(conf), {}});
}

TEST(Conformance, T01_VersionNeedsOnlyTheCommand) {
  const Finished finished = call_plugin({{{"CNI_COMMAND", "VERSION"}}, "", {}});
  EXPECT_EQ(finished.status, 0);
  const Json document = Json::parse(finished.out, nullptr, false);
  ASSERT_TRUE(document.is_object()) << finished.out;
  EXPECT_TRUE(document["cniVersion"].is_string());
  const auto versions = document["supportedVersions"].get<std::vector<std::string>>();
  EXPECT_THAT(versions, IsSupersetOf(kVersions));
  if (is_weft_cni()) {
    EXPECT_THAT(versions, ElementsAreArray(kVersions));
  }
}

TEST(Conformance, T01_VersionEchoesTheCallersVersion) {
  WEFT_OWN();
  const Finished finished = call_plugin({{{"CNI_COMMAND", "VERSION"}}, R"({"cniVersion":"0.4.0"})", {}});
  EXPECT_EQ(finished.status, 0);
  EXPECT_EQ(Json::parse(finished.out, nullptr, false)["cniVersion"], "0.4.0");
}

TEST(Conformance, T01_VersionDoesNotMindWhatIsOnStdin) {
  for (const char* input : {"{", "[]", R"({"cniVersion":7})", R"({"cniVersion":"9.9.9"})"}) {
    const Finished finished = call_plugin({{{"CNI_COMMAND", "VERSION"}}, input, {}});
    EXPECT_EQ(finished.status, 0) << input;
    EXPECT_TRUE(Json::accept(finished.out)) << input;
  }
}

TEST(Conformance, T02_WithoutACommandItTellsWhatItIs) {
  const Finished finished = call_plugin({{}, "", {}});
  EXPECT_EQ(finished.status, 0);
  EXPECT_EQ(finished.out, "");
  EXPECT_THAT(finished.err, HasSubstr("CNI"));
}

TEST(Conformance, T02_UnknownCommandsAreRefused) {
  for (const char* command : {"add", "Add", "UPDATE", "ADD;", "PING"}) {
    expect_error(call(command, cni::to_text(base_conf())), 4, "CNI_COMMAND");
  }
}

TEST(Conformance, T03_MissingVariablesAreNamed) {
  for (const bool empty : {false, true}) {
    for (const char* command : {"ADD", "CHECK"}) {
      for (const char* name : {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}) {
        const Json error = expect_error(call_without(command, {name}, empty), 4);
        EXPECT_THAT(cni::text_member(error, "msg"), HasSubstr(name));
      }
      const Json all = expect_error(call_without(command, {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, empty), 4);
      for (const char* name : {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}) {
        EXPECT_THAT(cni::text_member(all, "msg"), HasSubstr(name));
      }
    }
    for (const char* name : {"CNI_CONTAINERID", "CNI_IFNAME"}) {
      const Json error = expect_error(call_without("DEL", {name}, empty), 4);
      EXPECT_THAT(cni::text_member(error, "msg"), HasSubstr(name));
    }
  }
}

TEST(Conformance, T04_BadContainerIdsAreRefused) {
  for (const char* command : {"ADD", "DEL", "CHECK"}) {
    for (const char* id : {"../x", "-x", ".x", "a/b", "a b"}) {
      auto set = variables(command);
      set["CNI_CONTAINERID"] = id;
      expect_error(call_plugin({set, cni::to_text(base_conf()), {}}), 4, "CNI_CONTAINERID");
    }
  }
}

TEST(Conformance, T04_BadInterfaceNamesAreRefused) {
  for (const char* command : {"ADD", "DEL", "CHECK"}) {
    for (const char* name : {"0123456789abcdef", "a/b", "a:b", "a b", "..", "."}) {
      auto set = variables(command);
      set["CNI_IFNAME"] = name;
      expect_error(call_plugin({set, cni::to_text(base_conf()), {}}), 4, "CNI_IFNAME");
    }
  }
}

TEST(Conformance, T05_EmptyOrBadJsonIsADecodingError) {
  for (const char* command : {"ADD", "DEL", "CHECK", "GC", "STATUS"}) {
    for (const char* input : {"", "{", "nonsense", "[]", "{\"cniVersion\":\"1.1.0\",}"}) {
      expect_error(call(command, input), 6);
    }
    expect_error(call(command, "null"), {6, {7}});
  }
}

TEST(Conformance, T05_DeepNestingIsADecodingError) {
  expect_error(call("ADD", std::string(30'000, '[') + std::string(30'000, ']')), 6);
}

TEST(Conformance, T05_MissingOrInvalidNamesAreRefused) {
  for (const char* command : {"ADD", "DEL", "CHECK", "GC", "STATUS"}) {
    Json conf = base_conf();
    conf["prevResult"] = Json::object();
    conf.erase("name");
    expect_error(call(command, cni::to_text(conf)), 7, "name");
    for (const Json& name : {Json(""), Json("-x"), Json("a b"), Json("a/b"), Json(7)}) {
      conf["name"] = name;
      expect_error(call(command, cni::to_text(conf)), {7, {6}}, "name");
    }
  }
}

TEST(Conformance, T05_UnsupportedVersionsAreRefusedOnEveryVerb) {
  for (const char* command : {"ADD", "DEL", "CHECK", "GC", "STATUS"}) {
    for (const char* version : {"1.2.0", "2.0.0"}) expect_error(call(command, cni::to_text(base_conf(version))), 1);
  }
}

TEST(Conformance, T05_VersionsWithoutPrevResultAreRefusedAndTheSpokenOnesTold) {
  WEFT_OWN();
  for (const char* command : {"ADD", "DEL", "CHECK", "GC", "STATUS"}) {
    for (const char* version : {"0.1.0", "0.2.0", "1.2.0", "x"}) {
      const Json error = expect_error(call(command, cni::to_text(base_conf(version))), 1, version);
      EXPECT_THAT(cni::text_member(error, "details"), HasSubstr("1.1.0"));
    }
    Json absent = base_conf();
    absent.erase("cniVersion");
    expect_error(call(command, cni::to_text(absent)), 1, "0.1.0");
  }
}

TEST(Conformance, T06_VerbsThatCameLaterAreRefusedBefore) {
  for (const char* version : {"0.3.0", "0.3.1"}) expect_error(call("CHECK", cni::to_text(base_conf(version))), 1);
  for (const char* command : {"GC", "STATUS"}) {
    for (const char* version : {"0.3.0", "0.3.1", "0.4.0", "1.0.0"}) {
      expect_error(call(command, cni::to_text(base_conf(version))), 1);
    }
  }
}

TEST(Conformance, T07_AddAndCheckNeedAPrevResult) {
  for (const char* version : kVersions) {
    expect_error(call("ADD", cni::to_text(base_conf(version))), {7, {999}}, "prevResult");
  }
  for (const char* version : {"0.4.0", "1.0.0", "1.1.0"}) {
    expect_error(call("CHECK", cni::to_text(base_conf(version))), {7, {999}}, "prevResult");
  }
}

TEST(Conformance, T07_AddWithoutTheNetnsFails) {
  Json conf = base_conf();
  conf["prevResult"] = ptp_result("1.1.0", "/nonexistent/netns", {"10.0.0.2/24"});
  // Not 3: on that a runtime may leave DEL out.
  expect_error(call("ADD", cni::to_text(conf)), {7, {999}}, "/nonexistent/netns");
}

TEST(Conformance, T07_WhatIsNoNetnsIsRefused) {
  for (const char* path : {"/dev/null", "/proc/self/ns/mnt", "/tmp"}) {
    auto set = variables("ADD");
    set["CNI_NETNS"] = path;
    Json conf = base_conf();
    conf["prevResult"] = ptp_result("1.1.0", path, {"10.0.0.2/24"});
    expect_error(call_plugin({set, cni::to_text(conf), {}}), {7, {999}}, path);
  }
}

TEST(Conformance, T07_ThePluginsOwnNetnsIsRefused) {
  WEFT_OWN();  // reference plugins look when ADD is done and its result printed, and at CHECK not at all
  for (const char* command : {"ADD", "CHECK"}) {
    auto set = variables(command);
    set["CNI_NETNS"] = "/proc/self/ns/net";
    Json conf = base_conf();
    conf["prevResult"] = ptp_result("1.1.0", "/proc/self/ns/net", {"10.0.0.2/24"});
    expect_error(call_plugin({set, cni::to_text(conf), {}}), 8);
  }
}

TEST(Conformance, T15_ErrorsAreToldInTheCallersVersion) {
  WEFT_OWN();
  for (const char* version : kVersions) {
    const Json error = expect_error(call("ADD", cni::to_text(base_conf(version))), 7);
    EXPECT_EQ(cni::text_member(error, "cniVersion"), version);
  }
}

TEST(Conformance, T15_BadValuesOfOurKeysAreRefusedByName) {
  WEFT_OWN();
  for (const char* command : {"ADD", "CHECK", "GC", "STATUS"}) {
    Json conf = base_conf();
    conf["prevResult"] = ptp_result("1.1.0", "/nonexistent/netns", {"10.0.0.2/24"});
    conf["failurePolicy"] = "ajar";
    const Json error = expect_error(call(command, cni::to_text(conf)), 7, "failurePolicy is \"ajar\"");
    EXPECT_THAT(cni::text_member(error, "msg"), HasSubstr("closed, open"));
  }
}

TEST(Conformance, T11_BadValuesOfOurKeysDoNotStopDel) {
  WEFT_OWN();
  Json conf = base_conf();
  conf["failurePolicy"] = "ajar";
  conf["registrationTimeoutMs"] = "soon";
  conf["logFile"] = "/proc/nonexistent/weft.log";
  const Finished finished = call("DEL", cni::to_text(conf));
  expect_silent_success(finished);
  EXPECT_THAT(finished.err, HasSubstr("failurePolicy"));
}

TEST(Conformance, T15_LogsGoToStderrOrToTheFile) {
  WEFT_OWN();
  const ScratchDir dir;
  Json conf = base_conf();
  conf["prevResult"] = ptp_result("1.1.0", "/nonexistent/netns", {"10.0.0.2/24"});
  const Finished to_stderr = call("ADD", cni::to_text(conf));
  EXPECT_THAT(to_stderr.err, HasSubstr("ADD failed"));
  EXPECT_THAT(to_stderr.out, Not(HasSubstr("ADD failed")));
  conf["logFile"] = dir.path() + "/weft.log";
  const Finished to_file = call("ADD", cni::to_text(conf));
  EXPECT_EQ(to_file.err, "");
  EXPECT_THAT(read_file(dir.path() + "/weft.log"), HasSubstr("ADD failed"));
}

TEST(Conformance, T15_ALogFileThatCannotBeOpenedFailsNoPod) {
  WEFT_OWN();
  Json conf = base_conf();
  conf["prevResult"] = ptp_result("1.1.0", "/nonexistent/netns", {"10.0.0.2/24"});
  conf["logFile"] = "/proc/nonexistent/weft.log";
  auto set = variables("ADD");
  set["CNI_ARGS"] = "K8S_POD_NAMESPACE=kube-system";
  const Finished finished = call_plugin({set, cni::to_text(conf), {}});
  EXPECT_EQ(finished.status, 0) << finished.out;
  EXPECT_THAT(finished.err, HasSubstr("weft.log"));
}

}  // namespace
}  // namespace weft::test
