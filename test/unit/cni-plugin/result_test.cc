// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::cni {
namespace {

using testing::HasSubstr;

Json json(const std::string& text) {
  auto value = parse_json(text);
  EXPECT_TRUE(value) << text;
  return value ? *value : Json();
}

struct Shape {
  const char* name;
  const char* version;
  const char* text;
  std::vector<const char*> addresses;
};

void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class Shapes : public testing::TestWithParam<Shape> {};

TEST_P(Shapes, GiveThePodsAddresses) {
  const auto addresses = pod_addresses(json(GetParam().text), "eth0");
  ASSERT_TRUE(addresses) << addresses.error().msg;
  std::vector<std::string> texts;
  for (const auto& address : *addresses) texts.push_back(address.to_string());
  EXPECT_EQ(texts, std::vector<std::string>(GetParam().addresses.begin(), GetParam().addresses.end()));
}

TEST_P(Shapes, ComeOutAsTheyWentIn) {
  EXPECT_EQ(result_document(json(GetParam().text), GetParam().version), std::string(GetParam().text) + "\n");
}

INSTANTIATE_TEST_SUITE_P(
    Result, Shapes,
    testing::Values(
        Shape{"ptp",
              "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"veth1a","mac":"02:00:00:00:00:01"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/a"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.244.0.5/24","gateway":"10.244.0.1"}],)"
              R"("routes":[{"dst":"0.0.0.0/0"}],"dns":{}})",
              {"10.244.0.5"}},
        Shape{
            "bridge",
            "0.3.1",
            R"({"cniVersion":"0.3.1","interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},)"
            R"({"name":"veth2b","mac":"02:00:00:00:00:02"},{"name":"eth0","mac":"02:00:00:00:00:03","sandbox":"/a"}],)"
            R"("ips":[{"version":"4","interface":2,"address":"10.1.0.2/16","gateway":"10.1.0.1"},)"
            R"({"version":"6","interface":2,"address":"fd00::2/64","gateway":"fd00::1"}],"dns":{}})",
            {"10.1.0.2", "fd00::2"}},
        Shape{"calico",
              "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"cali12345678901"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:03","mtu":1450,"sandbox":"/a"}],)"
              R"("ips":[{"address":"192.168.7.1/32"}]})",
              {"192.168.7.1"}},
        Shape{"kindnet_only_eth0",
              "0.4.0",
              R"({"cniVersion":"0.4.0","interfaces":[{"name":"eth0"}],)"
              R"("ips":[{"version":"4","interface":0,"address":"10.244.1.2/24"}],"dns":{}})",
              {"10.244.1.2"}},
        Shape{"aws_with_dummy",
              "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"eni1234"},{"name":"eth0","sandbox":"/a"},)"
              R"({"name":"dummy1234","mac":"0","sandbox":"0"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"172.31.1.9/32"}],"dns":{}})",
              {"172.31.1.9"}},
        Shape{"cilium",
              "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"lxc1234","mac":"02:00:00:00:00:01"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/a"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.0.1.1/32","gateway":"10.0.1.200"}],"dns":{}})",
              {"10.0.1.1"}},
        Shape{"ptp_and_bandwidth",
              "0.4.0",
              R"({"cniVersion":"0.4.0","interfaces":[{"name":"veth1a"},{"name":"eth0","sandbox":"/a"},)"
              R"({"name":"bwp1234","mac":"02:00:00:00:00:09"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.244.0.5/24"}],"dns":{}})",
              {"10.244.0.5"}},
        Shape{"addresses_of_the_host_side_too",
              "1.1.0",
              R"({"cniVersion":"1.1.0","interfaces":[{"name":"veth1a"},{"name":"eth0","sandbox":"/a"}],)"
              R"("ips":[{"interface":0,"address":"10.9.9.1/24"},{"interface":1,"address":"10.9.9.2/24"}]})",
              {"10.9.9.2"}},
        Shape{"host_interface_of_the_same_name",
              "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"eth0"},{"name":"eth0","sandbox":"/a"}],)"
              R"("ips":[{"interface":0,"address":"192.0.2.1/24"},{"interface":1,"address":"192.0.2.2/24"}]})",
              {"192.0.2.2"}},
        Shape{"two_interfaces_in_the_pod",
              "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"/a"},{"name":"eth0","sandbox":"/a"}],)"
              R"("ips":[{"interface":0,"address":"192.0.2.1/24"},{"interface":1,"address":"192.0.2.2/24"}]})",
              {"192.0.2.2"}},
        Shape{"an_address_twice",
              "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/a"}],)"
              R"("ips":[{"interface":0,"address":"192.0.2.2/24"},{"address":"192.0.2.2/32"}]})",
              {"192.0.2.2"}},
        Shape{"nothing_but_interfaces",
              "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/a"}]})",
              {}},
        Shape{"empty", "1.0.0", R"({"cniVersion":"1.0.0"})", {}},
        Shape{"nulls", "1.0.0", R"({"cniVersion":"1.0.0","interfaces":null,"ips":null})", {}}),
    [](const auto& shape) { return shape.param.name; });

TEST(Result, VersionIsTheConfiguredOne) {
  EXPECT_EQ(result_document(json(R"({"ips":[],"cniVersion":"0.3.1","x":1})"), "1.0.0"),
            "{\"ips\":[],\"cniVersion\":\"1.0.0\",\"x\":1}\n");
  EXPECT_EQ(result_document(json(R"({"ips":[]})"), "0.4.0"), "{\"cniVersion\":\"0.4.0\",\"ips\":[]}\n");
  EXPECT_EQ(result_document(json("{}"), "0.4.0"), "{\"cniVersion\":\"0.4.0\"}\n");
}

TEST(Result, NumbersAndTextsSurvive) {
  const std::string text =
      R"({"cniVersion":"1.1.0","a":-1,"b":9007199254740993,"c":18446744073709551615,"d":"ä€\"\\\n",)"
      R"("e":[true,false,null,{}],"z":{"y":1,"b":2}})";
  EXPECT_EQ(result_document(json(text), "1.1.0"), text + "\n");
}

TEST(Result, MalformedPartsAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"ips":{}})", "prevResult.ips"},
      {R"({"interfaces":1,"ips":[]})", "prevResult.interfaces"},
      {R"({"ips":[1]})", "prevResult.ips[0]"},
      {R"({"ips":[{"address":"10.0.0.1/24"},{"address":"10.0.0.256/24"}]})", "prevResult.ips[1]"},
      {R"({"ips":[{"address":"10.0.0.1/33"}]})", "prevResult.ips[0]"},
      {R"({"ips":[{"address":7}]})", "prevResult.ips[0]"},
      {R"({"ips":[{"interface":0,"address":"10.0.0.1/24"}]})", "prevResult.ips[0].interface"},
      {R"({"interfaces":[{"name":"eth0"}],"ips":[{"interface":-1,"address":"10.0.0.1/24"}]})", "ips[0].interface"},
      {R"({"interfaces":[{"name":"eth0"}],"ips":[{"interface":"0","address":"10.0.0.1/24"}]})", "ips[0].interface"}};
  for (const auto& [text, where] : cases) {
    const auto addresses = pod_addresses(json(text), "eth0");
    ASSERT_FALSE(addresses) << text;
    EXPECT_EQ(addresses.error().code, Code::kInvalidConfig) << text;
    EXPECT_THAT(addresses.error().msg, HasSubstr(where)) << text;
  }
}

TEST(Result, InterfacesThatAreNoObjectsAreNobodys) {
  const auto addresses = pod_addresses(
      json(R"({"interfaces":[1,{"name":"eth0"}],"ips":[{"interface":1,"address":"10.0.0.1/24"}]})"), "eth0");
  ASSERT_TRUE(addresses);
  EXPECT_EQ(addresses->size(), 1U);
}

TEST(Result, ErrorDocumentsHaveFourMembers) {
  const Json document = json(error_document({Code::kTryAgainLater, "agent \"away\"\xff", "why"}, "0.4.0"));
  EXPECT_EQ(document.size(), 4U);
  EXPECT_EQ(text_member(document, "cniVersion"), "0.4.0");
  EXPECT_EQ(document["code"], 11);
  EXPECT_THAT(text_member(document, "msg"), HasSubstr("agent \"away\""));
  EXPECT_EQ(text_member(document, "details"), "why");
  EXPECT_EQ(text_member(json(error_document({}, "9.9.9")), "cniVersion"), "1.1.0");
  EXPECT_EQ(text_member(json(error_document({}, "")), "cniVersion"), "1.1.0");
}

TEST(Result, VersionDocumentListsAll) {
  EXPECT_EQ(version_document(""),
            "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n");
  EXPECT_THAT(version_document("0.4.0"), HasSubstr("\"cniVersion\":\"0.4.0\""));
  EXPECT_THAT(version_document("7"), HasSubstr("\"cniVersion\":\"1.1.0\""));
}

}  // namespace
}  // namespace weft::cni
