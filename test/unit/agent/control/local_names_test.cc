// SPDX-License-Identifier: Apache-2.0
// Workloads of the local file that are names, to be resolved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/control/local_config.h"

namespace weft::control {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::string& text) {
  const auto result = parse_local_config("weft.yaml", text);
  return result ? "accepted" : result.error().message();
}

TEST(LocalConfig, AWorkloadMayBeANameAlone) {
  const auto parsed = parse_local_config(
      "weft.yaml",
      "workloads: [{name: api, namespace: shop, hostname: api.example.com, services: {shop/api.test: {80: 443}}}]");
  ASSERT_TRUE(parsed) << parsed.error().message();
  const auto& input = *parsed;
  ASSERT_EQ(input.workloads.size(), 1U);
  EXPECT_EQ(input.workloads[0].hostname, "api.example.com");
  EXPECT_TRUE(input.workloads[0].addresses.empty());
  EXPECT_EQ(input.workloads[0].protocol, state::TunnelProtocol::kTcp);
}

TEST(LocalConfigErrors, ANameToLookUpMustBeOne) {
  for (const char* name : {"'*.example.com'", "10.0.0.1", "a..b", "'a b'"}) {
    EXPECT_THAT(error_of(std::string("workloads:\n- {name: a, namespace: ns, hostname: ") + name + "}\n"),
                HasSubstr("workloads[0].hostname: "))
        << name;
    EXPECT_EQ(error_of(std::string("workloads:\n- {name: a, namespace: ns, workloadIps: [10.0.0.1], hostname: ") +
                       name + "}\n"),
              "accepted")
        << "with addresses it is not looked up";
  }
}

}  // namespace
}  // namespace weft::control
