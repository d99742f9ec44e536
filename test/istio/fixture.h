// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "test/istio/cluster.h"

namespace weft::test {

/// One cluster for all cases of a suite; a case leaves it as it found it.
class IstioTest : public ::testing::Test {
 protected:
  /// What a policy may take from the API's answer until it holds on both nodes.
  static constexpr milliseconds kPolicyTime{1'000};

  /// For a suite's SetUpTestSuite: false where the programs are not here, and its cases are skipped then.
  static bool make_cluster(ClusterOptions options = {});
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override;
  /// Tells what agents and istiod said in a case that failed.
  void TearDown() override;

  static Cluster& cluster() { return *cluster_; }
  static Node& node(int index) { return cluster_->node(index); }

 private:
  static std::unique_ptr<Cluster> cluster_;
  AgentLogs logs_;
};

/// Makes the change and expects `holds` to become true within that time; tells how long it took.
void expect_soon(const std::string& what, const std::function<void()>& change, const std::function<bool()>& holds,
                 milliseconds within);

}  // namespace weft::test
