// SPDX-License-Identifier: Apache-2.0
/// Services of all kinds as istiod describes them, with the DNS of pods.
#include "test/istio/fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class IstioServices : public IstioTest {
 protected:
  static void SetUpTestSuite() {
    if (!make_cluster()) return;
    Cluster& made = cluster();
    made.add_namespace("shop", {{"istio.io/dataplane-mode", "ambient"}, {"service-entries", "own"}});
    const std::map<std::string, std::string> dns{{"ambient.istio.io/dns-capture", "true"}};
    client = &made.add_pod(1, "shop", "client", {.annotations = dns});
    made.add_namespace("bank", {{"istio.io/dataplane-mode", "ambient"}});
    stranger = &made.add_pod(1, "bank", "stranger", {.annotations = dns});
    here = &made.add_pod(1, "shop", "here", {.labels = {{"app", "web"}}});
    there = &made.add_pod(2, "shop", "there", {.labels = {{"app", "web"}}});
    made.wait_for_protocol({client, stranger, here, there});
    // Machines that no API knows of.
    for (Pod** machine : {&machine1, &machine2}) {
      *machine = &made.mesh().add_pod(2, "vm", machine == &machine1 ? "machine1" : "machine2", {.weft_cni = false});
      (*machine)->serve();
    }
  }

  /// What the mesh's DNS says of the name; the address asked is nobody's.
  static std::vector<std::string> dig(const std::string& name, const char* type, const Pod* from = client) {
    std::istringstream lines(from->start({"dig", "+short", "+tries=1", "+time=2", "@192.0.2.53", name, type})
                                 .finish(milliseconds(10'000))
                                 .out);
    std::vector<std::string> found;
    for (std::string line; std::getline(lines, line);) {
      if (IpAddress::parse(line)) found.push_back(line);
    }
    std::ranges::sort(found);
    return found;
  }
  static std::string server_of(const Endpoint& to) { return field(client->get(to).out, "server"); }
  static bool dump_has(const json& dump, const std::string& hostname) {
    return std::ranges::any_of(dump.at("services"), [&](const json& s) { return s.at("hostname") == hostname; });
  }

  static Pod *client, *stranger, *here, *there, *machine1, *machine2;
};

Pod *IstioServices::client, *IstioServices::stranger, *IstioServices::here, *IstioServices::there,
    *IstioServices::machine1, *IstioServices::machine2;

TEST_F(IstioServices, AServiceEntryHasAnAddressOfIstiodsAndItsEndTakesItAway) {
  const std::string entry =
      "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: external\n  namespace: shop\nspec:\n"
      "  hosts: [external.example.com]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n"
      "  ports:\n  - number: 80\n    name: http\n    protocol: HTTP\n    targetPort: 8080\n"
      "  endpoints:\n  - address: " +
      machine1->address_v4().to_string() + "\n";
  cluster().apply(entry);
  std::vector<std::string> addresses;
  ASSERT_TRUE(
      eventually(milliseconds(10'000), [&] { return !(addresses = dig("external.example.com", "A")).empty(); }));
  ASSERT_EQ(addresses.size(), 1U);
  EXPECT_THAT(addresses[0], ::testing::StartsWith("240.240."));
  const Endpoint vip{*IpAddress::parse(addresses[0]), 80};
  EXPECT_THAT(client->get(vip), IsAnswer("machine1", client->address_v4()));
  EXPECT_FALSE(client->get({vip.address, 81}).ok());
  cluster().remove(entry);
  expect_soon(
      "a ServiceEntry is away", [] {},
      [&] {
        return !client->get(vip, {"--connect-timeout", "0.2", "--timeout", "0.2"}).ok();
      },
      kPolicyTime);
  EXPECT_TRUE(dig("external.example.com", "A").empty());
}

TEST_F(IstioServices, AServiceEntryOfPodsIsSeenFromItsOwnNamespaceAlone) {
  const std::string entry =
      "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: selected\n  namespace: shop\nspec:\n"
      "  hosts: [selected.example.com]\n  location: MESH_INTERNAL\n  resolution: STATIC\n"
      "  ports:\n  - number: 80\n    name: http\n    protocol: HTTP\n    targetPort: 8080\n"
      "  workloadSelector:\n    labels:\n      app: web\n";
  cluster().apply(entry);
  std::vector<std::string> addresses;
  ASSERT_TRUE(
      eventually(milliseconds(10'000), [&] { return !(addresses = dig("selected.example.com", "A")).empty(); }));
  const Endpoint vip{*IpAddress::parse(addresses[0]), 80};
  const std::string out = client->get(vip, {"--count", "30"}).out;
  EXPECT_THAT(out, AllOf(HasSubstr("server=here"), HasSubstr("server=there")));
  EXPECT_TRUE(dig("selected.example.com", "A", stranger).empty());
  EXPECT_FALSE(stranger->get(vip, {"--connect-timeout", "1", "--timeout", "1"}).ok());
  cluster().remove(entry);
}

TEST_F(IstioServices, EndpointSlicesSayWhereAServiceWithoutSelectorLeads) {
  const auto slice = [](const Pod* machine) {
    return "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: machines-1\n  namespace: shop\n"
           "  labels:\n    kubernetes.io/service-name: machines\naddressType: IPv4\n"
           "ports:\n- name: http\n  port: 8080\n  protocol: TCP\n"
           "endpoints:\n- addresses: [" +
           machine->address_v4().to_string() + "]\n  conditions:\n    ready: true\n";
  };
  const std::string service =
      "apiVersion: v1\nkind: Service\nmetadata:\n  name: machines\n  namespace: shop\nspec:\n"
      // Without a wish like this one, a service that has no pod of the mesh is kube-proxy's alone.
      "  trafficDistribution: PreferClose\n"
      "  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n";
  cluster().apply(service + "---\n" + slice(machine1));
  const kube::Json made = cluster().api().ask({.path = "/api/v1/namespaces/shop/services/machines"});
  const Endpoint vip{*IpAddress::parse(made.at("spec").at("clusterIP").get<std::string>()), 80};
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return server_of(vip) == "machine1"; }));
  expect_soon(
      "other endpoints", [&] { cluster().apply(slice(machine2)); }, [&] { return server_of(vip) == "machine2"; },
      kPolicyTime);
  cluster().remove(service + "---\n" + slice(machine2));
  expect_soon(
      "no service", [] {},
      [&] {
        return !client->get(vip, {"--connect-timeout", "0.2", "--timeout", "0.2"}).ok();
      },
      kPolicyTime);
}

TEST_F(IstioServices, TheNearZoneIsPreferredWhileItIsHealthy) {
  const auto [v4, v6] = cluster().add_service("shop", "web", "web", {here, there});
  const auto servers = [&, to = Endpoint{v4, 80}] {
    const std::string out = client->get(to, {"--count", "30"}).out;
    return std::pair{out.find("server=here") != std::string::npos, out.find("server=there") != std::string::npos};
  };
  const std::pair both{true, true}, near_only{true, false}, far_only{false, true};
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return servers() == both; }));
  cluster().patch("/api/v1/namespaces/shop/services/web", {{"spec", {{"trafficDistribution", "PreferClose"}}}});
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return servers() == near_only; }));
  expect_soon(
      "failover to the other zone", [&] { cluster().set_ready(*here, false); }, [&] { return servers() == far_only; },
      kPolicyTime);
  expect_soon(
      "back to the near zone", [&] { cluster().set_ready(*here, true); }, [&] { return servers() == near_only; },
      kPolicyTime);
  EXPECT_EQ(server_of({v6, 80}), "here");
  cluster().remove("apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n");
}

TEST_F(IstioServices, AHeadlessServiceIsThePodsAddresses) {
  const std::string service =
      "apiVersion: v1\nkind: Service\nmetadata:\n  name: headless\n  namespace: shop\nspec:\n  clusterIP: None\n"
      "  ipFamilyPolicy: RequireDualStack\n  selector:\n    app: web\n  ports:\n  - name: http\n    port: 8080\n";
  cluster().apply(service);
  const std::string name = "headless.shop.svc.cluster.local";
  cluster().wait_for_dump(name, [&](const json& dump) { return dump_has(dump, name); });
  EXPECT_THAT(dig(name, "A"),
              ::testing::UnorderedElementsAre(here->address_v4().to_string(), there->address_v4().to_string()));
  EXPECT_THAT(dig(name, "AAAA"),
              ::testing::UnorderedElementsAre(here->address_v6().to_string(), there->address_v6().to_string()));
  EXPECT_EQ(server_of(there->v6()), "there");
  cluster().set_ready(*there, false);
  EXPECT_TRUE(eventually(milliseconds(5'000), [&] { return dig(name, "A").size() == 1; }));
  cluster().set_ready(*there, true);
  cluster().remove(service);
}

}  // namespace
}  // namespace weft::test
