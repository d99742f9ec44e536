// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/conf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::cni {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

CniResult<Conf> parse(const std::string& text, Command command = Command::kAdd) {
  auto document = parse_stdin(text);
  if (!document) return tl::unexpected<CniError>(document.error());
  auto version = configured_version(*document, command);
  if (!version) return tl::unexpected<CniError>(version.error());
  return parse_conf(*document, *version, command);
}

std::string with(const std::string& more) {
  return R"({"cniVersion":"1.0.0","name":"pods","type":"weft-cni","prevResult":{}, )" + more + "}";
}

TEST(Conf, DefaultsWhereNothingIsSaid) {
  const auto conf = parse(R"({"cniVersion":"0.3.1","name":"pods","type":"weft-cni","prevResult":{}})");
  ASSERT_TRUE(conf);
  EXPECT_EQ(conf->cni_version, "0.3.1");
  EXPECT_EQ(conf->name, "pods");
  EXPECT_EQ(conf->agent_socket, "/run/weft/agent.sock");
  EXPECT_EQ(conf->bpf_root, "/sys/fs/bpf/weft");
  EXPECT_EQ(conf->registration_timeout_ms, 5000);
  EXPECT_EQ(conf->failure_policy, FailurePolicy::kClosed);
  EXPECT_EQ(conf->unsupported_interface, UnsupportedInterface::kFail);
  EXPECT_THAT(conf->exclude_namespaces, ElementsAre("kube-system", "istio-system", "weft-system"));
  EXPECT_EQ(conf->log_level, "info");
  EXPECT_EQ(conf->log_file, "");
  EXPECT_THAT(conf->problems, IsEmpty());
}

TEST(Conf, TakesTheAnnotationsThatItUnderstands) {
  const auto conf = parse(with(R"("runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b",
      "ambient.istio.io/bypass-inbound-capture":"true",
      "istio.io/reroute-virtual-interfaces":"vm0","traffic.sidecar.istio.io/kubevirtInterfaces":7}})"));
  ASSERT_TRUE(conf);
  EXPECT_THAT(conf->annotations, ElementsAre(testing::Pair("ambient.istio.io/bypass-inbound-capture", "true"),
                                             testing::Pair("istio.io/reroute-virtual-interfaces", "vm0")));
  for (const char* odd : {R"("runtimeConfig":7)", R"("runtimeConfig":{"io.kubernetes.cri.pod-annotations":[]})"}) {
    const auto ignored = parse(with(odd));
    ASSERT_TRUE(ignored);
    EXPECT_THAT(ignored->annotations, IsEmpty());
  }
}

TEST(Conf, ReadsEveryKeyOfOurs) {
  const auto conf = parse(with(R"("agentSocket":"/a.sock","bpfRoot":"/bpf/x","registrationTimeoutMs":1,
      "failurePolicy":"open","unsupportedInterface":"pass","excludeNamespaces":["a","b"],"logLevel":"debug",
      "logFile":"/var/log/weft.log")"));
  ASSERT_TRUE(conf);
  EXPECT_EQ(conf->agent_socket, "/a.sock");
  EXPECT_EQ(conf->bpf_root, "/bpf/x");
  EXPECT_EQ(conf->registration_timeout_ms, 1);
  EXPECT_EQ(conf->failure_policy, FailurePolicy::kOpen);
  EXPECT_EQ(conf->unsupported_interface, UnsupportedInterface::kPass);
  EXPECT_THAT(conf->exclude_namespaces, ElementsAre("a", "b"));
  EXPECT_EQ(conf->log_level, "debug");
  EXPECT_EQ(conf->log_file, "/var/log/weft.log");
  EXPECT_TRUE(conf->excludes("a"));
  EXPECT_FALSE(conf->excludes("kube-system"));
  EXPECT_FALSE(conf->excludes(""));
}

TEST(Conf, AnEmptyListExcludesNothing) {
  const auto conf = parse(with(R"("excludeNamespaces":[])"));
  ASSERT_TRUE(conf);
  EXPECT_FALSE(conf->excludes("kube-system"));
}

TEST(Conf, IgnoresKeysOfOthers) {
  const auto conf = parse(with(R"("ipMasq":true,"capabilities":{"portMappings":true},"runtimeConfig":{"x":[1,2]})"));
  ASSERT_TRUE(conf);
  EXPECT_THAT(conf->problems, IsEmpty());
}

struct BadKey {
  const char* text;
  const char* key;
  const char* value;
  const char* expected;
};

class BadKeys : public testing::TestWithParam<BadKey> {};

TEST_P(BadKeys, AreNamedWithValueAndExpectation) {
  const auto conf = parse(with(GetParam().text));
  ASSERT_TRUE(conf);
  ASSERT_EQ(conf->problems.size(), 1U);
  EXPECT_THAT(conf->problems[0], HasSubstr(GetParam().key));
  EXPECT_THAT(conf->problems[0], HasSubstr(GetParam().value));
  EXPECT_THAT(conf->problems[0], HasSubstr(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Conf, BadKeys,
    testing::Values(
        BadKey{R"("agentSocket":"run/a.sock")", "agentSocket", "\"run/a.sock\"", "absolute path of at most 107 bytes"},
        BadKey{R"("agentSocket":7)", "agentSocket", "7", "absolute path"},
        BadKey{
            R"("agentSocket":"/x23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678")",
            "agentSocket", "/x2345", "at most 107 bytes"},
        BadKey{R"("bpfRoot":"")", "bpfRoot", "\"\"", "absolute path"},
        BadKey{R"("bpfRoot":"/a\u0000b")", "bpfRoot", "u0000", "absolute path"},
        BadKey{R"("registrationTimeoutMs":0)", "registrationTimeoutMs", "0", "from 1 to 60000"},
        BadKey{R"("registrationTimeoutMs":60001)", "registrationTimeoutMs", "60001", "from 1 to 60000"},
        BadKey{R"("registrationTimeoutMs":18446744073709551615)", "registrationTimeoutMs", "1844", "from 1 to 60000"},
        BadKey{R"("registrationTimeoutMs":"5s")", "registrationTimeoutMs", "\"5s\"", "whole number of milliseconds"},
        BadKey{R"("registrationTimeoutMs":1.5)", "registrationTimeoutMs", "1.5", "whole number of milliseconds"},
        BadKey{R"("failurePolicy":"Closed")", "failurePolicy", "\"Closed\"", "closed, open"},
        BadKey{R"("failurePolicy":true)", "failurePolicy", "true", "closed, open"},
        BadKey{R"("unsupportedInterface":"ignore")", "unsupportedInterface", "\"ignore\"", "fail, pass"},
        BadKey{R"("excludeNamespaces":"kube-system")", "excludeNamespaces", "\"kube-system\"", "list of namespaces"},
        BadKey{R"("excludeNamespaces":["a",1])", "excludeNamespaces", "[\"a\",1]", "list of namespaces"},
        BadKey{R"("excludeNamespaces":[""])", "excludeNamespaces", "[\"\"]", "list of namespaces"},
        BadKey{R"("logLevel":"loud")", "logLevel", "\"loud\"", "error, warn, info, debug, trace, off"},
        BadKey{R"("logFile":"weft.log")", "logFile", "\"weft.log\"", "absolute path"}));

TEST(Conf, AllBadKeysAreTold) {
  const auto conf = parse(with(R"("failurePolicy":1,"logLevel":2)"));
  ASSERT_TRUE(conf);
  EXPECT_EQ(conf->problems.size(), 2U);
}

TEST(Conf, WhatIsNoJsonObjectIsADecodingError) {
  for (const std::string text : {"", "{", "[]", "null", "\"x\"", "{\"name\":}", "{} x", "\xff"}) {
    const auto conf = parse(text);
    ASSERT_FALSE(conf) << text;
    EXPECT_EQ(conf.error().code, Code::kDecode) << text;
  }
}

TEST(Conf, NestingHasALimit) {
  const auto nested = [](int levels) {
    return with(R"("x":)" + std::string(static_cast<std::size_t>(levels), '[') + "\"]\\\"]\"" +
                std::string(static_cast<std::size_t>(levels), ']'));
  };
  EXPECT_TRUE(parse(nested(kMaxDepth - 1)));
  const auto deep = parse(nested(kMaxDepth));
  ASSERT_FALSE(deep);
  EXPECT_EQ(deep.error().code, Code::kDecode);
  EXPECT_THAT(deep.error().msg, HasSubstr("64 deep"));
}

TEST(Conf, NameIsAnIdentifier) {
  for (const std::string name : {R"("")", R"("-x")", R"("a b")", R"("a/b")", "7", "null"}) {
    const auto conf = parse(R"({"cniVersion":"1.0.0","prevResult":{},"name":)" + name + "}");
    ASSERT_FALSE(conf) << name;
    EXPECT_EQ(conf.error().code, Code::kInvalidConfig) << name;
    EXPECT_THAT(conf.error().msg, HasSubstr("name")) << name;
  }
  EXPECT_TRUE(parse(R"({"cniVersion":"1.0.0","prevResult":{},"name":"k8s-pod.network_1"})"));
  EXPECT_THAT(parse("{\"cniVersion\":\"1.0.0\",\"name\":\"a\x7f\xc3\xa4\"}").error().msg,
              HasSubstr(R"(name is "a\u007f\u00e4": expected)"))
      << "printable, whatever it was";
}

TEST(Conf, PrevResultIsNeededWhereThereWorkToDo) {
  const std::string text = R"({"cniVersion":"1.1.0","name":"pods"})";
  for (const Command command : {Command::kAdd, Command::kCheck}) {
    const auto conf = parse(text, command);
    ASSERT_FALSE(conf);
    EXPECT_EQ(conf.error().code, Code::kInvalidConfig);
    EXPECT_THAT(conf.error().msg, HasSubstr("prevResult"));
  }
  for (const Command command : {Command::kDel, Command::kGc, Command::kStatus}) EXPECT_TRUE(parse(text, command));
  const auto list = parse(R"({"cniVersion":"1.1.0","name":"pods","prevResult":[]})");
  ASSERT_FALSE(list);
  EXPECT_EQ(list.error().code, Code::kInvalidConfig);
  EXPECT_TRUE(parse(R"({"cniVersion":"1.1.0","name":"pods","prevResult":[]})", Command::kDel));
}

TEST(Conf, VersionsByVerb) {
  const auto code = [](const char* version, Command command) {
    const Json document = version == nullptr ? Json::object() : Json{{"cniVersion", version}};
    const auto result = configured_version(document, command);
    return result ? 0 : static_cast<int>(result.error().code);
  };
  for (const char* version : {"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    EXPECT_EQ(code(version, Command::kAdd), 0) << version;
    EXPECT_EQ(code(version, Command::kDel), 0) << version;
  }
  for (const char* version : {"0.1.0", "0.2.0", "1.2.0", "2.0.0", "1.0", "", " 1.0.0"}) {
    for (const Command command : {Command::kAdd, Command::kDel, Command::kCheck, Command::kGc, Command::kStatus}) {
      EXPECT_EQ(code(version, command), 1) << version;
    }
  }
  EXPECT_EQ(code(nullptr, Command::kAdd), 1);
  EXPECT_EQ(code("0.3.0", Command::kCheck), 1);
  EXPECT_EQ(code("0.3.1", Command::kCheck), 1);
  EXPECT_EQ(code("0.4.0", Command::kCheck), 0);
  EXPECT_EQ(code("1.0.0", Command::kGc), 1);
  EXPECT_EQ(code("1.0.0", Command::kStatus), 1);
  EXPECT_EQ(code("1.1.0", Command::kGc), 0);
  EXPECT_EQ(code("1.1.0", Command::kStatus), 0);
  const auto number = configured_version(Json{{"cniVersion", 1}}, Command::kAdd);
  ASSERT_FALSE(number);
  EXPECT_EQ(number.error().code, Code::kDecode);
}

TEST(Conf, AnAbsentListOfAttachmentsIsNotAnEmptyOne) {
  const auto gc = [](const std::string& more) {
    return parse(R"({"cniVersion":"1.1.0","name":"pods")" + more + "}", Command::kGc);
  };
  EXPECT_FALSE(gc("")->valid_attachments);
  EXPECT_FALSE(gc(R"(,"cni.dev/valid-attachments":null)")->valid_attachments);
  const auto empty = gc(R"(,"cni.dev/valid-attachments":[])");
  ASSERT_TRUE(empty->valid_attachments);
  EXPECT_THAT(*empty->valid_attachments, IsEmpty());
  const auto one = gc(R"(,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0","more":1}])");
  EXPECT_THAT(*one->valid_attachments, ElementsAre(AttachmentKey{"c1", "eth0"}));
  for (const char* bad : {R"({})", R"([1])", R"([{"containerID":"c"}])", R"([{"containerID":1,"ifname":"eth0"}])"}) {
    const auto conf = gc(std::string(R"(,"cni.dev/valid-attachments":)") + bad);
    ASSERT_FALSE(conf) << bad;
    EXPECT_EQ(conf.error().code, Code::kInvalidConfig) << bad;
  }
}

}  // namespace
}  // namespace weft::cni
