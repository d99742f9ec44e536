// SPDX-License-Identifier: Apache-2.0
#include "test/netns/waypoint_fixture.h"

#include <algorithm>
#include <iostream>
#include <sstream>

namespace weft::test {

using nlohmann::json;

std::unique_ptr<Mesh> WaypointTest::mesh_;
std::unique_ptr<Envoy> WaypointTest::envoy;
Process* WaypointTest::v1b_server;
Pod *WaypointTest::client, *WaypointTest::other, *WaypointTest::v1a, *WaypointTest::v1b, *WaypointTest::v2,
    *WaypointTest::waypoint;
IpAddress WaypointTest::vip_v4_, WaypointTest::vip_v6_;

namespace {

Pod* add(Mesh& mesh, int node, const char* name, const char* account) {
  PodOptions options;
  options.service_account = account;
  return &mesh.add_pod(node, "shop", name, options);
}

}  // namespace

void WaypointTest::SetUpTestSuite() {
  if (!is_root() || Envoy::executable().empty()) return;
  auto made = std::make_unique<Mesh>();
  client = add(*made, 1, "client", "client");
  other = add(*made, 1, "other", "other");
  v1a = add(*made, 1, "web-v1a", "web");
  v1b = add(*made, 2, "web-v1b", "web");
  v2 = add(*made, 2, "web-v2", "web");
  v1a->serve();
  v1b_server = &v1b->serve();
  v2->serve();
  waypoint = add_waypoint(*made, 2, "waypoint");
  made->add_service("infra", "waypoint", 15008, 15008, {waypoint});
  std::tie(vip_v4_, vip_v6_) =
      made->add_service("shop", "web", 80, Pod::kPort, {v1a, v1b, v2}, through(the_waypoint()));
  mesh_ = std::move(made);
  envoy = start_envoy(*waypoint);
}

void WaypointTest::TearDownTestSuite() {
  envoy.reset();
  mesh_.reset();
}

void WaypointTest::SetUp() {
  WEFT_NEEDS_ROOT();
  if (Envoy::executable().empty()) GTEST_SKIP() << "there is no Envoy (scripts/envoy gets it, WEFT_ENVOY names one)";
  ASSERT_NE(envoy, nullptr) << "the mesh could not be made";
  logs_.mark(mesh());
  envoy_before_ = envoy->log().size();
}

void WaypointTest::TearDown() {
  if (!HasFailure() || !envoy) return;
  logs_.tell(mesh());
  std::cerr << "---- Envoy:\n" << envoy->log().substr(envoy_before_) << envoy->trouble();
}

Pod* WaypointTest::add_waypoint(Mesh& mesh, int node, const char* name, const char* account) {
  PodOptions options;
  options.service_account = account;
  options.weft_cni = false;
  options.workload = {{"nativeTunnel", true}};
  return &mesh.add_pod(node, "infra", name, options);
}

std::unique_ptr<Envoy> WaypointTest::start_envoy(const Pod& pod) {
  return std::make_unique<Envoy>(
      mesh(), pod, example("waypoint-canary/envoy.yaml"),
      std::vector<std::pair<std::string, std::string>>{{"10.96.0.10:80", vip().to_string()},
                                                       {"[fd96::10]:80", vip(true).to_string()},
                                                       {"10.0.2.11:8080", v1a->v4().to_string()},
                                                       {"10.0.2.12:8080", v1b->v4().to_string()},
                                                       {"10.0.2.21:8080", v2->v4().to_string()}});
}

Finished get_from(const Pod& pod, const Endpoint& to, const std::vector<std::string>& arguments) {
  std::vector<std::string> all{program("weft-testapp"), "get", to.to_string()};
  // A machine with other work is no failure.
  if (std::ranges::find(arguments, "--timeout") == arguments.end()) all.insert(all.end(), {"--timeout", "20"});
  all.insert(all.end(), arguments.begin(), arguments.end());
  return pod.start(all).finish(milliseconds(120'000));
}

std::vector<std::string> WaypointTest::seen_by(const Envoy& envoy, std::size_t offset,
                                               const std::vector<std::string>& words, std::size_t least) {
  std::vector<std::string> lines;
  (void)eventually(kSoon, [&] { return (lines = log_lines(envoy.log(), offset, words)).size() >= least; });
  return lines;
}

std::size_t count_lines(const std::string& out, const std::string& text) {
  std::size_t count = 0;
  std::istringstream lines(out);
  for (std::string line; std::getline(lines, line);) count += line.find(text) != std::string::npos ? 1 : 0;
  return count;
}

}  // namespace weft::test
