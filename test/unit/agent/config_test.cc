// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <gmock/gmock.h>
#include <sched.h>

#include <cstdlib>

namespace weft::agent {
namespace {

using ::testing::HasSubstr;

Result<std::variant<Config, Shown>> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "weft-agent");
  return parse_config(static_cast<int>(arguments.size()), arguments.data());
}

Config parsed(std::vector<const char*> more) {
  more.insert(more.begin(), {"--local-config", "/etc/mesh.yaml", "--node", "n1"});
  auto result = parse(std::move(more));
  EXPECT_TRUE(result) << result.error().message();
  return result ? std::get<Config>(*result) : Config();
}

std::string refused(std::vector<const char*> more) {
  more.insert(more.begin(), {"--local-config", "/etc/mesh.yaml", "--node", "n1"});
  auto result = parse(std::move(more));
  EXPECT_FALSE(result);
  return result ? "" : result.error().message();
}

/// Sets a variable for the life of the object.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Variable() { ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST(AgentConfig, KubernetesEnrolsWhereItIsAskedFor) {
  EXPECT_FALSE(parsed({}).kubernetes);
  const Config c = parsed({"--enrolment", "kubernetes", "--kube-api", "https://api:6443/", "--kube-token", "/t",
                           "--kube-root", "/r", "--exclude-namespaces", "kube-system,weft-system"});
  ASSERT_TRUE(c.kubernetes);
  EXPECT_EQ(c.kubernetes->api.server, "https://api:6443");
  EXPECT_EQ(c.kubernetes->api.token_file, "/t");
  EXPECT_EQ(c.kubernetes->api.root_file, "/r");
  EXPECT_THAT(c.kubernetes->exclude_namespaces, ::testing::ElementsAre("kube-system", "weft-system"));
  const Variable host("KUBERNETES_SERVICE_HOST", "10.96.0.1"), port("KUBERNETES_SERVICE_PORT", "443"),
      how("WEFT_ENROLMENT", "kubernetes");
  const Config in_cluster = parsed({});
  ASSERT_TRUE(in_cluster.kubernetes);
  EXPECT_EQ(in_cluster.kubernetes->api.server, "https://10.96.0.1:443");
  EXPECT_THAT(in_cluster.kubernetes->exclude_namespaces, ::testing::ElementsAre("kube-system"));
}

TEST(AgentConfig, AKubernetesApiThatCannotBeIsRefused) {
  EXPECT_THAT(refused({"--enrolment", "magic"}), HasSubstr("expected workloads or kubernetes"));
  EXPECT_THAT(refused({"--enrolment", "kubernetes"}), HasSubstr("--kube-api"));
  EXPECT_THAT(refused({"--enrolment", "kubernetes", "--kube-api", "http://api:8080"}), HasSubstr("https://HOST:PORT"));
}

TEST(AgentConfig, HasDefaults) {
  const Config c = parsed({});
  EXPECT_EQ(c.local_config, "/etc/mesh.yaml");
  EXPECT_EQ(c.node, "n1");
  EXPECT_EQ(c.socket, "/run/weft/agent.sock");
  EXPECT_EQ(c.bpf_root, "/sys/fs/bpf/weft");
  EXPECT_EQ(c.run_dir, "/run/weft");
  EXPECT_EQ(c.resolv_conf, "/etc/resolv.conf");
  EXPECT_EQ(c.admin.to_string(), "127.0.0.1:15000");
  EXPECT_EQ(c.metrics.to_string(), "0.0.0.0:15020");
  EXPECT_EQ(c.ready.to_string(), "0.0.0.0:15021");
  EXPECT_EQ(c.cluster_id, "Kubernetes");
  EXPECT_EQ(c.workers, default_workers());
  EXPECT_EQ(c.log_level, "info");
  EXPECT_EQ(c.log_format, log::Format::kText);
  EXPECT_EQ(c.max_connections, 0U);
  EXPECT_EQ(c.max_connections_per_pod, 0U);
  EXPECT_EQ(c.memory_limit, 0U);
  EXPECT_FALSE(c.dns_capture);
  EXPECT_EQ(c.cluster_domain, "cluster.local");
  EXPECT_EQ(c.seccomp, hardening::SeccompMode::kEnforce);
}

TEST(AgentConfig, TakesEveryFlag) {
  const Config c = parsed({"--socket",
                           "/run/x.sock",
                           "--bpf-root",
                           "/sys/fs/bpf/x",
                           "--ca-dir",
                           "/ca",
                           "--run-dir",
                           "/run/x",
                           "--admin",
                           "127.0.0.1:1",
                           "--metrics",
                           "[::]:2",
                           "--ready",
                           "10.0.0.1:3",
                           "--workers",
                           "3",
                           "--max-pods",
                           "9",
                           "--max-destinations",
                           "10",
                           "--max-connections",
                           "5000",
                           "--max-connections-per-pod",
                           "600",
                           "--memory-limit-mib",
                           "256",
                           "--cluster-id",
                           "c",
                           "--network",
                           "net",
                           "--cluster-domain",
                           "mesh.test",
                           "--dns-capture",
                           "--log-level",
                           "debug",
                           "--log-format",
                           "json",
                           "--drain-timeout-ms",
                           "0",
                           "--seccomp",
                           "log"});
  EXPECT_EQ(c.socket, "/run/x.sock");
  EXPECT_EQ(c.bpf_root, "/sys/fs/bpf/x");
  EXPECT_EQ(c.ca_dir, "/ca");
  EXPECT_EQ(c.run_dir, "/run/x");
  EXPECT_EQ(c.admin.port, 1);
  EXPECT_EQ(c.metrics.to_string(), "[::]:2");
  EXPECT_EQ(c.ready.to_string(), "10.0.0.1:3");
  EXPECT_EQ(c.workers, 3U);
  EXPECT_EQ(c.max_pods, 9U);
  EXPECT_EQ(c.max_destinations, 10U);
  EXPECT_EQ(c.max_connections, 5000U);
  EXPECT_EQ(c.max_connections_per_pod, 600U);
  EXPECT_EQ(c.memory_limit, 256U << 20);
  EXPECT_EQ(c.cluster_id, "c");
  EXPECT_EQ(c.network, "net");
  EXPECT_EQ(c.cluster_domain, "mesh.test");
  EXPECT_TRUE(c.dns_capture);
  EXPECT_EQ(c.log_level, "debug");
  EXPECT_EQ(c.log_format, log::Format::kJson);
  EXPECT_EQ(c.drain_timeout.count(), 0);
  EXPECT_EQ(c.seccomp, hardening::SeccompMode::kLog);
}

TEST(AgentConfig, CertificatesLiveAsLongAsTheirLifetimeSays) {
  EXPECT_EQ(parsed({}).certificate_lifetime, std::chrono::hours(1));
  EXPECT_EQ(parsed({"--certificate-lifetime", "90"}).certificate_lifetime, std::chrono::seconds(90));
  EXPECT_EQ(parsed({"--certificate-lifetime", "24h"}).certificate_lifetime, std::chrono::hours(24));
  {
    const Variable lifetime("WEFT_CERTIFICATE_LIFETIME", "10m");
    EXPECT_EQ(parsed({}).certificate_lifetime, std::chrono::minutes(10));
  }
  for (const char* bad : {"4s", "366d", "0", "-1", "soon", "1 fortnight"}) {
    EXPECT_THAT(refused({"--certificate-lifetime", bad}), HasSubstr("--certificate-lifetime")) << bad;
  }
}

TEST(AgentConfig, RevocationListsAreBesideTheCaOrElsewhere) {
  EXPECT_EQ(parsed({}).crl, "");
  EXPECT_EQ(parsed({"--crl", "/crl/ca-crl.pem"}).crl, "/crl/ca-crl.pem");
  EXPECT_THAT(refused({"--crl", "crl.pem"}), HasSubstr("--crl: \"crl.pem\": expected an absolute path"));
}

TEST(AgentConfig, ReadsTheEnvironmentAndPrefersTheFlag) {
  const Variable file("WEFT_LOCAL_CONFIG", "/env.yaml");
  const Variable node("WEFT_NODE", "from-env");
  const Variable workers("WEFT_WORKERS", "2");
  const Variable dns("WEFT_DNS_CAPTURE", "true");
  auto result = parse({"--node", "from-flag"});
  ASSERT_TRUE(result) << result.error().message();
  const auto& c = std::get<Config>(*result);
  EXPECT_EQ(c.local_config, "/env.yaml");
  EXPECT_EQ(c.node, "from-flag");
  EXPECT_EQ(c.workers, 2U);
  EXPECT_TRUE(c.dns_capture);
  auto without = parse({"--no-dns-capture"});
  ASSERT_TRUE(without) << without.error().message();
  EXPECT_FALSE(std::get<Config>(*without).dns_capture);
}

TEST(AgentConfig, WhereMeshPodsMayGo) {
  const auto ranges = [](const Config& config) {
    std::string out;
    for (const auto& range : config.egress.exempt) out += range.to_string() + " ";
    return out;
  };
  EXPECT_FALSE(parsed({}).egress.registry_only);
  EXPECT_FALSE(parsed({"--outbound-traffic-policy", "allow-any"}).egress.registry_only);
  const Config closed = parsed({"--outbound-traffic-policy", "registry-only", "--registry-exempt",
                                "192.0.2.7,198.51.100.0/24", "--registry-exempt", "2001:db8::1"});
  EXPECT_TRUE(closed.egress.registry_only);
  EXPECT_EQ(ranges(closed), "192.0.2.7/32 198.51.100.0/24 2001:db8::1/128 ");
  const Variable policy("WEFT_OUTBOUND_TRAFFIC_POLICY", "registry-only");
  const Variable exempt("WEFT_REGISTRY_EXEMPT", "192.0.2.0/24,2001:db8::/32");
  const Variable api_server("KUBERNETES_SERVICE_HOST", "10.96.0.1");
  EXPECT_EQ(ranges(parsed({})), "192.0.2.0/24 2001:db8::/32 10.96.0.1/32 ");
}

TEST(AgentConfig, SaysWhatIsMissing) {
  auto result = parse({"--node", "n1"});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(result.error().message(), HasSubstr("--local-config"));
}

TEST(AgentConfig, RefusesBadValuesByName) {
  EXPECT_THAT(refused({"--admin", "15000"}), HasSubstr("--admin: \"15000\": expected ADDRESS:PORT"));
  EXPECT_THAT(refused({"--ready", "localhost:1"}), HasSubstr("--ready"));
  EXPECT_THAT(refused({"--workers", "0"}), HasSubstr("--workers: \"0\": expected 1 to"));
  EXPECT_THAT(refused({"--workers", "17"}), HasSubstr("--workers"));
  EXPECT_THAT(refused({"--workers", "many"}), HasSubstr("--workers"));
  EXPECT_THAT(refused({"--log-level", "loud"}), HasSubstr("--log-level: \"loud\": expected error, warn"));
  EXPECT_THAT(refused({"--log-format", "xml"}), HasSubstr("--log-format"));
  EXPECT_THAT(refused({"--socket", "agent.sock"}), HasSubstr("--socket: \"agent.sock\": expected an absolute path"));
  EXPECT_THAT(refused({"--resolv-conf", "resolv.conf"}),
              HasSubstr("--resolv-conf: \"resolv.conf\": expected an absolute"));
  EXPECT_THAT(refused({"--ca-dir", ""}), HasSubstr("weftctl ca init"));
  EXPECT_THAT(refused({"--max-pods", "0"}), HasSubstr("--max-pods"));
  EXPECT_THAT(refused({"--cluster-domain", "*.local"}), HasSubstr("--cluster-domain: \"*.local\": expected a domain"));
  EXPECT_THAT(refused({"--max-connections", "-1"}), HasSubstr("--max-connections"));
  EXPECT_THAT(refused({"--memory-limit-mib", "8"}), HasSubstr("--memory-limit-mib: \"8\": expected 0, or 32 to"));
  EXPECT_THAT(refused({"--drain-timeout-ms", "-1"}), HasSubstr("--drain-timeout-ms"));
  EXPECT_THAT(refused({"--seccomp", "on"}), HasSubstr("--seccomp: \"on\": expected enforce, log or off"));
  EXPECT_THAT(refused({"--outbound-traffic-policy", "REGISTRY_ONLY"}),
              HasSubstr("--outbound-traffic-policy: \"REGISTRY_ONLY\": expected allow-any or registry-only"));
  EXPECT_THAT(refused({"--outbound-traffic-policy", "registry-only", "--registry-exempt", "10.0.0.0/8,metadata"}),
              HasSubstr("--registry-exempt: \"metadata\": expected addresses or CIDRs"));
  EXPECT_THAT(refused({"--registry-exempt", "10.0.0.0/8"}), HasSubstr("--outbound-traffic-policy registry-only"));
  EXPECT_THAT(refused({"--surprise"}), HasSubstr("--surprise"));
}

TEST(AgentConfig, ShowsHelpAndVersion) {
  auto help = parse({"--help"});
  ASSERT_TRUE(help);
  for (const char* flag : {"--local-config", "--node", "--socket", "--bpf-root", "--ca-dir", "--admin", "--metrics",
                           "--ready", "--workers", "--run-dir", "--log-level", "--log-format", "--cluster-id"}) {
    EXPECT_THAT(std::get<Shown>(*help).text, HasSubstr(flag));
  }
  EXPECT_THAT(std::get<Shown>(*help).text, HasSubstr("WEFT_LOCAL_CONFIG"));
  auto version = parse({"--version"});
  ASSERT_TRUE(version);
  EXPECT_THAT(std::get<Shown>(*version).text, HasSubstr("weft-agent " WEFT_VERSION));
}

TEST(AgentConfig, DefaultWorkersAreTheUsableCoresUpToFour) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(default_workers(), std::min(4U, static_cast<unsigned>(CPU_COUNT(&before))));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(default_workers(), 1U);
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
}

}  // namespace
}  // namespace weft::agent
