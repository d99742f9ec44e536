// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include "agent/config.h"

namespace weft::agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Result<std::variant<Config, Shown>> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"weft-agent", "--node", "n1"});
  return parse_config(static_cast<int>(arguments.size()), arguments.data());
}

std::vector<const char*> with_xds(std::vector<const char*> more) {
  more.insert(more.begin(), {"--xds-address", "istiod.istio-system.svc:15012", "--pod-name", "weft-1",
                             "--pod-namespace", "istio-system", "--instance-ip", "10.1.2.3"});
  return more;
}

Config parsed(const std::vector<const char*>& arguments) {
  auto result = parse(arguments);
  EXPECT_TRUE(result) << result.error().message();
  return result ? std::get<Config>(*result) : Config();
}

std::string refused(const std::vector<const char*>& arguments) {
  auto result = parse(arguments);
  EXPECT_FALSE(result);
  return result ? "" : result.error().message();
}

TEST(IstiodConfig, HasDefaults) {
  const Config c = parsed(with_xds({}));
  EXPECT_EQ(c.local_config, "");
  EXPECT_EQ(c.istiod.xds_address, "istiod.istio-system.svc:15012");
  EXPECT_EQ(c.istiod.ca_address, c.istiod.xds_address);
  EXPECT_EQ(c.istiod.root, "/var/run/secrets/istio/root-cert.pem");
  EXPECT_EQ(c.istiod.token, "/var/run/secrets/tokens/istio-token");
  EXPECT_EQ(c.istiod.server_name, "istiod.istio-system.svc");
  EXPECT_EQ(c.istiod.pod_name, "weft-1");
  EXPECT_EQ(c.istiod.pod_namespace, "istio-system");
  EXPECT_EQ(c.istiod.instance_ip, "10.1.2.3");
  EXPECT_EQ(c.certificate_lifetime, seconds(86'400));
}

TEST(IstiodConfig, TakesEveryFlag) {
  const Config c = parsed(with_xds({"--ca-address", "[2001:db8::1]:15013", "--xds-root", "/r", "--xds-token", "/t",
                                    "--xds-server-name", "istiod.other.svc", "--certificate-lifetime", "2h"}));
  EXPECT_EQ(c.istiod.ca_address, "[2001:db8::1]:15013");
  EXPECT_EQ(c.istiod.root, "/r");
  EXPECT_EQ(c.istiod.token, "/t");
  EXPECT_EQ(c.istiod.server_name, "istiod.other.svc");
  EXPECT_EQ(c.certificate_lifetime, seconds(7'200));
}

TEST(IstiodConfig, OnDemandIsNoWayToHaveTheWholeMesh) {
  EXPECT_FALSE(parsed(with_xds({})).istiod.on_demand);
  EXPECT_TRUE(parsed(with_xds({"--xds-on-demand"})).istiod.on_demand);
  EXPECT_THAT(refused({"--local-config", "/m.yaml", "--xds-on-demand"}),
              AllOf(HasSubstr("--xds-on-demand"), HasSubstr("--xds-address")));
  EXPECT_THAT(refused(with_xds({"--xds-on-demand", "--outbound-traffic-policy", "registry-only"})),
              HasSubstr("--outbound-traffic-policy"));
  EXPECT_THAT(refused(with_xds({"--xds-on-demand", "--dns-capture"})), HasSubstr("--dns-capture"));
}

TEST(IstiodConfig, TheCaIsIstiodsUnlessThereIsAnother) {
  EXPECT_EQ(parsed(with_xds({"--ca-dir", "/ca"})).istiod.ca_address, "");
  EXPECT_EQ(parsed(with_xds({"--ca-dir", "/ca"})).certificate_lifetime, seconds(3'600));
  EXPECT_EQ(parsed({"--local-config", "/m"}).istiod.ca_address, "");
  const Config both = parsed({"--local-config", "/m", "--ca-address", "10.0.0.1:15012"});
  EXPECT_EQ(both.istiod.ca_address, "10.0.0.1:15012");
  EXPECT_EQ(both.certificate_lifetime, seconds(86'400));
  EXPECT_THAT(refused(with_xds({"--ca-dir", "/ca", "--ca-address", "h:1"})), HasSubstr("only one CA"));
}

TEST(IstiodConfig, TheMeshHasOneSource) {
  EXPECT_THAT(refused({}), AllOf(HasSubstr("--local-config or --xds-address"), HasSubstr("required")));
  EXPECT_THAT(refused(with_xds({"--local-config", "/m"})), HasSubstr("--local-config and --xds-address: only one"));
}

TEST(IstiodConfig, SaysWhatIsWrong) {
  for (const char* address : {"istiod", "istiod:", ":15012", "istiod:0", "istiod:65536", "a b:1", "istiod:1x",
                              "10.0.0.1", "10.0.0:1", "2001:db8::1:15012", "http://istiod:1"}) {
    EXPECT_THAT(refused(with_xds({"--ca-address", address})), HasSubstr("--ca-address: \"" + std::string(address)));
  }
  EXPECT_THAT(refused(with_xds({"--xds-root", "r"})), HasSubstr("--xds-root: \"r\": expected an absolute path"));
  EXPECT_THAT(refused(with_xds({"--xds-token", ""})), HasSubstr("--xds-token"));
  EXPECT_THAT(refused(with_xds({"--xds-server-name", "a b"})), HasSubstr("--xds-server-name"));
  EXPECT_THAT(refused(with_xds({"--crl", "/crl"})), HasSubstr("--crl"));
  const auto node = [](const char* name, const char* in, const char* ip) {
    return refused({"--xds-address", "h:1", "--pod-name", name, "--pod-namespace", in, "--instance-ip", ip});
  };
  EXPECT_THAT(node("", "n", "1.2.3.4"), HasSubstr("--pod-name: \"\": expected"));
  EXPECT_THAT(node("p~", "n", "1.2.3.4"), HasSubstr("--pod-name"));
  EXPECT_THAT(node("p", "", "1.2.3.4"), HasSubstr("--pod-namespace"));
  EXPECT_THAT(node("p", "n", "host"), HasSubstr("--instance-ip: \"host\""));
}

}  // namespace
}  // namespace weft::agent
