// SPDX-License-Identifier: Apache-2.0
// Line 9 of the contract: prevResult as the primary plugins write it, and pods without a usable veth.
#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

struct Shape {
  const char* name;
  const char* version;
  const char* text;  ///< SANDBOX stands for the pod's netns
};

void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class ShapeTest : public PodTest, public testing::WithParamInterface<Shape> {
 protected:
  [[nodiscard]] Json result() const {
    std::string text = GetParam().text;
    for (auto at = text.find("SANDBOX"); at != std::string::npos; at = text.find("SANDBOX")) {
      text.replace(at, 7, pod_->path());
    }
    return Json::parse(text);
  }
};

TEST_P(ShapeTest, T09_IsWiredAndHandedOn) {
  load_programs();
  Json conf = this->conf(GetParam().version);
  conf["prevResult"] = result();
  expect_result(call("ADD", conf), conf["prevResult"]);
  expect_programs(5);
  if (is_weft_cni()) {
    const auto request = cni::parse_request(agent_->requests().at(0)).value();
    EXPECT_THAT(request.addresses, testing::Contains(IpAddress::parse("10.77.0.2").value()));
  }
  if (std::string(GetParam().version) >= "0.4.0") expect_silent_success(call("CHECK", conf));
  expect_silent_success(call("DEL", conf));
  EXPECT_EQ(all_programs(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Conformance, ShapeTest,
    testing::Values(
        Shape{"ptp", "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"veth5d2c","mac":"02:00:00:00:00:01"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"SANDBOX"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.77.0.2/24","gateway":"10.77.0.1"}],)"
              R"("routes":[{"dst":"0.0.0.0/0"}],"dns":{}})"},
        Shape{"bridge_and_flannel", "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"cni0","mac":"02:00:00:00:00:01"},)"
              R"({"name":"veth77","mac":"02:00:00:00:00:02"},{"name":"eth0","mac":"02:00:00:00:00:03",)"
              R"("sandbox":"SANDBOX"}],"ips":[{"version":"4","interface":2,"address":"10.77.0.2/24",)"
              R"("gateway":"10.77.0.1"}],"routes":[{"dst":"10.77.0.0/16"},{"dst":"0.0.0.0/0"}],"dns":{}})"},
        Shape{"calico", "1.0.0",
              R"({"cniVersion":"1.0.0","interfaces":[{"name":"cali0123456789a"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","mtu":1450,"sandbox":"SANDBOX"}],)"
              R"("ips":[{"address":"10.77.0.2/32"}]})"},
        Shape{"kindnet", "0.4.0",
              R"({"cniVersion":"0.4.0","interfaces":[{"name":"eth0"}],)"
              R"("ips":[{"version":"4","interface":0,"address":"10.77.0.2/24","gateway":"10.77.0.1"}],"dns":{}})"},
        Shape{"aws", "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"eni0a1b2c3"},{"name":"eth0","sandbox":"SANDBOX"},)"
              R"({"name":"dummy0a1b2c3","mac":"0","sandbox":"0"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.77.0.2/32"}],"dns":{}})"},
        Shape{"cilium", "0.3.1",
              R"({"cniVersion":"0.3.1","interfaces":[{"name":"lxc0a1b2c","mac":"02:00:00:00:00:01"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"SANDBOX"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.77.0.2/32","gateway":"10.77.0.200"}],)"
              R"("routes":[{"dst":"10.77.0.200/32"},{"dst":"0.0.0.0/0","gw":"10.77.0.200"}],"dns":{}})"},
        Shape{"ptp_and_bandwidth", "0.4.0",
              R"({"cniVersion":"0.4.0","interfaces":[{"name":"veth5d2c","mac":"02:00:00:00:00:01"},)"
              R"({"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"SANDBOX"},)"
              R"({"name":"bwp0a1b2c3","mac":"02:00:00:00:00:03"}],)"
              R"("ips":[{"version":"4","interface":1,"address":"10.77.0.2/24"}],"dns":{}})"},
        Shape{"without_interfaces", "1.1.0", R"({"cniVersion":"1.1.0","ips":[{"address":"10.77.0.2/24"}]})"}),
    [](const auto& shape) { return shape.param.name; });

class UnsupportedTest : public PodTest {
 protected:
  /// Fails as it is configured, or passes the result on, and changes nothing either way.
  void expect_by_policy(const std::string& interface, const std::string& reason) {
    load_programs();
    Json conf = conf_with_result();
    Invocation add = invocation("ADD", conf);
    add.variables["CNI_IFNAME"] = interface;
    const std::string before = state();
    expect_error(call_plugin(add), 104, reason);
    conf["unsupportedInterface"] = "pass";
    add.input = cni::to_text(conf);
    const Finished passed = call_plugin(add);
    EXPECT_EQ(passed.status, 0) << passed.out;
    EXPECT_EQ(passed.out, cni::to_text(conf["prevResult"]) + "\n");
    EXPECT_THAT(passed.err, HasSubstr("not in the mesh"));
    EXPECT_EQ(state(), before);
    EXPECT_TRUE(agent_->requests().empty());
    add.variables["CNI_COMMAND"] = "CHECK";
    expect_silent_success(call_plugin(add));
    add.variables["CNI_COMMAND"] = "DEL";
    expect_silent_success(call_plugin(add));
  }
};

TEST_F(UnsupportedTest, T09_NoSuchInterface) {
  WEFT_OWN();
  expect_by_policy("net7", "no interface net7");
}

TEST_F(UnsupportedTest, T09_AnInterfaceOfAnotherKind) {
  WEFT_OWN();
  pod_->ip("link add br0 type bridge");
  expect_by_policy("br0", "'bridge'");
}

TEST_F(UnsupportedTest, T09_TheLoopbackDevice) {
  WEFT_OWN();
  expect_by_policy("lo", "of the kind ''");
}

TEST_F(UnsupportedTest, T09_AVethWithBothEndsInThePod) {
  WEFT_OWN();
  pod_->ip("link add in0 type veth peer name in1");
  pod_->ip("addr add 10.79.0.2/24 dev in0");
  expect_by_policy("in0", "other end inside the pod");
}

TEST_F(UnsupportedTest, T09_AVethWhoseOtherEndIsInAThirdNetns) {
  WEFT_OWN();
  const Netns third("third");
  connect_veth(third, "out0", *pod_, "far0");
  pod_->ip("addr add 10.79.0.2/24 dev far0");
  expect_by_policy("far0", "third network namespace");
}

TEST_F(UnsupportedTest, T09_AVethWithoutAnAddress) {
  WEFT_OWN();
  connect_veth(*host_, "weftt1", *pod_, "bare0");
  load_programs();
  Json conf = this->conf();
  conf["prevResult"] = ptp_result("1.1.0", pod_->path(), {});
  Invocation add = invocation("ADD", conf);
  add.variables["CNI_IFNAME"] = "bare0";
  expect_error(call_plugin(add), 104, "no address");
  conf["unsupportedInterface"] = "pass";
  add.input = cni::to_text(conf);
  EXPECT_EQ(call_plugin(add).status, 0);
  EXPECT_EQ(all_programs(), 0);
}

TEST_F(UnsupportedTest, T09_AMalformedResultIsNamed) {
  WEFT_OWN();
  load_programs();
  Json conf = conf_with_result();
  conf["prevResult"]["ips"][0]["interface"] = 9;
  expect_error(call("ADD", conf), 7, "prevResult.ips[0].interface is 9");
}

}  // namespace
}  // namespace weft::test
