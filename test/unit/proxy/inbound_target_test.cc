// SPDX-License-Identifier: Apache-2.0
/// What a pod may be asked for by HBONE, and what that leads to in it.
#include "tunnel/proxy/inbound_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/unit/state/builders.h"

namespace weft::proxy {
namespace {

using state::test::build;
using state::test::ip;
using state::test::pod;
using state::test::service;
using state::test::serving;
using ::testing::HasSubstr;
using Protocol = state::ApplicationTunnel::Protocol;

/// The pod waypoint, an endpoint of ns/wp.test, which is the waypoint of ns/web.test.
class InboundTargetTest : public ::testing::Test {
 protected:
  InboundTargetTest() {
    web_.waypoint = state::GatewayAddress{state::NamespacedHostname{"ns", "wp.test"}};
    pod_.addresses = waypoint_.addresses;
  }
  tl::expected<InboundTarget, InboundRefusal> ask(const std::string& authority, const std::string& at = "10.0.0.51") {
    const auto state = build({waypoint_, backend_}, {web_, service("wp.test", {"10.1.0.2"}), other_});
    return inbound_target(state.get(), state->workload_by_uid(waypoint_.uid).get(), pod_, ip(at), authority);
  }
  InboundTarget target(const std::string& authority, const std::string& at = "10.0.0.51") {
    auto found = ask(authority, at);
    if (found) return std::move(*found);
    ADD_FAILURE() << authority << ": " << found.error().why;
    return {};
  }
  /// "STATUS why"
  std::string refusal(const std::string& authority) {
    const auto found = ask(authority);
    return found ? "none" : std::to_string(found.error().status) + " " + found.error().why;
  }

  state::Workload waypoint_ = serving(pod("waypoint", {"10.0.0.51", "2001:db8::51"}), "wp.test");
  state::Workload backend_ = pod("backend", {"10.0.0.1"});
  state::Service web_ = service("web.test", {"10.1.0.1", "2001:db8:1::1"});
  state::Service other_ = service("other.test", {"10.1.0.3"});
  PodContext pod_;
};

TEST_F(InboundTargetTest, ItsOwnAddress) {
  for (const char* own : {"10.0.0.51:8080", "[2001:db8::51]:8080"}) {
    const auto to = target(own);
    EXPECT_EQ(to.asked.to_string(), own);
    EXPECT_EQ(to.application.to_string(), own);
    EXPECT_EQ(to.dialled.to_string(), own);
    EXPECT_FALSE(to.proxy_header);
    EXPECT_EQ(to.service, nullptr);
  }
}

TEST_F(InboundTargetTest, BeforeAnythingIsKnownItsOwnAddressAlone) {
  EXPECT_TRUE(inbound_target(nullptr, nullptr, pod_, ip("10.0.0.51"), "10.0.0.51:80").has_value());
  EXPECT_EQ(inbound_target(nullptr, nullptr, pod_, ip("10.0.0.51"), "10.1.0.1:80").error().status, 400);
  EXPECT_EQ(inbound_target(nullptr, nullptr, pod_, ip("10.0.0.51"), "web.test:80").error().status, 503);
}

TEST_F(InboundTargetTest, WhatItIsTheWaypointOfGoesToThePortThatWasAskedFor) {
  for (const char* authority : {"10.1.0.1:80", "web.test:80"}) {
    const auto to = target(authority);
    EXPECT_EQ(to.asked.to_string(), "10.1.0.1:80");
    EXPECT_EQ(to.application.to_string(), "10.0.0.51:80");
    EXPECT_EQ(to.dialled.to_string(), "10.0.0.51:80");
    EXPECT_FALSE(to.proxy_header);
    EXPECT_EQ(to.service->hostname, "web.test");
  }
}

TEST_F(InboundTargetTest, WithAnApplicationTunnelItGoesThereWithAHeader) {
  waypoint_.application_tunnel = state::ApplicationTunnel{Protocol::kProxy, 15088};
  const auto to = target("10.1.0.1:80");
  EXPECT_EQ(to.asked.to_string(), "10.1.0.1:80");
  EXPECT_EQ(to.application.to_string(), "10.0.0.51:15088") << "what policies see";
  EXPECT_EQ(to.dialled.to_string(), "127.0.0.1:15088");
  EXPECT_TRUE(to.proxy_header);
  EXPECT_EQ(target("[2001:db8:1::1]:80", "2001:db8::51").dialled.to_string(), "[::1]:15088");
  EXPECT_EQ(target("10.0.0.51:9999").dialled.to_string(), "127.0.0.1:15088") << "its own address too";
  EXPECT_EQ(target("10.0.0.51:9999").asked.to_string(), "10.0.0.51:9999");
}

TEST_F(InboundTargetTest, AHostnameIsToldAsAVipOfTheTunnelsFamily) {
  waypoint_.application_tunnel = state::ApplicationTunnel{Protocol::kProxy, 15088};
  EXPECT_EQ(target("web.test:80").asked.to_string(), "10.1.0.1:80");
  EXPECT_EQ(target("web.test:80", "2001:db8::51").asked.to_string(), "[2001:db8:1::1]:80");
  web_.vips = {{"", ip("10.1.0.1")}};
  EXPECT_EQ(target("web.test:80", "2001:db8::51").asked.to_string(), "10.1.0.1:80");
  web_.vips.clear();
  EXPECT_THAT(refusal("web.test:80"), HasSubstr("503 authority web.test:80: service ns/web.test has no VIP"));
}

TEST_F(InboundTargetTest, TunnelsWithoutAPortAndWithoutHeaders) {
  waypoint_.application_tunnel = state::ApplicationTunnel{Protocol::kProxy, {}};
  EXPECT_EQ(target("10.1.0.1:80").dialled.to_string(), "127.0.0.1:80");
  waypoint_.application_tunnel = state::ApplicationTunnel{Protocol::kNone, 9000};
  EXPECT_EQ(target("10.1.0.1:80").dialled.to_string(), "10.0.0.51:9000");
  EXPECT_FALSE(target("10.1.0.1:80").proxy_header);
}

TEST_F(InboundTargetTest, AWorkloadThatHasItAsItsWaypoint) {
  EXPECT_THAT(refusal("10.0.0.1:8080"), HasSubstr("400 "));
  backend_.waypoint = web_.waypoint;
  EXPECT_EQ(target("10.0.0.1:8080").application.to_string(), "10.0.0.51:8080");
}

TEST_F(InboundTargetTest, EverythingElseIsRefused) {
  waypoint_.application_tunnel = state::ApplicationTunnel{Protocol::kProxy, 15088};
  EXPECT_EQ(refusal("10.1.0.3:80"),
            "400 authority 10.1.0.3:80 is not an address of this pod, and of nothing that has it as its waypoint");
  EXPECT_THAT(refusal("8.8.8.8:80"), HasSubstr("400 "));
  EXPECT_THAT(refusal("127.0.0.1:15088"), HasSubstr("400 "));
  EXPECT_THAT(refusal("other.test:80"), HasSubstr("503 authority other.test:80: a hostname that no workload here"));
  EXPECT_THAT(refusal("10.1.0.1"), HasSubstr("400 "));
  for (const char* foreign : {"10.1.0.3:80", "other.test:80"}) EXPECT_TRUE(ask(foreign).error().may_change) << foreign;
  EXPECT_FALSE(ask("10.0.0.51:15008").error().may_change);
  for (const char* port : {"15001", "15006", "15008"}) {
    EXPECT_THAT(refusal(std::string("10.1.0.1:") + port), HasSubstr("names a port of the proxy itself"));
    EXPECT_THAT(refusal(std::string("10.0.0.51:") + port), HasSubstr("names a port of the proxy itself"));
  }
  waypoint_.application_tunnel->port = 15008;
  EXPECT_THAT(refusal("10.1.0.1:80"), HasSubstr("names a port of the proxy itself")) << "it would lead back here";
  waypoint_.application_tunnel.reset();
  EXPECT_FALSE(ask("10.1.0.3:80").error().may_change) << "an ordinary pod";
}

}  // namespace
}  // namespace weft::proxy
