// SPDX-License-Identifier: Apache-2.0
/// istioctl, from WEFT_ISTIOCTL, shows what the agent is and has.
#include <cstdlib>

#include "test/istio/fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class IstioCtl : public IstioTest {
 protected:
  static void SetUpTestSuite() {
    if (std::getenv("WEFT_ISTIOCTL") == nullptr || !make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}});
    client = &made.add_pod(1, "shop", "client");
    web = &made.add_pod(2, "shop", "web", {.labels = {{"app", "web"}}});
    made.wait_for_protocol({client, web});
    made.add_service("shop", "store", "web", {web});
    made.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: from-shop\n  namespace: shop\n"
        "spec:\n  action: ALLOW\n  rules:\n  - from:\n    - source:\n        namespaces: [shop]\n");
    made.wait_for_dump("a policy", [](const json& dump) { return dump.at("policies").size() == 1; });
  }
  void SetUp() override {
    if (std::getenv("WEFT_ISTIOCTL") == nullptr) GTEST_SKIP() << "WEFT_ISTIOCTL is not set";
    IstioTest::SetUp();
  }
  static Finished istioctl(const std::vector<std::string>& arguments) {
    std::vector<std::string> command{std::getenv("WEFT_ISTIOCTL")};
    command.insert(command.end(), arguments.begin(), arguments.end());
    command.insert(command.end(), {"--kubeconfig", cluster().folder().path() + "/kubeconfig"});
    return run(command, {.netns = &node(1).netns(), .environment = {}, .input = {}});
  }
  /// `istioctl ztunnel-config WHAT --file` of the dump of node 1, as text and as JSON.
  static std::string table(const std::string& what) { return shown({"ztunnel-config", what}); }
  static json as_json(const std::string& what) { return json::parse(shown({"ztunnel-config", what, "-o", "json"})); }
  static std::string shown(std::vector<std::string> command) {
    command.insert(command.end(), {"--file", cluster().folder().write("dump.json", node(1).admin("/config_dump"))});
    const Finished done = istioctl(command);
    EXPECT_TRUE(done.ok()) << done.err;
    return done.out;
  }

  static Pod *client, *web;
};

Pod *IstioCtl::client, *IstioCtl::web;

TEST_F(IstioCtl, ShowsWorkloads) {
  EXPECT_THAT(table("workload"),
              AllOf(ContainsRegex("shop +client +" + client->address_v4().to_string() + ".* node1 .*HBONE"),
                    ContainsRegex("shop +web +.* node2 .*HBONE")));
  EXPECT_THAT(as_json("workload").dump(), HasSubstr("Kubernetes//Pod/shop/web"));
}

TEST_F(IstioCtl, ShowsServices) {
  EXPECT_THAT(table("service"), ContainsRegex("shop +store +10\\.96\\.[0-9.,a-f:]+ +None +1/1"));
  EXPECT_THAT(as_json("service").dump(), HasSubstr("store.shop.svc.cluster.local"));
}

TEST_F(IstioCtl, ShowsPolicies) {
  EXPECT_THAT(table("policy"), ContainsRegex("shop +from-shop +Allow +Namespace"));
  EXPECT_THAT(as_json("policy").dump(), HasSubstr("from-shop"));
}

TEST_F(IstioCtl, ShowsCertificates) {
  const std::string all = table("certificate");
  EXPECT_THAT(all, ContainsRegex("spiffe://cluster.local/ns/shop/sa/client +Leaf +Available +true"));
  EXPECT_THAT(all, ContainsRegex("spiffe://cluster.local/ns/shop/sa/client +Root +Available +true"));
}

TEST_F(IstioCtl, ShowsConnections) {
  const Process held = client->hold(web->v4());
  EXPECT_THAT(table("connections"),
              ContainsRegex("client.shop +Outbound +client.shop:[0-9]+ +web.shop:15008 +web.shop:8080 +HBONE"));
}

TEST_F(IstioCtl, ListsBothAgentsAsSynced) {
  const auto status = [](const std::vector<std::string>& more) {
    // It has a token made for itself, and believes no certificate that the system does not.
    std::vector<std::string> command{"proxy-status", "--xds-address", cluster().istiod().xds_address(), "--insecure"};
    command.insert(command.end(), more.begin(), more.end());
    const Finished done = istioctl(command);
    EXPECT_TRUE(done.ok()) << done.err;
    return done.out;
  };
  EXPECT_THAT(status({}), AllOf(HasSubstr("ztunnel-node1.istio-system"), HasSubstr("ztunnel-node2.istio-system")));
  EXPECT_THAT(status({"-v", "1"}), ContainsRegex("ztunnel-node1.istio-system.*SYNCED"));
}

}  // namespace
}  // namespace weft::test
