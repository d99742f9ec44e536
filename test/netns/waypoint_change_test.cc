// SPDX-License-Identifier: Apache-2.0
/// Waypoints that come, go, change and die while clients go on: no request fails that the contract promises, and what
/// it does not promise fails as it says, by name, and never in the clear.

#include "test/netns/steady_load.h"
#include "test/netns/waypoint_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A second waypoint beside that of the fixture: ns infra, service and pod next.
class WaypointChange : public WaypointTest {
 protected:
  static void SetUpTestSuite() {
    WaypointTest::SetUpTestSuite();
    if (!mesh_) return;
    next_pod = add_waypoint(*mesh_, 1, "next");
    mesh_->add_service("infra", "next", 15008, 15008, {next_pod});
    next = start_envoy(*next_pod);
  }
  static void TearDownTestSuite() {
    next.reset();
    WaypointTest::TearDownTestSuite();
  }
  void TearDown() override {
    if (mesh_) set(through(the_waypoint()));
    WaypointTest::TearDown();
  }

  static std::string the_next() { return "infra/next.infra.svc.cluster.local"; }
  static void set(const json& more) { mesh().change_service("shop", "web", more); }
  static json weighted(unsigned first, unsigned second) {
    return {{"waypoint", named(the_waypoint())},
            {"weightedWaypoints", json::array({{{"destination", named(the_waypoint())}, {"weight", first}},
                                               {{"destination", named(the_next())}, {"weight", second}}})}};
  }
  static std::size_t seen(const Envoy& by, const std::string& path) {
    return log_lines(by.log(), 0, {"path=/" + path + " "}).size();
  }
  /// One request that fails, and what node 1 says of it.
  static std::string failure(const std::string& marker) {
    const std::size_t before = node1().log().size();
    const Capture wire(node1().netns(), Node::kWire, 4096);
    const Finished done = get_from(*client, vip(), {"--marker", marker, "--timeout", "5"});
    EXPECT_FALSE(done.ok()) << ::testing::PrintToString(done);
    EXPECT_FALSE(wire.contains(marker)) << "in the clear";
    std::vector<std::string> lines;
    (void)eventually(kSoon, [&] {
      return !(lines = log_lines(node1().log(), before, {"direction=outbound", "error="})).empty();
    });
    return lines.empty() ? "" : lines.front();
  }

  static Pod* next_pod;
  static std::unique_ptr<Envoy> next;
};

Pod* WaypointChange::next_pod;
std::unique_ptr<Envoy> WaypointChange::next;

// ---- under load

TEST_F(WaypointChange, ComesGoesAndChangesUnderLoadWithoutAFailedRequest) {
  SteadyLoad load;
  for (const bool v6 : {false, true}) {
    load.request(*client, vip(v6), false);
    load.request(*other, vip(v6), true);
  }
  load.expect_all_go_on("with a waypoint");
  const auto change = [&](const char* what, const json& more) {
    set(more);
    load.expect_all_go_on(what);
  };
  for (int round = 0; round < 3; ++round) {
    change("it has gone", json::object());
    change("it is back", through(the_waypoint()));
    change("it is another one", through(the_next()));
    change("by weight", weighted(90, 10));
    change("by other weights", weighted(10, 90));
    change("all by the second one", weighted(0, 1));
    change("by an address", through("/" + waypoint->address_v4().to_string()));
  }
  std::printf("%zu requests were answered\n", load.answered());
}

TEST_F(WaypointChange, ConnectionsKeepTheWaypointThatTheyHaveAndNewOnesTakeTheNewOne) {
  Process kept = client->start(
      {program("weft-testapp"), "get", vip().to_string(), "--keep-alive", "--count", "100000000", "--marker", "kept"});
  ASSERT_TRUE(kept.wait_for_output("path=/kept", kSoon)) << kept.out() << kept.err();
  set(through(the_next()));
  ASSERT_TRUE(get_from(*client, vip(), {"--count", "20", "--marker", "fresh"}).ok());
  const std::size_t at_change = seen(*envoy, "kept");
  EXPECT_TRUE(eventually(kSoon, [&] { return seen(*envoy, "kept") > at_change + 20; })) << "by the first one still";
  EXPECT_TRUE(kept.running());
  EXPECT_EQ(seen(*next, "kept"), 0U);
  EXPECT_EQ(seen_by(*next, 0, {"path=/fresh "}, 20).size(), 20U);
  EXPECT_EQ(seen(*envoy, "fresh"), 0U);
}

TEST_F(WaypointChange, WeightsAreThoseOfConnections) {
  set(weighted(3, 1));
  ASSERT_TRUE(get_from(*client, vip(), {"--count", "1000", "--marker", "shared"}).ok());
  EXPECT_TRUE(eventually(kSoon, [&] { return seen(*envoy, "shared") + seen(*next, "shared") == 1000; }));
  std::printf("first %zu, second %zu of 1000\n", seen(*envoy, "shared"), seen(*next, "shared"));
  // Four standard deviations.
  EXPECT_NEAR(static_cast<double>(seen(*envoy, "shared")), 750, 55);
}

TEST_F(WaypointChange, WithoutItsServiceClientsReachThePodsDirectlyAgain) {
  set(json::object());
  ASSERT_TRUE(get_from(*client, vip(), {"--count", "10", "--marker", "direct"}).ok());
  EXPECT_EQ(seen(*envoy, "direct"), 0U);
}

// ---- one that dies

TEST_F(WaypointChange, OneOfTwoEndpointsDies) {
  Pod* second = add_waypoint(mesh(), 1, "second");
  mesh().add_service("infra", "pair", 15008, 15008, {waypoint, second});
  const auto second_envoy = start_envoy(*second);
  set(through("infra/pair.infra.svc.cluster.local"));
  Process kept = client->start({program("weft-testapp"), "get", vip().to_string(), "--keep-alive", "--count",
                                "100000000", "--marker", "on-the-dying"});
  // By weight it is on either; new ones until one is on the one that dies.
  ASSERT_TRUE(kept.wait_for_output("path=/on-the-dying", kSoon));
  for (int i = 0; i < 50 && seen(*second_envoy, "on-the-dying") == 0; ++i) {
    kept = client->start({program("weft-testapp"), "get", vip().to_string(), "--keep-alive", "--count", "100000000",
                          "--marker", "on-the-dying"});
    ASSERT_TRUE(kept.wait_for_output("path=/on-the-dying", kSoon));
    (void)eventually(milliseconds(500), [&] { return seen(*second_envoy, "on-the-dying") > 0; });
  }
  ASSERT_GT(seen(*second_envoy, "on-the-dying"), 0U);
  second_envoy->kill();
  // What it carried is lost, and the client hears of it.
  const auto ended = kept.wait(kSoon);
  ASSERT_TRUE(ended.has_value()) << "the client hangs";
  EXPECT_NE(*ended, 0);
  // What comes from now on is not.
  const Finished done = get_from(*client, vip(), {"--count", "300", "--marker", "after-the-death"});
  EXPECT_TRUE(done.ok()) << ::testing::PrintToString(done);
  EXPECT_EQ(count_lines(done.out, "server="), 300U);
  mesh().remove_pod(*second);
}

TEST_F(WaypointChange, TheOnlyOneDiesAndNothingGoesPastIt) {
  ASSERT_TRUE(get_from(*client, vip()).ok());
  envoy->kill();
  const std::string said = failure("after-its-death");
  EXPECT_THAT(said, HasSubstr("waypoint " + the_waypoint() + ": connect " +
                              Endpoint({waypoint->address_v4(), 15008}).to_string()));
  EXPECT_THAT(said, HasSubstr("response_flags=CONNECT"));
  EXPECT_THAT(said, HasSubstr("dst.service=web.shop.svc.cluster.local"));
  EXPECT_TRUE(get_from(*client, v1a->v4()).ok()) << "what has no waypoint goes on";
  envoy->start();
  EXPECT_TRUE(get_from(*client, vip(), {"--count", "20"}).ok()) << "when it is back";
}

TEST_F(WaypointChange, WhatItWasCarryingWhenTheOnlyOneDiedIsResetAndItComesBackUnderLoad) {
  Process kept = client->start({program("weft-testapp"), "get", vip().to_string(), "--keep-alive", "--count",
                                "100000000", "--marker", "carried"});
  ASSERT_TRUE(kept.wait_for_output("path=/carried", kSoon));
  envoy->kill();
  const auto ended = kept.wait(kSoon);
  ASSERT_TRUE(ended.has_value()) << "the client hangs";
  EXPECT_NE(*ended, 0);
  envoy->start();
  SteadyLoad load;
  load.request(*client, vip(), false);
  load.expect_all_go_on("after it came back");
}

// ---- one that is not there

TEST_F(WaypointChange, OnesThatCannotBeFoundFailByName) {
  set(through("infra/gone.infra.svc.cluster.local"));
  EXPECT_THAT(failure("to-nowhere"),
              HasSubstr("waypoint infra/gone.infra.svc.cluster.local: there is no such service"));
  set(through("/10.99.99.99"));
  EXPECT_THAT(failure("to-nobody"), HasSubstr("waypoint /10.99.99.99: no workload and no service has that address"));
}

TEST_F(WaypointChange, WithoutAHealthyEndpointItFailsByName) {
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}, {"status", "Unhealthy"}});
  EXPECT_THAT(failure("to-the-sick"), HasSubstr("has no usable endpoint: 1 unhealthy"));
  mesh().change_workload(*waypoint, {{"nativeTunnel", true}});
  EXPECT_TRUE(get_from(*client, vip()).ok());
}

TEST_F(WaypointChange, ByTheAddressOfItsPodOrItsService) {
  const auto [v4, v6] = mesh().add_service("infra", "vips", 15008, 15008, {waypoint});
  int number = 0;
  for (const auto& address : {waypoint->address_v4(), waypoint->address_v6(), v4, v6}) {
    set(through("/" + address.to_string()));
    const std::string marker = "by-address-" + std::to_string(++number);
    EXPECT_TRUE(get_from(*client, vip(), {"--marker", marker}).ok()) << address.to_string();
    EXPECT_EQ(seen_by(*envoy, 0, {"path=/" + marker + " "}).size(), 1U) << address.to_string();
  }
}

}  // namespace
}  // namespace weft::test
