// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/demand.h"

#include <gmock/gmock.h>

#include "test/unit/state/builders.h"

namespace weft::state::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

GatewayAddress by_name(const std::string& hostname) { return {NamespacedHostname{"ns", hostname}}; }
GatewayAddress by_address(const std::string& address) { return {NetworkAddress{"", ip(address)}}; }

class NamesToAsk : public ::testing::Test {
 protected:
  std::vector<std::string> names(const std::string& address) {
    return names_to_ask(*build({client_, web_}, {service_}), client_, ip(address));
  }

  Workload client_ = pod("client", {"10.0.0.100", "2001:db8::100"});
  Workload web_ = pod("web", {"10.0.0.1"});
  Service service_ = service("web.test", {"10.1.0.1", "10.0.0.200"});
};

TEST_F(NamesToAsk, AnAddressThatIsNobodysIsAskedForInTheSourcesNetwork) {
  EXPECT_THAT(names("192.0.2.7"), ElementsAre("/192.0.2.7"));
  EXPECT_THAT(names("2001:db8::7"), ElementsAre("/2001:db8::7"));
  client_.network = "n1";
  EXPECT_THAT(names("10.0.0.1"), ElementsAre("n1/10.0.0.1")) << "that of another network is another address";
}

TEST_F(NamesToAsk, AKnownWorkloadIsNotAskedForAndAServiceIs) {
  EXPECT_THAT(names("10.0.0.1"), IsEmpty());
  EXPECT_THAT(names("127.0.0.1"), IsEmpty());
  EXPECT_THAT(names("10.1.0.1"), ElementsAre("ns/web.test"));
}

TEST_F(NamesToAsk, InARangeTheAddressIsAskedForToo) {
  service_.cidr_vips = {{"", range("10.2.0.0/16")}};
  EXPECT_THAT(names("10.2.3.4"), ElementsAre("ns/web.test", "/10.2.3.4"));
  EXPECT_THAT(names("10.1.0.1"), ElementsAre("ns/web.test"));
}

/// For such an address istiod tells of the workload alone.
TEST_F(NamesToAsk, APlainWorkloadMayHaveTheAddressOfAService) {
  web_ = serving(plain_pod("web", {"10.0.0.200"}), "other.test");
  EXPECT_THAT(names("10.0.0.200"), ElementsAre("ns/web.test", "ns/other.test"));
  service_.waypoint = by_name("wp.test");
  EXPECT_THAT(names("10.0.0.200"), ElementsAre("ns/web.test", "ns/other.test", "ns/wp.test"));
}

TEST_F(NamesToAsk, WaypointsAreAskedForToo) {
  web_.waypoint = by_name("wp.test");
  EXPECT_THAT(names("10.0.0.1"), ElementsAre("ns/wp.test"));
  web_.waypoint = by_address("10.1.0.1");
  EXPECT_THAT(names("10.0.0.1"), ElementsAre("ns/web.test"));
  web_.waypoint = by_address("10.1.0.9");
  EXPECT_THAT(names("10.0.0.1"), ElementsAre("/10.1.0.9"));
  service_.waypoint = by_address("10.0.0.100");
  service_.weighted_waypoints = {{by_name("a.test"), 0}, {by_name("b.test"), 3}};
  EXPECT_THAT(names("10.1.0.1"), ElementsAre("ns/web.test", "ns/a.test", "ns/b.test"))
      << "also those that get nothing: the source may be one of them";
}

TEST_F(NamesToAsk, AWaypointToItselfIsNoMatter) {
  client_.waypoint = by_name("wp.test");
  EXPECT_THAT(names("10.0.0.100"), IsEmpty());
}

}  // namespace
}  // namespace weft::state::test
