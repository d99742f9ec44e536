// SPDX-License-Identifier: Apache-2.0
/// Policies by principal, enforced by either side on the other's clients.

#include "test/interop/fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

class ZtunnelPolicy : public ZtunnelTest {
 protected:
  static json policy(const Pod& server, const char* action, const json& match) {
    json out = deny_policy(server.namespace_name(), "interop", match);
    out["action"] = action;
    return out;
  }
  static void lift(const Pod& server) { remove_policy(server.namespace_name(), "interop"); }
};

TEST_F(ZtunnelPolicy, ADenialAtZtunnelMeetsThatClientOfWeftAlone) {
  set_policy(policy(*zweb, "Deny", principal(*client)));
  expect_refused(*client, *zweb);
  EXPECT_FALSE(weft_logged({"direction=outbound", "dst.workload=zweb", "401"}).empty());
  expect_reaches(*web, *zweb);
  lift(*zweb);
  expect_reaches(*client, *zweb);
}

TEST_F(ZtunnelPolicy, APermissionAtZtunnelIsOfThatClientOfWeftAlone) {
  set_policy(policy(*zweb, "Allow", principal(*client)));
  expect_reaches(*client, *zweb);
  expect_refused(*web, *zweb);
  lift(*zweb);
  expect_reaches(*web, *zweb);
}

TEST_F(ZtunnelPolicy, ADenialAtWeftMeetsThatClientOfZtunnelAlone) {
  set_policy(policy(*web, "Deny", principal(*zclient)));
  expect_refused(*zclient, *web);
  EXPECT_FALSE(ztunnel_logged(*ztunnel_of_client, {"direction=\"outbound\"", "dst.workload=\"web\"", "401"}).empty());
  EXPECT_FALSE(weft_logged({"direction=inbound", "src.identity=" + zclient->identity(), "DENY"}).empty());
  expect_reaches(*zweb, *web);
  lift(*web);
  expect_reaches(*zclient, *web);
}

TEST_F(ZtunnelPolicy, APermissionAtWeftIsOfThatClientOfZtunnelAlone) {
  set_policy(policy(*web, "Allow", principal(*zclient)));
  expect_reaches(*zclient, *web);
  expect_refused(*zweb, *web);
  lift(*web);
  expect_reaches(*zweb, *web);
}

TEST_F(ZtunnelPolicy, ALiveConnectionOfZtunnelIsCutByANewDenialAtWeft) {
  Process held = zclient->hold(web->v4());
  Process kept = zweb->hold(web->v4());
  mesh().set_policy(policy(*web, "Deny", principal(*zclient)));
  EXPECT_TRUE(held.wait(kSoon).has_value());
  EXPECT_TRUE(kept.running());
  mesh().remove_policy(web->namespace_name(), "interop");
  expect_reaches(*zclient, *web);
}

}  // namespace
}  // namespace weft::test
