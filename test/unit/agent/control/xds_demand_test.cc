// SPDX-License-Identifier: Apache-2.0
/// On demand: what the cache says to istiod, which is asked for what is not there.
#include <gmock/gmock.h>

#include "agent/control/xds_cache.h"
#include "test/unit/agent/control/xds_fixture.h"

namespace weft::control {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using namespace test;

const std::string kWeb = "Kubernetes//Pod/shop/web", kService = "shop/web.shop.svc";

class XdsDemandTest : public ::testing::Test {
 protected:
  XdsDemandTest() { (void)cache_.open(); }
  /// The only request that asks.
  XdsCache::Request asked(const std::vector<std::string>& names) {
    auto requests = cache_.ask(names);
    EXPECT_EQ(requests.size(), 1U);
    return std::move(requests.at(0));
  }
  static XdsCache::Response response(const std::string& nonce, const istio::workload::Workload& workload,
                                     const std::vector<std::string>& aliases) {
    XdsCache::Response out = addresses(nonce).add(workload);
    for (const auto& alias : aliases) out.mutable_resources(0)->add_aliases(alias);
    return out;
  }
  static XdsCache::Response service(const std::string& nonce, const std::string& alias) {
    XdsCache::Response out =
        addresses(nonce).add(wire_service("name: 'web' namespace: 'shop' hostname: 'web.shop.svc'"));
    out.mutable_resources(0)->add_aliases(alias);
    return out;
  }

  XdsCache cache_{XdsCache::Node(), XdsCache::Wanted::kOnDemand};
};

TEST_F(XdsDemandTest, AStreamBeginsWithNoAddressAndAllPolicies) {
  const auto requests = cache_.open();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_THAT(requests[0].resource_names_subscribe(), ElementsAre("*"));
  EXPECT_THAT(requests[0].resource_names_unsubscribe(), ElementsAre("*"));
  EXPECT_THAT(requests[1].resource_names_subscribe(), IsEmpty());
  EXPECT_THAT(requests[1].resource_names_unsubscribe(), IsEmpty());
}

TEST_F(XdsDemandTest, AsksByName) {
  const auto request = asked({"/10.0.0.1", "shop/wp.test"});
  EXPECT_EQ(request.type_url(), XdsCache::kAddressUrl);
  EXPECT_EQ(request.response_nonce(), "");
  EXPECT_THAT(request.resource_names_subscribe(), ElementsAre("/10.0.0.1", "shop/wp.test"));
  EXPECT_THAT(request.resource_names_unsubscribe(), IsEmpty());
}

TEST_F(XdsDemandTest, SaysWhatIsAnsweredByWhateverName) {
  (void)asked({"/10.0.0.1", "/10.9.9.9"});
  const auto found = cache_.take(response("1", wire_pod("web", 1), {"/10.0.0.1", "/2001:db8::1"}));
  EXPECT_THAT(found.answered, UnorderedElementsAre(ElementsAre("/10.0.0.1"), ElementsAre("/2001:db8::1")));
  EXPECT_TRUE(found.changed);
  const auto none = cache_.take(addresses("2").remove("/10.9.9.9"));
  EXPECT_THAT(none.answered, ElementsAre(ElementsAre("/10.9.9.9")));
  EXPECT_FALSE(none.changed) << "that nobody has an address changes nothing of the mesh";
  EXPECT_THAT(cache_.take(service("3", "/10.1.0.1")).answered,
              ElementsAre(UnorderedElementsAre("/10.1.0.1", kService)));
}

TEST_F(XdsDemandTest, WhatIsRefusedIsNoAnswer) {
  (void)asked({"/10.0.0.1"});
  auto bad = response("1", wire_pod("web", 1), {"/10.0.0.1"});
  bad.mutable_resources(0)->set_name("another");
  const auto taken = cache_.take(bad);
  EXPECT_THAT(taken.answered, IsEmpty());
  EXPECT_THAT(taken.unreadable, ElementsAre("/10.0.0.1", "another"));
}

TEST_F(XdsDemandTest, WhereANewVersionIsRefusedTheLastOneIsTheAnswer) {
  (void)cache_.take(service("1", "/10.1.0.1"));
  auto bad = service("2", "/10.1.0.1");
  bad.mutable_resources(0)->set_version("v2");
  istio::workload::Address address;
  address.mutable_service()->set_hostname("of another");
  bad.mutable_resources(0)->mutable_resource()->PackFrom(address);
  const auto taken = cache_.take(bad);
  EXPECT_EQ(taken.refused, 1U);
  EXPECT_THAT(taken.answered, ElementsAre(UnorderedElementsAre("/10.1.0.1", kService)));
  EXPECT_THAT(taken.unreadable, IsEmpty());
}

TEST_F(XdsDemandTest, ARangeIsAlsoAnAnswerForItsAddress) {
  (void)asked({"/10.2.0.0"});
  EXPECT_THAT(cache_.take(service("1", "/10.2.0.0/16")).answered,
              ElementsAre(UnorderedElementsAre("/10.2.0.0/16", "/10.2.0.0", kService)));
  EXPECT_THAT(asked({"/10.0.0.2"}).resource_names_unsubscribe(), ElementsAre("/10.2.0.0"));
}

TEST_F(XdsDemandTest, ARefusedResourceIsAskedForInTwoRequests) {
  auto bad = response("1", wire_pod("web", 1), {"/10.0.0.1"});
  bad.mutable_resources(0)->set_name("shop/odd");
  (void)cache_.take(bad);
  EXPECT_EQ(cache_.ask({"shop/odd"}).size(), 2U);
}

/// istiod tells of it when it is back, and goes on telling unless it is told not to.
TEST_F(XdsDemandTest, AWorkloadThatIsGoneIsNotLetGo) {
  (void)asked({"/10.0.0.1"});
  (void)cache_.take(response("1", wire_pod("web", 1), {"/10.0.0.1"}));
  (void)cache_.take(addresses("2").remove(kWeb));
  EXPECT_THAT(asked({"/10.0.0.2"}).resource_names_unsubscribe(), ElementsAre("/10.0.0.1"));
  (void)cache_.take(response("3", wire_pod("web", 1), {"/10.0.0.1"}));
  EXPECT_THAT(asked({"/10.0.0.3"}).resource_names_unsubscribe(), IsEmpty());
}

TEST_F(XdsDemandTest, PoliciesAnswerNothing) {
  EXPECT_THAT(cache_.take(policies("1").remove("a/b")).answered, IsEmpty());
}

TEST_F(XdsDemandTest, AddressesThatAreAnsweredAreLetGoWithTheNextQuestion) {
  (void)asked({"/10.0.0.1", "/10.9.9.9"});
  (void)cache_.take(response("1", wire_pod("web", 1), {"/10.0.0.1", "/10.0.0.99"}));
  (void)cache_.take(addresses("2").remove("/10.9.9.9"));
  const auto request = asked({"/10.0.0.2"});
  EXPECT_THAT(request.resource_names_subscribe(), ElementsAre("/10.0.0.2"));
  EXPECT_THAT(request.resource_names_unsubscribe(), UnorderedElementsAre("/10.0.0.1", "/10.9.9.9"))
      << "not what was never asked for, and not the workload, whose changes are to be told";
  EXPECT_THAT(asked({"/10.0.0.3"}).resource_names_unsubscribe(), IsEmpty());
}

/// istiod says nothing to a name that it has; a name that comes and goes in one request is not subscribed to; and a
/// request that asks for nothing is answered with the removal of everything.
TEST_F(XdsDemandTest, AsksAgainInTwoRequests) {
  for (const char* name : {kService.c_str(), "/10.1.0.1"}) {
    (void)cache_.open();
    (void)asked({"/10.1.0.1"});
    (void)cache_.take(service("1", "/10.1.0.1"));
    const auto requests = cache_.ask({name});
    ASSERT_EQ(requests.size(), 2U) << name;
    EXPECT_THAT(requests[0].resource_names_unsubscribe(), ::testing::Contains(name));
    EXPECT_THAT(requests[0].resource_names_subscribe(), ElementsAre("/0.0.0.0"));
    EXPECT_THAT(requests[1].resource_names_subscribe(), ElementsAre(name));
    EXPECT_THAT(requests[1].resource_names_unsubscribe(), ElementsAre("/0.0.0.0"));
  }
}

TEST_F(XdsDemandTest, WhatComesAgainAsItWasIsNoChangeOfTheMesh) {
  (void)asked({"/10.1.0.1"});
  (void)cache_.take(service("1", "/10.1.0.1"));
  EXPECT_EQ(cache_.changes().services.size(), 1U);
  EXPECT_THAT(cache_.take(service("2", "/10.1.0.1")).answered.size(), 1U);
  EXPECT_EQ(cache_.changes().services.size(), 0U);
}

TEST_F(XdsDemandTest, WhatIsGoneIsAskedForAnew) {
  (void)asked({"/10.1.0.1"});
  (void)cache_.take(service("1", "/10.1.0.1"));
  (void)cache_.take(addresses("2").remove(kService));
  EXPECT_EQ(cache_.ask({kService}).size(), 2U);
}

TEST_F(XdsDemandTest, ANewStreamKnowsWhatIsThereAndNothingThatWasAsked) {
  (void)asked({"/10.0.0.1", "/10.9.9.9"});
  (void)cache_.take(response("1", wire_pod("web", 1), {"/10.0.0.1"}));
  const auto requests = cache_.open();
  ASSERT_EQ(requests[0].initial_resource_versions().size(), 1U);
  EXPECT_EQ(requests[0].initial_resource_versions().begin()->first, kWeb);
  EXPECT_THAT(asked({"/10.9.9.9"}).resource_names_unsubscribe(), IsEmpty());
}

}  // namespace
}  // namespace weft::control
