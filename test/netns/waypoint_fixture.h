// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "test/netns/envoy.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// The field's canary: the service shop/web, with two pods of version 1 and one of version 2, behind a waypoint in
/// another namespace, which is Envoy with the configuration of manifests/examples/waypoint-canary. Pods client and
/// other beside them. The waypoint's pod is not captured. One mesh for all cases of a suite.
class WaypointTest : public ::testing::Test {
 protected:
  static constexpr const char* kWaypointHost = "waypoint.infra.svc.cluster.local";
  static constexpr milliseconds kSoon{10'000};

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  /// Tells what agents and Envoy said in a case that failed.
  void TearDown() override;

  static Mesh& mesh() { return *mesh_; }
  static Node& node1() { return mesh_->node(1); }
  static Node& node2() { return mesh_->node(2); }
  static Endpoint vip(bool v6 = false) { return {v6 ? vip_v6_ : vip_v4_, 80}; }
  /// A pod that is a waypoint and not captured: it takes HBONE itself.
  static Pod* add_waypoint(Mesh& mesh, int node, const char* name, const char* account = "waypoint");
  /// Envoy there, for the service of this fixture.
  static std::unique_ptr<Envoy> start_envoy(const Pod& pod);
  /// The reference to a waypoint in a service's entry.
  static nlohmann::json named(const std::string& destination, int port = 15008) {
    return {{"destination", destination}, {"hboneMtlsPort", port}};
  }
  static nlohmann::json through(const std::string& destination) { return {{"waypoint", named(destination)}}; }
  static std::string the_waypoint() { return std::string("infra/") + kWaypointHost; }

  /// Lines of Envoy's access log from `offset` on with all of these words, once there are `least`.
  static std::vector<std::string> seen_by(const Envoy& envoy, std::size_t offset, const std::vector<std::string>& words,
                                          std::size_t least = 1);

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *other, *v1a, *v1b, *v2, *waypoint;
  static std::unique_ptr<Envoy> envoy;
  static Process* v1b_server;  ///< the application of web-v1b

 private:
  static IpAddress vip_v4_, vip_v6_;
  AgentLogs logs_;
  std::size_t envoy_before_ = 0;
};

/// Requests one after the other, each on a connection of its own, from a client that knows nothing of it all.
Finished get_from(const Pod& pod, const Endpoint& to, const std::vector<std::string>& arguments = {});

/// How many lines of `out` carry the text.
std::size_t count_lines(const std::string& out, const std::string& text);

}  // namespace weft::test
