// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_cache.h"

#include <gmock/gmock.h>

#include "test/unit/agent/control/xds_fixture.h"

namespace weft::control {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;
using namespace test;

const std::string kPod = "Kubernetes//Pod/shop/";
const std::string kBadMatch = "groups { rules { matches { principals {} } } }";

XdsCache::Node node() {
  XdsCache::Node out;
  out.set_id("me");
  return out;
}

istio::security::Authorization policy(const std::string& name, const std::string& more) {
  return wire_policy("name: '" + name + "' namespace: 'shop' " + more);
}

class XdsCacheTest : public ::testing::Test {
 protected:
  /// Takes what must be good.
  void good(const XdsCache::Response& response) {
    const auto taken = cache_.take(response);
    EXPECT_FALSE(taken.reply.has_error_detail()) << taken.reply.error_detail().message();
    EXPECT_EQ(taken.refused, 0U);
    EXPECT_EQ(taken.reply.response_nonce(), response.nonce());
    EXPECT_EQ(taken.reply.type_url(), response.type_url());
  }
  std::string refusal(const XdsCache::Response& response) {
    const auto taken = cache_.take(response);
    EXPECT_EQ(taken.reply.response_nonce(), response.nonce());
    EXPECT_EQ(taken.reply.error_detail().code(), 3);
    return taken.reply.error_detail().message();
  }
  /// The mesh as it is now.
  const state::State& mesh() {
    mesh_ = mesh_->with(cache_.changes());
    return *mesh_;
  }
  std::vector<std::string> names() {
    std::vector<std::string> out;
    const auto& all = mesh();
    for (const auto& workload : all.workloads()) out.push_back(workload->name);
    for (const auto& service : all.services()) out.push_back(service->hostname);
    for (const auto& one : all.policies()) out.push_back(one->name);
    return out;
  }
  std::map<std::string, std::string> versions(std::size_t type) {
    const auto requests = cache_.open();
    const auto& map = requests.at(type).initial_resource_versions();
    return {map.begin(), map.end()};
  }

  XdsCache cache_{node()};
  std::shared_ptr<const state::State> mesh_ = state::State::empty();
};

TEST_F(XdsCacheTest, AStreamBeginsWithAllOfBothTypes) {
  const auto requests = cache_.open();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].type_url(), "type.googleapis.com/istio.workload.Address");
  EXPECT_EQ(requests[1].type_url(), "type.googleapis.com/istio.security.Authorization");
  for (const auto& request : requests) {
    EXPECT_EQ(request.node().id(), "me");
    EXPECT_THAT(request.resource_names_subscribe(), IsEmpty());
    EXPECT_THAT(request.initial_resource_versions(), IsEmpty());
    EXPECT_EQ(request.response_nonce(), "");
  }
}

TEST_F(XdsCacheTest, IsCompleteOnceBothTypesWereAnswered) {
  EXPECT_FALSE(cache_.complete());
  good(addresses("1"));
  EXPECT_FALSE(cache_.complete());
  good(policies("2"));
  EXPECT_TRUE(cache_.complete());
}

TEST_F(XdsCacheTest, TakesAddsChangesAndRemovals) {
  good(addresses("1").add(wire_pod("a", 1)).add(wire_pod("b", 2)).add(wire_service("namespace: 'shop' hostname: 's'")));
  good(policies("2").add(policy("p", "")));
  EXPECT_THAT(names(), ElementsAre("a", "b", "s", "p"));
  good(addresses("3").add(wire_pod("a", 9), "v2").remove("shop/s"));
  EXPECT_THAT(names(), ElementsAre("b", "a", "p"));
  EXPECT_EQ(mesh().workloads()[1]->addresses[0].to_string(), "10.0.0.9");
  good(policies("4").remove("shop/p"));
  EXPECT_THAT(names(), ElementsAre("b", "a"));
}

TEST_F(XdsCacheTest, RemovalsOfWhatItNeverHadChangeNothing) {
  good(addresses("1").add(wire_pod("a", 1)));
  const auto taken = cache_.take(addresses("2").remove("Kubernetes//Pod/shop/never"));
  EXPECT_FALSE(taken.changed);
  EXPECT_FALSE(taken.reply.has_error_detail());
  EXPECT_THAT(names(), ElementsAre("a"));
}

TEST_F(XdsCacheTest, WhatIsRemovedAndSentInOneResponseIsThere) {
  good(addresses("1").add(wire_pod("a", 1)));
  good(addresses("2").add(wire_pod("a", 2)).remove(kPod + "a"));
  EXPECT_THAT(names(), ElementsAre("a"));
}

TEST_F(XdsCacheTest, AStreamNamesWhatIsThere) {
  good(addresses("1").add(wire_pod("a", 1), "va").add(wire_pod("b", 2), "vb"));
  good(policies("2").add(policy("p", "")));
  EXPECT_THAT(versions(0), UnorderedElementsAre(std::pair(kPod + "a", "va"), std::pair(kPod + "b", "vb")));
  EXPECT_THAT(versions(1), ElementsAre(std::pair("shop/p", "")));
  const auto taken = cache_.take(addresses("3"));
  EXPECT_FALSE(taken.changed) << "nothing is new, so there is no snapshot to make";
  EXPECT_THAT(names(), ElementsAre("a", "b", "p"));
}

TEST_F(XdsCacheTest, RefusesTheBadAndTakesTheGoodOfAResponse) {
  EXPECT_THAT(
      refusal(addresses("1")
                  .add(wire_pod("good", 1))
                  .add(wire_pod("bad", 2, "addresses: 'x'"))
                  .add(wire_service("namespace: 'shop' hostname: 's' ip_families: 7"))),
      AllOf(HasSubstr(kPod + "bad: addresses: 1 bytes"), HasSubstr("shop/s: ip_families: 7"), Not(HasSubstr("good"))));
  EXPECT_THAT(names(), ElementsAre("good"));
  EXPECT_THAT(versions(0), ElementsAre(std::pair(kPod + "good", "v1")));
  EXPECT_THAT(cache_.refused(), UnorderedElementsAre(::testing::Key(kPod + "bad"), ::testing::Key("shop/s")));
}

TEST_F(XdsCacheTest, KeepsTheLastGoodVersionOfWhatIsRefused) {
  good(addresses("1").add(wire_pod("a", 1), "v1"));
  EXPECT_THAT(refusal(addresses("2").add(wire_pod("a", 2, "status: 9"), "v2")), HasSubstr("status: 9"));
  EXPECT_EQ(mesh().workloads().at(0)->addresses[0].to_string(), "10.0.0.1");
  EXPECT_THAT(versions(0), ElementsAre(std::pair(kPod + "a", "v1"))) << "so that istiod sends the newer one again";
  good(addresses("3").add(wire_pod("a", 3), "v3"));
  EXPECT_THAT(cache_.refused(), IsEmpty());
}

TEST_F(XdsCacheTest, ARemovalEndsARefusal) {
  EXPECT_THAT(refusal(addresses("1").add(wire_pod("a", 1, "status: 9"))), HasSubstr("status: 9"));
  good(addresses("2").remove(kPod + "a"));
  EXPECT_THAT(cache_.refused(), IsEmpty());
}

TEST_F(XdsCacheTest, RefusesWhatIsNotWhatItsNameSays) {
  EXPECT_THAT(refusal(addresses("1").add("shop/other", "v1",
                                         [] {
                                           istio::workload::Address address;
                                           *address.mutable_workload() = wire_pod("a", 1);
                                           return address;
                                         }())),
              HasSubstr("it holds \"Kubernetes//Pod/shop/a\""));
  EXPECT_THAT(refusal(addresses("2").add("x", "v1", istio::workload::Address())), HasSubstr("neither a workload nor"));
  EXPECT_THAT(refusal(addresses("3").add("x", "v1", policy("p", ""))), HasSubstr("cannot be read as istio.workload"));
  XdsCache::Response broken = addresses("4").add(wire_pod("a", 1));
  broken.mutable_resources(0)->mutable_resource()->set_value("\xff\xff");
  EXPECT_THAT(refusal(broken), HasSubstr("cannot be read as istio.workload.Address"));
  EXPECT_THAT(refusal(ResponseBuilder("type.googleapis.com/other", "5")), HasSubstr("nobody asked for"));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(XdsCacheTest, NamesNoMoreThanTwentyRefusals) {
  auto response = addresses("1");
  for (char i = 1; i <= 25; ++i) response.add(wire_pod("p" + std::to_string(i), i, "status: 9"));
  const auto text = refusal(response);
  EXPECT_THAT(text, AllOf(HasSubstr("shop/p20:"), HasSubstr("; and 5 more"), Not(HasSubstr("shop/p21:"))));
}

TEST_F(XdsCacheTest, APolicyThatCannotBeReadDeniesUntilItCan) {
  good(addresses("1").add(wire_pod("a", 1)));
  EXPECT_THAT(refusal(policies("2").add(policy("p", "scope: SCOPE_NAMESPACE action: ACTION_DENY " + kBadMatch))),
              HasSubstr("shop/p: principals: expected"));
  EXPECT_FALSE(state::evaluate(mesh(), *mesh().workloads().at(0), {}).allowed);
  EXPECT_THAT(versions(1), IsEmpty()) << "istiod must send it again";
  good(policies("3").add(policy("p", "scope: SCOPE_NAMESPACE action: ACTION_DENY")));
  EXPECT_TRUE(state::evaluate(mesh(), *mesh().workloads().at(0), {}).allowed);
}

TEST_F(XdsCacheTest, APolicyThatCannotBeReadAnyMoreIsAsItWas) {
  good(policies("1").add(policy("p", "scope: SCOPE_NAMESPACE action: ACTION_DENY")));
  EXPECT_THAT(refusal(policies("2").add(policy("p", "scope: SCOPE_NAMESPACE action: ACTION_DENY " + kBadMatch))),
              HasSubstr("shop/p"));
  ASSERT_EQ(mesh().policies().size(), 1U);
  EXPECT_THAT(mesh().policies()[0]->rules, IsEmpty());
}

TEST_F(XdsCacheTest, AwaitsPoliciesThatAreNewForAWorkload) {
  const std::string names = "authorization_policies: ['shop/p', 'shop/q']";
  good(policies("1").add(policy("q", "scope: SCOPE_WORKLOAD_SELECTOR")));
  good(addresses("2").add(wire_pod("a", 1, names)));
  EXPECT_THAT(cache_.awaited(), ElementsAre("shop/p"));
  good(policies("3").add(policy("p", "scope: SCOPE_WORKLOAD_SELECTOR")));
  EXPECT_THAT(cache_.awaited(), IsEmpty());
  // One that went is not on its way again, for a workload that named it already.
  good(policies("4").remove("shop/p"));
  good(addresses("5").add(wire_pod("a", 1, names + " node: 'n'")));
  EXPECT_THAT(cache_.awaited(), IsEmpty());
  // For another it is, until it was waited for in vain.
  good(addresses("6").add(wire_pod("b", 2, names)));
  EXPECT_THAT(cache_.awaited(), ElementsAre("shop/p"));
  cache_.give_up_awaiting();
  good(addresses("7").add(wire_pod("c", 3, names)));
  EXPECT_THAT(cache_.awaited(), IsEmpty());
  // One that is refused has come.
  good(addresses("8").add(wire_pod("d", 4, "authorization_policies: 'shop/bad'")));
  EXPECT_THAT(cache_.awaited(), ElementsAre("shop/bad"));
  EXPECT_THAT(refusal(policies("9").add(policy("bad", "scope: SCOPE_WORKLOAD_SELECTOR " + kBadMatch))),
              HasSubstr("shop/bad"));
  EXPECT_THAT(cache_.awaited(), IsEmpty());
}

TEST_F(XdsCacheTest, ForgetsWhatItCouldNotNameAndIsNotSentAgain) {
  XdsCache small(node(), XdsCache::Wanted::kEverything, (16U << 10) + 110);
  static_cast<void>(small.open());
  for (char last = 1; last <= 5; ++last)
    static_cast<void>(small.take(addresses("1").add(wire_pod("pod-" + std::to_string(last), last), "v1")));
  auto mesh = state::State::empty()->with(small.changes());
  ASSERT_EQ(mesh->workload_count(), 5U);
  const auto requests = small.open();
  const auto& named = requests[0].initial_resource_versions();
  ASSERT_EQ(named.size(), 2U) << "more than fits";
  EXPECT_TRUE(named.contains(kPod + "pod-1") && named.contains(kPod + "pod-2"));
  // istiod still has pod-4, and a version of pod-5 that is wrong.
  const auto taken =
      small.take(addresses("2").add(wire_pod("pod-4", 4), "v1").add(wire_pod("pod-5", 5, "status: 9"), "v2"));
  EXPECT_TRUE(taken.changed);
  std::vector<std::string> left;
  mesh = mesh->with(small.changes());
  for (const auto& workload : mesh->workloads()) left.push_back(workload->name);
  EXPECT_THAT(left, UnorderedElementsAre("pod-1", "pod-2", "pod-4", "pod-5"));
  // Later responses are changes alone.
  static_cast<void>(small.take(addresses("3").add(wire_pod("pod-6", 6), "v1")));
  EXPECT_EQ(mesh->with(small.changes())->workload_count(), 5U);
}

TEST_F(XdsCacheTest, AnAddressThatTwoClaimIsTheBetterOnes) {
  const auto holder = [this] { return mesh().workload_by_address("", IpAddress::parse("10.0.0.1").value())->uid; };
  auto entry = wire_pod("vm", 1);
  entry.set_uid("Kubernetes/networking.istio.io/WorkloadEntry/shop/vm");
  good(addresses("1").add(wire_pod("a", 1)));
  good(addresses("2").add(entry));
  EXPECT_EQ(holder(), kPod + "a") << "who may write a WorkloadEntry does not get a pod's address";
  good(addresses("3").add(wire_pod("b", 1)));
  EXPECT_EQ(holder(), kPod + "b") << "of equals the last";
  good(addresses("4").remove(kPod + "b"));
  EXPECT_EQ(holder(), kPod + "a");
  good(addresses("5").remove(kPod + "a"));
  EXPECT_EQ(holder(), entry.uid());
}

}  // namespace
}  // namespace weft::control
