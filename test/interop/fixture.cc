// SPDX-License-Identifier: Apache-2.0
#include "test/interop/fixture.h"

#include <iostream>

namespace weft::test {
namespace {

Pod* add(Mesh& mesh, int node, const char* namespace_name, const char* name) {
  PodOptions options;
  options.service_account = name;
  options.weft_cni = node == 1;
  Pod& pod = mesh.add_pod(node, namespace_name, name, options);
  pod.serve();
  return &pod;
}

}  // namespace

std::unique_ptr<Mesh> ZtunnelTest::mesh_;
Pod *ZtunnelTest::client, *ZtunnelTest::web, *ZtunnelTest::zclient, *ZtunnelTest::zweb;
std::unique_ptr<Ztunnel> ZtunnelTest::ztunnel_of_client, ZtunnelTest::ztunnel_of_web;

void ZtunnelTest::SetUpTestSuite() {
  if (!is_root() || Ztunnel::executable().empty()) return;
  MeshOptions options;
  options.start_agents = false;
  auto made = std::make_unique<Mesh>(options);
  made->node(1).start_agent();
  client = add(*made, 1, "shop", "client");
  web = add(*made, 1, "shop", "web");
  zclient = add(*made, 2, "bank", "zclient");
  zweb = add(*made, 2, "bank", "zweb");
  ztunnel_of_client = std::make_unique<Ztunnel>(*made, *zclient);
  ztunnel_of_web = std::make_unique<Ztunnel>(*made, *zweb);
  restart_ztunnels();
  mesh_ = std::move(made);
}

void ZtunnelTest::TearDownTestSuite() {
  ztunnel_of_client.reset();
  ztunnel_of_web.reset();
  mesh_.reset();
}

void ZtunnelTest::SetUp() {
  WEFT_NEEDS_ROOT();
  if (Ztunnel::executable().empty()) GTEST_SKIP() << "WEFT_ZTUNNEL names no executable: no ztunnel to run beside";
  ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  weft_before_ = weft().log().size();
  client_before_ = ztunnel_of_client->log().size();
  web_before_ = ztunnel_of_web->log().size();
}

void ZtunnelTest::TearDown() {
  if (!HasFailure() || !mesh_) return;
  std::cerr << "---- weft-agent:\n"
            << weft().log().substr(weft_before_) << "---- ztunnel of zclient:\n"
            << ztunnel_of_client->log().substr(client_before_) << "---- ztunnel of zweb:\n"
            << ztunnel_of_web->log().substr(web_before_);
}

void ZtunnelTest::restart_ztunnels() {
  ztunnel_of_client->start();
  ztunnel_of_web->start();
}

void ZtunnelTest::set_policy(const nlohmann::json& policy) {
  mesh().set_policy(policy);
  restart_ztunnels();
}

void ZtunnelTest::remove_policy(const std::string& namespace_name, const std::string& name) {
  mesh().remove_policy(namespace_name, name);
  restart_ztunnels();
}

std::vector<std::string> ZtunnelTest::weft_logged(const std::vector<std::string>& words) const {
  std::vector<std::string> found;
  eventually(kSoon, [&] { return !(found = log_lines(weft().log(), weft_before_, words)).empty(); });
  return found;
}

std::vector<std::string> ZtunnelTest::ztunnel_logged(const Ztunnel& ztunnel,
                                                     const std::vector<std::string>& words) const {
  const std::size_t before = &ztunnel == ztunnel_of_client.get() ? client_before_ : web_before_;
  std::vector<std::string> found;
  eventually(kSoon, [&] { return !(found = log_lines(ztunnel.log(), before, words)).empty(); });
  return found;
}

void expect_reaches(const Pod& from, const Pod& to) {
  EXPECT_THAT(from.get(to.v4()), IsAnswer(to.name(), from.address_v4())) << from.name() << " to " << to.name();
  EXPECT_THAT(from.get(to.v6()), IsAnswer(to.name(), from.address_v6())) << from.name() << " to " << to.name();
}

void expect_refused(const Pod& from, const Pod& to) {
  EXPECT_FALSE(from.get(to.v4()).ok()) << from.name() << " to " << to.name() << ", IPv4";
  EXPECT_FALSE(from.get(to.v6()).ok()) << from.name() << " to " << to.name() << ", IPv6";
}

}  // namespace weft::test
