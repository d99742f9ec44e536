// SPDX-License-Identifier: Apache-2.0
/// Peers that are not who they should be: each side refuses the other's.

#include "test/interop/fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;

class ZtunnelIdentity : public ZtunnelTest {
 protected:
  static constexpr const char* kOtherDomain = "other.domain";
  /// What both weft and ztunnel deliver before and after: the case changed nothing for the rest.
  static void expect_all_well() {
    expect_reaches(*client, *zweb);
    expect_reaches(*zclient, *web);
  }
  static std::string in_other_domain(const Pod& pod) {
    return std::string("spiffe://") + kOtherDomain + "/ns/" + pod.namespace_name() + "/sa/" + pod.name();
  }
  /// Changes the entry of a pod in a configuration.
  static void change(json& configuration, const Pod& pod, const json& with) {
    for (json& workload : configuration.at("workloads")) {
      if (workload.at("name") == pod.name()) workload.update(with);
    }
  }
};

TEST_F(ZtunnelIdentity, WeftRefusesAServerWithTheCertificateOfAnotherWorkload) {
  ztunnel_of_web->start({.identity = zclient->identity(), .configure = {}});
  expect_refused(*client, *zweb);
  EXPECT_FALSE(weft_logged({"direction=outbound", "dst.workload=zweb", zclient->identity()}).empty());
  ztunnel_of_web->start();
  expect_all_well();
}

TEST_F(ZtunnelIdentity, ZtunnelRefusesAServerWithTheCertificateOfAnotherWorkload) {
  ztunnel_of_client->start({.identity = {}, .configure = [](json& configuration) {
                              change(configuration, *web, {{"serviceAccount", "someone-else"}});
                            }});
  expect_refused(*zclient, *web);
  EXPECT_FALSE(
      ztunnel_logged(*ztunnel_of_client, {"direction=\"outbound\"", "dst.workload=\"web\"", web->identity()}).empty());
  ztunnel_of_client->start();
  expect_all_well();
}

TEST_F(ZtunnelIdentity, WeftRefusesAClientOfAnotherTrustDomain) {
  ztunnel_of_client->start({.identity = in_other_domain(*zclient), .configure = {}});
  expect_refused(*zclient, *web);
  EXPECT_FALSE(weft_logged({"direction=inbound", "TLS_FAILURE", kOtherDomain}).empty());
  ztunnel_of_client->start();
  expect_all_well();
}

TEST_F(ZtunnelIdentity, ZtunnelRefusesAClientOfAnotherTrustDomain) {
  PodOptions options;
  options.service_account = "stranger";
  options.workload = {{"trustDomain", kOtherDomain}};
  Pod& stranger = mesh().add_pod(1, "shop", "stranger", options);
  restart_ztunnels();
  expect_refused(stranger, *zweb);
  EXPECT_FALSE(ztunnel_logged(*ztunnel_of_web, {"direction=\"inbound\"", "SanTrustDomainError", kOtherDomain}).empty());
  mesh().remove_pod(stranger);
  restart_ztunnels();
  expect_all_well();
}

TEST_F(ZtunnelIdentity, WeftRefusesAServerOfAnotherTrustDomain) {
  ztunnel_of_web->start({.identity = in_other_domain(*zweb), .configure = {}});
  expect_refused(*client, *zweb);
  EXPECT_FALSE(weft_logged({"direction=outbound", "dst.workload=zweb", kOtherDomain}).empty());
  ztunnel_of_web->start();
  expect_all_well();
}

}  // namespace
}  // namespace weft::test
