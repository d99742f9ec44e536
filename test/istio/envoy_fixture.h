// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include "test/istio/fixture.h"
#include "test/istio/istio_envoy.h"

namespace weft::test {

/// A cluster whose istiod configures Envoys.
class IstioEnvoyTest : public IstioTest {
 protected:
  /// For SetUpTestSuite, as IstioTest::make_cluster.
  static bool make_cluster(ClusterOptions options = {}) {
    options.istiod_environment = IstioEnvoy::istiod_environment();
    return IstioEnvoy::missing().empty() && IstioTest::make_cluster(std::move(options));
  }
  void SetUp() override {
    if (const std::string why = IstioEnvoy::missing(); !why.empty()) GTEST_SKIP() << why;
    IstioTest::SetUp();
  }
  /// Tells what Envoy had to complain about in a case that failed.
  static void tell_of(const IstioEnvoy* envoy) {
    if (HasFailure() && envoy != nullptr) std::fprintf(stderr, "---- Envoy:\n%s\n", envoy->trouble().c_str());
  }
};

}  // namespace weft::test
