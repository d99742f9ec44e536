// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::dns {
namespace {

using state::Service;
using state::Workload;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;

constexpr const char* kDomain = "cluster.local";

Service service(const std::string& namespace_name, const std::string& hostname, const std::vector<std::string>& vips) {
  Service out;
  out.name = hostname.substr(0, hostname.find('.'));
  out.namespace_name = namespace_name;
  out.hostname = hostname;
  for (const auto& vip : vips) out.vips.push_back({"", IpAddress::parse(vip).value()});
  return out;
}

class Directory : public ::testing::Test {
 protected:
  Service& add(const std::string& namespace_name, const std::string& hostname, const std::vector<std::string>& vips) {
    input_.services.push_back(service(namespace_name, hostname, vips));
    return input_.services.back();
  }
  Workload& endpoint(const std::string& name, const std::string& of, const std::vector<std::string>& addresses) {
    Workload& out = input_.workloads.emplace_back();
    out.uid = out.name = name;
    out.namespace_name = "shop";
    for (const auto& address : addresses) out.addresses.push_back(IpAddress::parse(address).value());
    out.services[of] = {{80, 80}};
    return out;
  }
  /// "KEY ADDRESS…" of what the name means to a client of the namespace; "" where it means nothing.
  [[nodiscard]] std::string find(const std::string& name, const std::string& namespace_name = "shop",
                                 const std::string& network = "") const {
    const auto state = state::State::build(input_).value();
    const auto known = find_name(*state, {namespace_name, network}, name, kDomain);
    if (!known) return "";
    std::string out = known->service->key();
    for (const auto& address : known->addresses) out += " " + address.to_string();
    return out;
  }
  state::StateInput input_;
};

TEST_F(Directory, Spellings) {
  EXPECT_THAT(spellings("web", "shop", kDomain), ElementsAre("web", "web.shop.svc.cluster.local"));
  EXPECT_THAT(spellings("web.bank", "shop", kDomain), ElementsAre("web.bank", "web.bank.svc.cluster.local"));
  EXPECT_THAT(spellings("web.bank.svc", "shop", kDomain), ElementsAre("web.bank.svc", "web.bank.svc.cluster.local"));
  EXPECT_THAT(spellings("www.example.com", "shop", kDomain), ElementsAre("www.example.com"));
  EXPECT_THAT(spellings("web.shop.svc.cluster.local", "shop", kDomain),
              ElementsAre("web.shop.svc.cluster.local", "web", "web.shop", "web.shop.svc"));
  EXPECT_THAT(spellings("www.example.com.shop.svc.cluster.local", "shop", kDomain),
              ElementsAre("www.example.com.shop.svc.cluster.local", "www.example.com", "www.example.com.shop",
                          "www.example.com.shop.svc"));
  EXPECT_THAT(spellings("cluster.local", "shop", kDomain),
              ElementsAre("cluster.local", "cluster.local.svc.cluster.local"));
  EXPECT_THAT(spellings("webcluster.local", "shop", kDomain), Not(Contains("web")));
  EXPECT_THAT(spellings("web", "shop", "mesh.test"), ElementsAre("web", "web.shop.svc.mesh.test"));
}

TEST_F(Directory, ServicesOfKubernetes) {
  add("shop", "web.shop.svc.cluster.local", {"10.0.0.1", "fd00::1"});
  add("bank", "web.bank.svc.cluster.local", {"10.0.0.2"});
  const std::string shop = "shop/web.shop.svc.cluster.local 10.0.0.1 fd00::1";
  for (const char* name : {"web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"})
    EXPECT_EQ(find(name), shop);
  EXPECT_EQ(find("web", "bank"), "bank/web.bank.svc.cluster.local 10.0.0.2");
  EXPECT_EQ(find("web.shop", "bank"), shop);
  EXPECT_EQ(find("web", "park"), "");
  EXPECT_EQ(find("web.shop.svc.cluster"), "");
  EXPECT_EQ(find("x.web.shop.svc.cluster.local"), "");
  EXPECT_EQ(find(""), "");
}

TEST_F(Directory, HostnamesAreTheSameInCapitals) {
  add("shop", "API.Example.com", {"10.0.0.1"});
  EXPECT_EQ(find("api.example.com"), "shop/API.Example.com 10.0.0.1");
}

TEST_F(Directory, HeadlessServicesAreTheirEndpoints) {
  add("shop", "pods.shop.svc.cluster.local", {});
  add("shop", "all.shop.svc.cluster.local", {}).load_balancer =
      state::LoadBalancer{.mode = {}, .routing_preferences = {}, .health_policy = state::HealthPolicy::kAllowAll};
  add("shop", "empty.shop.svc.cluster.local", {});
  add("shop", "static.example.com", {});
  for (const std::string of : {"pods.shop.svc.cluster.local", "all.shop.svc.cluster.local", "static.example.com"}) {
    const std::string key = "shop/" + of;
    endpoint("a" + of, key, {"10.1." + std::to_string(of.size()) + ".1", "fd01::" + std::to_string(of.size())});
    endpoint("b" + of, key, {"10.1." + std::to_string(of.size()) + ".2"}).status = state::HealthStatus::kUnhealthy;
    endpoint("c" + of, key, {"10.1." + std::to_string(of.size()) + ".3"}).network = "far";
  }
  EXPECT_EQ(find("pods"), "shop/pods.shop.svc.cluster.local 10.1.27.1 fd01::27");
  EXPECT_EQ(find("pods", "shop", "far"), "shop/pods.shop.svc.cluster.local 10.1.27.3");
  EXPECT_EQ(find("all"), "shop/all.shop.svc.cluster.local 10.1.26.1 fd01::26 10.1.26.2");
  EXPECT_EQ(find("empty"), "shop/empty.shop.svc.cluster.local") << "it exists";
  EXPECT_EQ(find("static.example.com"), "") << "others know where it is";
}

TEST_F(Directory, WildcardsStandForWhatIsBelowThem) {
  add("shop", "*.example.com", {"10.0.0.1"});
  add("shop", "*.deep.example.com", {"10.0.0.2"});
  add("shop", "own.example.com", {"10.0.0.3"});
  EXPECT_EQ(find("a.example.com"), "shop/*.example.com 10.0.0.1");
  EXPECT_EQ(find("b.a.example.com"), "shop/*.example.com 10.0.0.1");
  EXPECT_EQ(find("a.deep.example.com"), "shop/*.deep.example.com 10.0.0.2");
  EXPECT_EQ(find("deep.example.com"), "shop/*.example.com 10.0.0.1");
  EXPECT_EQ(find("own.example.com"), "shop/own.example.com 10.0.0.3");
  EXPECT_EQ(find("a.example.com.shop.svc.cluster.local"), "shop/*.example.com 10.0.0.1");
  EXPECT_EQ(find("example.com"), "");
  EXPECT_EQ(find("aexample.com"), "");
}

TEST_F(Directory, OneOfSeveral) {
  add("other", "api.example.com", {"10.0.0.1"});
  add("canon", "api.example.com", {"10.0.0.2"}).canonical = true;
  add("shop", "api.example.com", {"10.0.0.3"});
  EXPECT_EQ(find("api.example.com"), "shop/api.example.com 10.0.0.3");
  EXPECT_EQ(find("api.example.com", "park"), "canon/api.example.com 10.0.0.2");
  input_.services[1].canonical = false;
  EXPECT_EQ(find("api.example.com", "park"), "other/api.example.com 10.0.0.1");
}

TEST_F(Directory, VisibilityIsHonoured) {
  add("bank", "api.example.com", {"10.0.0.1"}).visibility = state::Visibility::kNamespace;
  EXPECT_EQ(find("api.example.com"), "");
  EXPECT_EQ(find("api.example.com", "bank"), "bank/api.example.com 10.0.0.1");
  add("park", "*.example.com", {"10.0.0.2"});
  EXPECT_EQ(find("api.example.com"), "park/*.example.com 10.0.0.2") << "what cannot be seen hides nothing";
}

TEST_F(Directory, VipsOfTheClientsNetworkCount) {
  Service& api = add("shop", "api.example.com", {"10.0.0.1"});
  api.vips.push_back({"far", IpAddress::parse("10.9.0.1").value()});
  EXPECT_EQ(find("api.example.com"), "shop/api.example.com 10.0.0.1");
  EXPECT_EQ(find("api.example.com", "shop", "far"), "shop/api.example.com 10.9.0.1");
  EXPECT_EQ(find("api.example.com", "shop", "elsewhere"), "shop/api.example.com");
}

}  // namespace
}  // namespace weft::dns
