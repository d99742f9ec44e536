// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/json.h"
#include "cni-plugin/registration.h"

namespace weft::cni {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Request register_request() {
  Request request;
  request.verb = Verb::kRegister;
  request.key = {"c0ffee", "eth0"};
  request.netns = "/run/netns/x";
  request.pod_namespace = "shop";
  request.pod_name = "web-0";
  request.pod_uid = "7b";
  request.addresses = {IpAddress::parse("10.0.0.2").value(), IpAddress::parse("fd00::2").value()};
  request.annotations = {{"istio.io/reroute-virtual-interfaces", "vm0"}};
  request.ifindex = 2;
  request.host_ifindex = 4294967295U;
  return request;
}

TEST(RegistrationMessages, RegisterComesBackAsItWas) {
  const auto back = parse_request(encode(register_request()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->version, 1);
  EXPECT_EQ(back->verb, Verb::kRegister);
  EXPECT_EQ(back->key, (AttachmentKey{"c0ffee", "eth0"}));
  EXPECT_EQ(back->netns, "/run/netns/x");
  EXPECT_EQ(back->pod_namespace, "shop");
  EXPECT_EQ(back->pod_name, "web-0");
  EXPECT_EQ(back->pod_uid, "7b");
  EXPECT_EQ(back->addresses, register_request().addresses);
  EXPECT_EQ(back->annotations, register_request().annotations);
  EXPECT_EQ(back->ifindex, 2U);
  EXPECT_EQ(back->host_ifindex, 4294967295U);
}

TEST(RegistrationMessages, AContainerOfNoKubernetesHasEmptyNames) {
  Request request = register_request();
  request.pod_namespace = request.pod_name = request.pod_uid = "";
  const auto back = parse_request(encode(request));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->pod_namespace, "");
}

TEST(RegistrationMessages, TheOtherVerbsComeBackAsTheyWere) {
  Request request;
  request.key = {"c0ffee", "eth0"};
  request.verb = Verb::kUnregister;
  EXPECT_EQ(parse_request(encode(request)).value().key, request.key);
  request.verb = Verb::kCheck;
  request.netns_inode = 18446744073709551615ULL;
  EXPECT_EQ(parse_request(encode(request)).value().netns_inode, 18446744073709551615ULL);
  request.verb = Verb::kGc;
  request.valid = {{"a", "eth0"}, {"b", "net1"}};
  EXPECT_THAT(parse_request(encode(request)).value().valid,
              ElementsAre(AttachmentKey{"a", "eth0"}, AttachmentKey{"b", "net1"}));
  request.valid.clear();
  EXPECT_TRUE(parse_request(encode(request)).value().valid.empty());
  request.verb = Verb::kStatus;
  EXPECT_EQ(parse_request(encode(request)).value().verb, Verb::kStatus);
}

TEST(RegistrationMessages, WireFormIsTheDocumentedOne) {
  EXPECT_EQ(encode(register_request()),
            R"({"version":1,"verb":"register","containerId":"c0ffee","ifName":"eth0","netns":"/run/netns/x",)"
            R"("podNamespace":"shop","podName":"web-0","podUid":"7b","addresses":["10.0.0.2","fd00::2"],)"
            R"("ifindex":2,"hostIfindex":4294967295,)"
            R"("annotations":{"istio.io/reroute-virtual-interfaces":"vm0"}})");
  Reply reply;
  reply.enrolled = true;
  reply.notes = {"n"};
  EXPECT_EQ(encode(reply), R"({"version":1,"ok":true,"enrolled":true,"notes":["n"]})");
  reply.error = Error{ErrorCode::kDenied, 0, "no"};
  EXPECT_EQ(encode(reply), R"({"version":1,"ok":false,"code":"denied","message":"no"})");
}

TEST(RegistrationMessages, MalformedRequestsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty"},
      {"[]", "expected an object"},
      {R"({"verb":"status"})", "version is missing"},
      {R"({"version":"1","verb":"status"})", "version is \"1\""},
      {R"({"version":0,"verb":"status"})", "version is 0"},
      {R"({"version":99999999999,"verb":"status"})", "version is 99999999999"},
      {R"({"version":1})", "verb is missing"},
      {R"({"version":1,"verb":"Status"})", "verb is \"Status\""},
      {R"({"version":1,"verb":"check","containerId":"c","ifName":"eth0"})", "netnsInode is missing"},
      {R"({"version":1,"verb":"check","containerId":"c","ifName":"eth0","netnsInode":-1})", "netnsInode is -1"},
      {R"({"version":1,"verb":"unregister","ifName":"eth0"})", "containerId is missing"},
      {R"({"version":1,"verb":"unregister","containerId":"c","ifName":""})", "ifName is \"\""},
      {R"({"version":1,"verb":"gc"})", "valid is missing"},
      {R"({"version":1,"verb":"gc","valid":null})", "valid is missing"},
      {R"({"version":1,"verb":"gc","valid":[{"containerId":"c"}]})", "ifName is missing"}};
  for (const auto& [text, expected] : cases) {
    const auto request = parse_request(text);
    ASSERT_FALSE(request) << text;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalid) << text;
    EXPECT_THAT(request.error().message(), HasSubstr(expected)) << text;
  }
}

TEST(RegistrationMessages, EveryFieldOfRegisterIsChecked) {
  const std::pair<const char*, Json> cases[] = {{"netns", ""},
                                                {"addresses", "10.0.0.1"},
                                                {"addresses", Json::array({"10.0.0"})},
                                                {"ifindex", "2"},
                                                {"ifindex", -2},
                                                {"ifindex", 4294967296ULL},
                                                {"hostIfindex", 0.5},
                                                {"addresses", Json::array({1})}};
  for (const auto& [field, value] : cases) {
    Json document = parse_json(encode(register_request())).value();
    document[field] = value;
    const auto request = parse_request(to_text(document));
    ASSERT_FALSE(request) << field;
    EXPECT_EQ(request.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(request.error().message(), HasSubstr(field));
  }
}

TEST(RegistrationMessages, UnknownKeysAreIgnored) {
  Json document = parse_json(encode(register_request())).value();
  document["later"] = {{"x", 1}};
  EXPECT_TRUE(parse_request(to_text(document)));
  EXPECT_TRUE(parse_reply(R"({"version":1,"ok":true,"later":[]})"));
}

TEST(RegistrationMessages, AnOldAgentNamesBothVersionsToANewPlugin) {
  Json document = parse_json(encode(register_request())).value();
  document["version"] = 2;
  const auto request = parse_request(to_text(document));
  ASSERT_FALSE(request);
  EXPECT_EQ(request.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(request.error().message(), testing::AllOf(HasSubstr("version 2"), HasSubstr("at most 1")));
}

TEST(RegistrationMessages, AnOldPluginRefusesAReplyOfANewAgent) {
  const auto reply = parse_reply(R"({"version":2,"ok":true})");
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(reply.error().message(), testing::AllOf(HasSubstr("version 2"), HasSubstr("at most 1")));
}

TEST(RegistrationMessages, RepliesComeBackAsTheyWere) {
  Reply reply;
  reply.enrolled = true;
  reply.notes = {"a", "b"};
  const auto back = parse_reply(encode(reply));
  ASSERT_TRUE(back);
  EXPECT_FALSE(back->error);
  EXPECT_TRUE(back->enrolled);
  EXPECT_THAT(back->notes, ElementsAre("a", "b"));
}

TEST(RegistrationMessages, ErrorsKeepTheirCodeAndText) {
  for (const ErrorCode code : {ErrorCode::kUnavailable, ErrorCode::kInvalid, ErrorCode::kDenied, ErrorCode::kNotFound,
                               ErrorCode::kInternal, ErrorCode::kUnsupported}) {
    Reply reply;
    reply.error = Error{code, ENOENT, "open x"};
    const auto back = parse_reply(encode(reply));
    ASSERT_TRUE(back);
    ASSERT_TRUE(back->error);
    EXPECT_EQ(back->error->code, code);
    EXPECT_EQ(back->error->message(), "open x: No such file or directory");
  }
  Reply timeout;
  timeout.error = Error{ErrorCode::kTimeout, 0, "slow"};
  EXPECT_EQ(parse_reply(encode(timeout)).value().error->code, ErrorCode::kUnavailable);
  const auto later = parse_reply(R"({"version":1,"ok":false,"code":"invented-later"})");
  ASSERT_TRUE(later);
  EXPECT_EQ(later->error->code, ErrorCode::kInternal);
  EXPECT_EQ(later->error->message(), "no reason given");
}

TEST(RegistrationMessages, MalformedRepliesNameTheField) {
  for (const char* text : {"", "7", R"({"ok":true})", R"({"version":1})", R"({"version":1,"ok":"yes"})"}) {
    const auto reply = parse_reply(text);
    ASSERT_FALSE(reply) << text;
    EXPECT_EQ(reply.error().code, ErrorCode::kInvalid) << text;
  }
}

}  // namespace
}  // namespace weft::cni
