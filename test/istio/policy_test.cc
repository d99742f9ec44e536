// SPDX-License-Identifier: Apache-2.0
/// What Kubernetes' and Istio's objects say of the pods of two nodes, through the API and istiod.
#include "test/istio/fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class IstioPolicy : public IstioTest {
 protected:
  static constexpr std::uint16_t kOtherPort = 9090;

  static void SetUpTestSuite() {
    if (!make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    made.add_namespace("bank", {{"istio.io/dataplane-mode", "ambient"}});
    made.add_namespace("legacy");
    client = &made.add_pod(1, "shop", "client");
    near = &made.add_pod(1, "shop", "near");
    web = &made.add_pod(2, "shop", "web", {.labels = {{"app", "web"}}});
    web->serve(kOtherPort);
    other = &made.add_pod(1, "bank", "other");
    outside = &made.add_pod(1, "legacy", "outside");
    made.wait_for_protocol({client, near, web, other});
    made.wait_for_protocol({outside}, "TCP");
  }

  /// Plaintext that nobody may send is dropped, so a refusal shows by time alone.
  static bool reaches(const Pod* from, const Endpoint& to) { return from->get(to, {"--connect-timeout", "0.2"}).ok(); }
  static bool reaches(const Pod* from, std::uint16_t port = Pod::kPort) {
    return reaches(from, web->v4(port)) && reaches(from, web->v6(port));
  }
  static bool refused(const Pod* from, std::uint16_t port = Pod::kPort) {
    return !reaches(from, web->v4(port)) && !reaches(from, web->v6(port));
  }
  /// While the policy is there `denied` do not reach the pod web, and `others` do.
  static void expect_policy(const std::string& what, const std::string& yaml, const std::vector<const Pod*>& denied,
                            const std::vector<const Pod*>& others) {
    const auto all_refused = [&] { return std::ranges::all_of(denied, [](const Pod* pod) { return refused(pod); }); };
    const auto all_reach = [](const std::vector<const Pod*>& pods) {
      return std::ranges::all_of(pods, [](const Pod* pod) { return reaches(pod); });
    };
    expect_soon(
        what, [&] { cluster().apply(yaml); }, all_refused, kPolicyTime);
    EXPECT_TRUE(all_reach(others)) << what;
    expect_soon(
        what + ", taken away", [&] { cluster().remove(yaml); }, [&] { return all_reach(denied); }, kPolicyTime);
  }

  static Pod *client, *near, *web, *other, *outside;
};

Pod *IstioPolicy::client, *IstioPolicy::near, *IstioPolicy::web, *IstioPolicy::other, *IstioPolicy::outside;

/// An AuthorizationPolicy of that action in a namespace, for the pod web; `rules` is its list, indented by two.
std::string policy(const std::string& name, const std::string& action, const std::string& rules,
                   const std::string& namespace_name = "shop") {
  return "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: " + name +
         "\n  namespace: " + namespace_name +
         "\nspec:\n  selector:\n    matchLabels:\n      app: web\n  action: " + action + "\n  rules:\n" + rules;
}

std::string strict(const std::string& more = "") {
  return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: strict\n  namespace: shop\n"
         "spec:\n  mtls:\n    mode: STRICT\n" +
         more;
}

TEST_F(IstioPolicy, PodsAreCapturedAndSpeakHboneWithIstiodsCertificates) {
  const Capture wire(node(1).netns(), Node::kWire);
  const std::size_t before = node(2).log().size();
  EXPECT_THAT(client->get(web->v4(), {"--marker", "secret-v4"}), IsAnswer("web", client->address_v4()));
  EXPECT_THAT(client->get(web->v6(), {"--marker", "secret-v6"}), IsAnswer("web", client->address_v6()));
  EXPECT_THAT(client->get(near->v4()), IsAnswer("near", client->address_v4()));
  EXPECT_FALSE(
      wire.segments([](const Segment& s) { return s.destination.port == 15008 && s.payload_bytes > 0; }).empty());
  EXPECT_TRUE(wire.segments([](const Segment& s) { return is_clear_between(s, *client, *web); }).empty());
  EXPECT_FALSE(wire.contains("secret-"));
  EXPECT_EQ(wire.lost(), 0U);
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] {
    return log_lines(node(2).log(), before,
                     {"connection complete", "src.identity=" + client->identity(), "dst.identity=" + web->identity()})
               .size() == 2;
  }));
  // Nobody but istiod gave this node's certificate.
  const json certificates = json::parse(node(2).admin("/config_dump")).at("certificates");
  ASSERT_EQ(certificates.size(), 1U) << certificates.dump(1);
  EXPECT_EQ(certificates[0].at("identity"), web->identity());
  EXPECT_EQ(certificates[0].at("state"), "Available");
}

TEST_F(IstioPolicy, PodsOutsideAreReachedAndReachInPlaintext) {
  EXPECT_THAT(client->get(outside->v4()), IsAnswer("outside", client->address_v4()));
  EXPECT_THAT(outside->get(web->v4()), IsAnswer("web", outside->address_v4()));
}

TEST_F(IstioPolicy, DenyByPrincipalNamespaceAddressAndPort) {
  expect_policy("deny by principal",
                policy("by-principal", "DENY",
                       "  - from:\n    - source:\n        principals: [cluster.local/ns/shop/sa/client]\n"),
                {client}, {near, other, outside});
  expect_policy("deny by namespace",
                policy("by-namespace", "DENY", "  - from:\n    - source:\n        namespaces: [bank]\n"), {other},
                {client, near, outside});
  expect_policy("deny by address",
                policy("by-address", "DENY",
                       "  - from:\n    - source:\n        ipBlocks: [" + outside->address_v4().to_string() + "/32, " +
                           outside->address_v6().to_string() + "/128]\n"),
                {outside}, {client, near, other});
  const std::string by_port = policy("by-port", "DENY", "  - to:\n    - operation:\n        ports: [\"9090\"]\n");
  expect_soon(
      "deny by port", [&] { cluster().apply(by_port); }, [] { return refused(client, kOtherPort); }, kPolicyTime);
  EXPECT_TRUE(reaches(client));
  expect_soon(
      "deny by port, taken away", [&] { cluster().remove(by_port); }, [] { return reaches(client, kOtherPort); },
      kPolicyTime);
}

TEST_F(IstioPolicy, AllowIsTheOnlyWayInWhereThereIsOne) {
  expect_policy(
      "allow of one identity",
      policy("one", "ALLOW", "  - from:\n    - source:\n        principals: [cluster.local/ns/shop/sa/near]\n"),
      {client, other, outside}, {near});
  const std::string nothing =
      "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: nothing\n"
      "  namespace: istio-system\nspec: {}\n";
  expect_policy("allow nothing, in all of the mesh", nothing, {client, near, other, outside}, {});
}

TEST_F(IstioPolicy, ConnectionsThatLiveEndWithAPolicy) {
  Process held = client->hold(web->v4());
  Process untouched = near->hold(web->v4());
  const std::string yaml =
      policy("live", "DENY", "  - from:\n    - source:\n        principals: [cluster.local/ns/shop/sa/client]\n");
  expect_soon(
      "a live connection is cut", [&] { cluster().apply(yaml); }, [&] { return !held.running(); }, kPolicyTime);
  EXPECT_TRUE(untouched.running());
  cluster().remove(yaml);
  EXPECT_TRUE(eventually(milliseconds(5'000), [] { return reaches(client); }));
}

TEST_F(IstioPolicy, StrictRefusesPlaintextButOnExceptedPorts) {
  expect_policy("strict", strict(), {outside}, {client, near, other});
  const std::string excepted = strict(
      "  selector:\n    matchLabels:\n      app: web\n  portLevelMtls:\n    \"9090\":\n      mode: PERMISSIVE\n");
  expect_soon(
      "strict but for a port", [&] { cluster().apply(excepted); }, [] { return refused(outside); }, kPolicyTime);
  EXPECT_TRUE(reaches(outside, kOtherPort));
  EXPECT_TRUE(reaches(client));
  // The mesh's own wish is less than the workload's.
  const std::string everywhere =
      "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: default\n"
      "  namespace: istio-system\nspec:\n  mtls:\n    mode: STRICT\n";
  cluster().apply(everywhere);
  expect_soon(
      "strict everywhere", [] {}, [] { return !reaches(outside, near->v4()); }, kPolicyTime);
  EXPECT_TRUE(reaches(outside, kOtherPort));
  cluster().remove(everywhere);
  cluster().remove(excepted);
  EXPECT_TRUE(eventually(milliseconds(5'000), [] { return reaches(outside) && reaches(outside, near->v4()); }));
}

}  // namespace
}  // namespace weft::test
