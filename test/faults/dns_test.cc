// SPDX-License-Identifier: Apache-2.0
/// Looking names up while the kernel's calls fail.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/faults/injector.h"
#include "test/support/dns_server.h"
#include "tunnel/dns/lookup.h"

namespace weft::test {
namespace {

using testing::ElementsAre;

constexpr std::uint64_t kSeeds = 60;

TEST(FaultyDns, ALookupHasAnAnswerOrAReason) {
  DnsServer server({IpAddress::parse("127.0.0.1").value(), 0});
  server.set("plain.test", {"plain.test. 60 IN A 192.0.2.1"});
  server.set("long.test", DnsAnswer{{"long.test. 60 IN A 192.0.2.1"}, DnsAnswer::Manner::kTruncated});
  const Endpoint at{IpAddress::parse("127.0.0.1").value(), server.port()};
  std::size_t found = 0, failed = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    FaultInjector injector(seed, 0, seed % 3 == 0 ? Harm::kTransient : Harm::kAny);
    auto loop = loop::EventLoop::create().value();
    injector.enter();
    for (const char* name : {"plain.test", "long.test", "plain.test", "long.test"}) {
      std::optional<dns::Outcome> outcome;
      // Long, so that what comes of a timer would be seen.
      dns::Lookup lookup(*loop, {.try_timeout = seconds(60), .tries = 2}, {at}, name,
                         [&](dns::Outcome result) { outcome = std::move(result); });
      lookup.start();
      const auto deadline = std::chrono::steady_clock::now() + seconds(20);
      while (!outcome && std::chrono::steady_clock::now() < deadline) loop->run_once(milliseconds(1000));
      ASSERT_TRUE(outcome) << "seed " << seed << ", " << name << ": no end\n" << injector.trace();
      if (outcome->addresses.empty()) {
        ++failed;
        EXPECT_NE(outcome->reason, "") << "seed " << seed;
        EXPECT_NE(seed % 3, 0U) << "seed " << seed << ": " << outcome->reason;
      } else {
        ++found;
        EXPECT_THAT(outcome->addresses, ElementsAre(IpAddress::parse("192.0.2.1").value()));
      }
    }
    injector.leave();
  }
  EXPECT_GT(found, kSeeds);
  EXPECT_GT(failed, 0U);
}

}  // namespace
}  // namespace weft::test
