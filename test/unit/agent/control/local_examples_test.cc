// SPDX-License-Identifier: Apache-2.0
/// The meshes of manifests/examples.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "agent/control/local_config.h"

namespace weft::control {
namespace {

TEST(LocalExamples, TheCanaryGoesThroughItsWaypoint) {
  const std::string path = WEFT_SOURCES "/manifests/examples/waypoint-canary/mesh.yaml";
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  auto read = parse_local_config(path, text.str());
  ASSERT_TRUE(read.has_value()) << read.error().message();
  const auto built = state::State::build(std::move(*read));
  ASSERT_TRUE(built.has_value()) << built.error().message();
  const state::State& mesh = **built;
  const auto to = mesh.route(*mesh.workload_by_pod("shop", "client"), Endpoint::parse("10.96.0.10:80").value(), 0);
  EXPECT_EQ(to.hbone.to_string(), "10.0.2.50:15008") << to.reason;
  EXPECT_EQ(to.target.to_string(), "10.96.0.10:80");
}

}  // namespace
}  // namespace weft::control
