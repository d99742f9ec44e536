// SPDX-License-Identifier: Apache-2.0
#include "test/istio/fixture.h"

#include <chrono>
#include <cstdio>

namespace weft::test {

std::unique_ptr<Cluster> IstioTest::cluster_;

bool IstioTest::make_cluster(ClusterOptions options) {
  if (!Cluster::missing().empty()) return false;
  const auto before = std::chrono::steady_clock::now();
  cluster_ = std::make_unique<Cluster>(std::move(options));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
  std::printf("  API server, istiod and both agents ready after %.1f s\n", took.count());
  return true;
}

void IstioTest::SetUp() {
  if (const std::string why = Cluster::missing(); !why.empty()) GTEST_SKIP() << why;
  ASSERT_NE(cluster_, nullptr) << "the cluster could not be made";
  logs_.mark(cluster().mesh());
}

void IstioTest::TearDown() {
  if (!HasFailure() || !cluster_) return;
  logs_.tell(cluster().mesh());
  std::fprintf(stderr, "---- istiod:\n%s\n", cluster().istiod().log().c_str());
}

void expect_soon(const std::string& what, const std::function<void()>& change, const std::function<bool()>& holds,
                 milliseconds within) {
  change();
  const auto before = std::chrono::steady_clock::now();
  // It is told how late it came rather than that it did not.
  const bool came = eventually(within * 10, holds);
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - before);
  std::printf("  %s: %lld ms\n", what.c_str(), static_cast<long long>(took.count()));
  EXPECT_TRUE(came) << what;
  EXPECT_LE(took.count(), stretched(within).count()) << what;
}

}  // namespace weft::test
