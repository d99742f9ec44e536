// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::cni {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Environment pod() { return {"ADD", "c0ffee", "/run/netns/x", "eth0", ""}; }

TEST(Environment, KnowsSixVerbs) {
  EXPECT_EQ(parse_command("ADD").value(), Command::kAdd);
  EXPECT_EQ(parse_command("DEL").value(), Command::kDel);
  EXPECT_EQ(parse_command("CHECK").value(), Command::kCheck);
  EXPECT_EQ(parse_command("GC").value(), Command::kGc);
  EXPECT_EQ(parse_command("STATUS").value(), Command::kStatus);
  EXPECT_EQ(parse_command("VERSION").value(), Command::kVersion);
  for (const char* text : {"", "add", "Add", "UPDATE", "ADD ", " ADD"}) {
    const auto command = parse_command(text);
    ASSERT_FALSE(command) << text;
    EXPECT_EQ(command.error().code, Code::kInvalidEnvironment);
    EXPECT_THAT(command.error().msg, HasSubstr("CNI_COMMAND"));
  }
}

TEST(Environment, NamesWhatIsMissing) {
  const Environment nothing{"ADD", "", "", "", ""};
  for (const Command command : {Command::kAdd, Command::kCheck}) {
    const auto result = validate(command, nothing);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Code::kInvalidEnvironment);
    EXPECT_THAT(result.error().msg,
                AllOf(HasSubstr("CNI_CONTAINERID"), HasSubstr("CNI_NETNS"), HasSubstr("CNI_IFNAME")));
  }
  const auto del = validate(Command::kDel, nothing);
  ASSERT_FALSE(del);
  EXPECT_THAT(del.error().msg,
              AllOf(HasSubstr("CNI_CONTAINERID"), Not(HasSubstr("CNI_NETNS")), HasSubstr("CNI_IFNAME")));
  for (const Command command : {Command::kGc, Command::kStatus, Command::kVersion}) {
    EXPECT_TRUE(validate(command, nothing));
  }
  Environment without_netns = pod();
  without_netns.netns.clear();
  EXPECT_TRUE(validate(Command::kDel, without_netns));
  EXPECT_FALSE(validate(Command::kAdd, without_netns));
}

TEST(Environment, RefusesBadContainerIds) {
  for (const char* id : {"../x", "-x", ".x", "_x", "a/b", "a b", "a\n", "\xc3\xa4"}) {
    Environment environment = pod();
    environment.container_id = id;
    for (const Command command : {Command::kAdd, Command::kDel, Command::kCheck}) {
      const auto result = validate(command, environment);
      ASSERT_FALSE(result) << id;
      EXPECT_EQ(result.error().code, Code::kInvalidEnvironment);
      EXPECT_THAT(result.error().msg, HasSubstr("CNI_CONTAINERID"));
    }
  }
  Environment environment = pod();
  environment.container_id = "A9_.-z";
  EXPECT_TRUE(validate(Command::kAdd, environment));
}

TEST(Environment, RefusesBadInterfaceNames) {
  for (const char* name : {"0123456789abcdef", "a/b", "a:b", "a b", "a\tb", "..", "."}) {
    Environment environment = pod();
    environment.if_name = name;
    const auto result = validate(Command::kAdd, environment);
    ASSERT_FALSE(result) << name;
    EXPECT_EQ(result.error().code, Code::kInvalidEnvironment);
    EXPECT_THAT(result.error().msg, HasSubstr("CNI_IFNAME"));
  }
  for (const char* name : {"0123456789abcde", "eth0", "...", "net-1"}) EXPECT_TRUE(is_interface_name(name)) << name;
  EXPECT_FALSE(is_interface_name(std::string("eth0\0", 5))) << "the kernel would take it for eth0";
}

TEST(Environment, ReadsThePodInAnyOrder) {
  const PodIdentity a = pod_identity("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_UID=u-1;X=y");
  EXPECT_EQ(a.pod_namespace, "ns");
  EXPECT_EQ(a.name, "web");
  EXPECT_EQ(a.uid, "u-1");
  const PodIdentity b =
      pod_identity("K8S_POD_UID=u-1;K8S_POD_INFRA_CONTAINER_ID=z;K8S_POD_NAME=web;K8S_POD_NAMESPACE=ns;");
  EXPECT_EQ(b.pod_namespace, "ns");
  EXPECT_EQ(b.name, "web");
  EXPECT_EQ(b.uid, "u-1");
}

TEST(Environment, IgnoresArgumentsThatAreNone) {
  for (const char* args : {"", ";", ";;;", "K8S_POD_NAMESPACE", "=x", "k8s_pod_namespace=x", "X=1;;Y"}) {
    EXPECT_EQ(pod_identity(args).pod_namespace, "") << args;
  }
  EXPECT_EQ(pod_identity("junk;K8S_POD_NAMESPACE=a=b").pod_namespace, "a=b");
}

}  // namespace
}  // namespace weft::cni
