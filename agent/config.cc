// SPDX-License-Identifier: Apache-2.0
#include "agent/config.h"

#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "agent/config_istiod.h"
#include "agent/duration_flag.h"
#include "agent/version.h"
#include "bpf/shared.h"
#include "tunnel/state/names.h"

namespace weft::agent {
namespace {

constexpr std::uint32_t kDefaultWorkersMax = 4;
constexpr std::int64_t kDayMs = 86'400'000;
constexpr long kShortestLifetimeS = 5;
constexpr long kLongestLifetimeS = 365L * 86'400;

/// Strings as CLI11 fills them, before they are checked.
struct Raw {
  std::string admin = "127.0.0.1:15000";
  std::string metrics = "0.0.0.0:15020";
  std::string ready = "0.0.0.0:15021";
  std::string log_format = "text";
  std::string seccomp = "enforce";
  std::string outbound_policy = "allow-any";
  std::vector<std::string> registry_exempt;
  std::int64_t drain_timeout_ms = 5'000;
  std::int64_t handover_timeout_ms = 0;
  std::int64_t reconcile_interval_ms = 60'000;
  std::uint64_t memory_limit_mib = 0;
  std::string enrolment = "workloads";
  KubernetesConfig kubernetes;
  long certificate_lifetime_s = 3'600;
  const CLI::Option* ca_dir = nullptr;
  CLI::Option* certificate_lifetime = nullptr;
};

void add_kubernetes_options(CLI::App& app, Raw& raw) {
  const auto option = [&app](const char* flag, auto& value, const char* environment, const char* help) {
    return app.add_option(flag, value, help)->envname(environment);
  };
  option("--enrolment", raw.enrolment, "WEFT_ENROLMENT",
         "who says which pods are in the mesh: workloads (those with protocol HBONE in the mesh's configuration) or "
         "kubernetes (the labels istio.io/dataplane-mode, by the Kubernetes API)")
      ->capture_default_str();
  option("--kube-api", raw.kubernetes.api.server, "WEFT_KUBE_API",
         "https://HOST:PORT of the Kubernetes API; default: as a pod finds it");
  option("--kube-token", raw.kubernetes.api.token_file, "WEFT_KUBE_TOKEN",
         "file with the bearer token for it, read for each request; default: the service account's");
  option("--kube-root", raw.kubernetes.api.root_file, "WEFT_KUBE_ROOT",
         "PEM file with its CA; default: the service account's ca.crt");
  option("--exclude-namespaces", raw.kubernetes.exclude_namespaces, "WEFT_EXCLUDE_NAMESPACES",
         "namespaces, separated by commas, of which no pod is ever enrolled and the Kubernetes API never asked")
      ->delimiter(',')
      ->capture_default_str();
}

void add_options(CLI::App& app, Config& config, Raw& raw) {
  const auto option = [&app](const char* flag, auto& value, const char* environment, const char* help) {
    return app.add_option(flag, value, help)->envname(environment)->capture_default_str();
  };
  option("--local-config", config.local_config, "WEFT_LOCAL_CONFIG",
         "mesh configuration: a file in ztunnel's local format");
  add_istiod_options(app, config.istiod);
  option("--node", config.node, "WEFT_NODE", "name of this node, as the workloads' `node` field spells it")->required();
  option("--socket", config.socket, "WEFT_SOCKET", "where weft-cni finds the agent");
  option("--bpf-root", config.bpf_root, "WEFT_BPF_ROOT", "where programs and maps are pinned; below a mounted bpffs");
  raw.ca_dir =
      option("--ca-dir", config.ca_dir, "WEFT_CA_DIR", "the mesh's CA, made by `weftctl ca init DIR`; watched");
  option("--crl", config.crl, "WEFT_CRL", "revocation lists, PEM; watched; default: crl.pem in the CA's directory");
  raw.certificate_lifetime =
      option("--certificate-lifetime", raw.certificate_lifetime_s, "WEFT_CERTIFICATE_LIFETIME",
             "of workloads, such as 1h; renewed at half of it, so a CA may be away for the other half; of istiod's 24h")
          ->default_str("1h");
  takes_duration(raw.certificate_lifetime, kShortestLifetimeS, kLongestLifetimeS);
  option("--run-dir", config.run_dir, "WEFT_RUN_DIR",
         "registration records, and the socket on which agents take over from each other; on a tmpfs");
  option("--admin", raw.admin, "WEFT_ADMIN", "admin API; changes are taken from loopback only");
  option("--metrics", raw.metrics, "WEFT_METRICS", "GET /metrics");
  option("--ready", raw.ready, "WEFT_READY", "GET /healthz/ready");
  option("--workers", config.workers, "WEFT_WORKERS", "data threads; default: the usable cores, at most 4");
  option("--max-pods", config.max_pods, "WEFT_MAX_PODS", "pods of this node that can be wired");
  option("--max-destinations", config.max_destinations, "WEFT_MAX_DESTINATIONS",
         "mesh addresses that can be told apart; beyond that everything is captured");
  option(
      "--max-connections", config.max_connections, "WEFT_MAX_CONNECTIONS",
      "connections and tunnels of all pods; beyond that they are refused, the pod with the most first; 0: as many as "
      "the limits on open files and memory allow");
  option("--max-connections-per-pod", config.max_connections_per_pod, "WEFT_MAX_CONNECTIONS_PER_POD",
         "of one pod; 0: as many as are left to all others, so half of them where it is alone");
  option("--memory-limit-mib", raw.memory_limit_mib, "WEFT_MEMORY_LIMIT_MIB",
         "near this much resident memory new connections are refused; 0: near the limit of the agent's cgroup");
  option("--cluster-id", config.cluster_id, "WEFT_CLUSTER_ID", "the cluster's name in telemetry and headers");
  option("--network", config.network, "WEFT_NETWORK",
         "the network this node is in; workloads of it are reached directly");
  option("--cluster-domain", config.cluster_domain, "WEFT_CLUSTER_DOMAIN", "the domain of Kubernetes' own names");
  app.add_flag(
         "--dns-capture,!--no-dns-capture", config.dns_capture,
         "answer the DNS of mesh pods, of those too whose annotation ambient.istio.io/dns-capture does not say so")
      ->envname("WEFT_DNS_CAPTURE");
  option("--outbound-traffic-policy", raw.outbound_policy, "WEFT_OUTBOUND_TRAFFIC_POLICY",
         "where mesh pods may go: allow-any, or registry-only, to what the configuration names");
  app.add_option(
         "--registry-exempt", raw.registry_exempt,
         "addresses and CIDRs that mesh pods reach in spite of registry-only, with commas between them; the API "
         "server's (KUBERNETES_SERVICE_HOST) is one of them by itself")
      ->envname("WEFT_REGISTRY_EXEMPT")
      ->delimiter(',');
  option("--resolv-conf", config.resolv_conf, "WEFT_RESOLV_CONF",
         "names the DNS servers that are asked for workloads which are names; read again when it changes");
  option("--log-level", config.log_level, "WEFT_LOG_LEVEL", "error, warn, info, debug, trace or off");
  option("--log-format", raw.log_format, "WEFT_LOG_FORMAT", "text or json");
  option("--drain-timeout-ms", raw.drain_timeout_ms, "WEFT_DRAIN_TIMEOUT_MS",
         "how long connections may live on after SIGTERM");
  option("--handover-timeout-ms", raw.handover_timeout_ms, "WEFT_HANDOVER_TIMEOUT_MS",
         "how long connections may live on after another agent has taken over; 0: until they end");
  option("--cni-conf-dir", config.cni_conf_dir, "WEFT_CNI_CONF_DIR",
         "network configuration lists: pods of those with weft-cni that are older than it are taken up; empty: none");
  option("--cni-cache-dir", config.cni_cache_dir, "WEFT_CNI_CACHE_DIR", "where libcni remembers the pods of this node");
  option("--reconcile-interval-ms", raw.reconcile_interval_ms, "WEFT_RECONCILE_INTERVAL_MS",
         "between looks at whether every pod is captured as it should be");
  option("--seccomp", raw.seccomp, "WEFT_SECCOMP",
         "system calls that the agent has no use for: enforce (refused), log (allowed, in the audit log) or off");
  add_kubernetes_options(app, raw);
  app.set_version_flag("--version", std::string("weft-agent ") + kVersion);
}

Result<Endpoint> endpoint(const char* flag, const std::string& text) {
  auto parsed = Endpoint::parse(text);
  if (parsed) return parsed;
  return bad_flag(flag, text, "ADDRESS:PORT, such as 127.0.0.1:15000");
}

Result<void> check_limits(Config& config, const Raw& raw) {
  constexpr std::uint64_t kMostConnections = 100'000'000, kLeastMemoryMib = 32, kMostMemoryMib = 1U << 24;
  for (auto [flag, value] : {std::pair{"--max-connections", config.max_connections},
                             {"--max-connections-per-pod", config.max_connections_per_pod}}) {
    if (value > kMostConnections)
      return bad_flag(flag, std::to_string(value), "0 to " + std::to_string(kMostConnections));
  }
  const std::uint64_t memory = raw.memory_limit_mib;
  if (memory != 0 && (memory < kLeastMemoryMib || memory > kMostMemoryMib)) {
    return bad_flag("--memory-limit-mib", std::to_string(memory),
                    "0, or " + std::to_string(kLeastMemoryMib) + " to " + std::to_string(kMostMemoryMib));
  }
  config.memory_limit = memory << 20;
  return {};
}

Result<void> check_egress(Config& config, const Raw& raw) {
  if (raw.outbound_policy != "allow-any" && raw.outbound_policy != "registry-only") {
    return bad_flag("--outbound-traffic-policy", raw.outbound_policy, "allow-any or registry-only");
  }
  config.egress.registry_only = raw.outbound_policy == "registry-only";
  for (const std::string& text : raw.registry_exempt) {
    const auto range = Cidr::parse(text);
    if (!range) return bad_flag("--registry-exempt", text, "addresses or CIDRs, such as 192.0.2.7 or 198.51.100.0/24");
    config.egress.exempt.push_back(*range);
  }
  if (!config.egress.registry_only && !config.egress.exempt.empty()) {
    return bad_flag("--registry-exempt", raw.registry_exempt.front(),
                    "it with --outbound-traffic-policy registry-only");
  }
  const char* api_server = std::getenv("KUBERNETES_SERVICE_HOST");
  if (!config.egress.registry_only || api_server == nullptr) return {};
  // A name is none of the programs' business.
  if (const auto range = Cidr::parse(api_server)) config.egress.exempt.push_back(*range);
  return {};
}

Result<void> check_enrolment(Config& config, const Raw& raw) {
  if (raw.enrolment == "workloads") return {};
  if (raw.enrolment != "kubernetes") return bad_flag("--enrolment", raw.enrolment, "workloads or kubernetes");
  auto api = kube::complete(raw.kubernetes.api);
  if (!api) return fail(api.error().code, "--enrolment kubernetes: " + api.error().context);
  config.kubernetes = raw.kubernetes;
  config.kubernetes->api = std::move(*api);
  return {};
}

Result<void> check(Config& config, const Raw& raw) {
  for (auto [flag, text, into] : {std::tuple{"--admin", &raw.admin, &config.admin},
                                  {"--metrics", &raw.metrics, &config.metrics},
                                  {"--ready", &raw.ready, &config.ready}}) {
    auto parsed = endpoint(flag, *text);
    if (!parsed) return Failure(parsed.error());
    *into = *parsed;
  }
  if (config.node.empty()) return bad_flag("--node", config.node, "the node's name");
  if (!state::is_host_name(config.cluster_domain) || config.cluster_domain.ends_with('.')) {
    return bad_flag("--cluster-domain", config.cluster_domain, "a domain such as cluster.local");
  }
  if (config.ca_dir.empty()) {
    return bad_flag("--ca-dir", config.ca_dir, "a directory with the mesh's CA (make one with `weftctl ca init DIR`)");
  }
  for (auto [flag, text] : {std::pair{"--socket", &config.socket},
                            {"--bpf-root", &config.bpf_root},
                            {"--run-dir", &config.run_dir},
                            {"--resolv-conf", &config.resolv_conf}}) {
    if (text->empty() || text->front() != '/') return bad_flag(flag, *text, "an absolute path");
  }
  if (config.workers == 0 || config.workers > WEFT_MAX_WORKERS) {
    return bad_flag("--workers", std::to_string(config.workers), "1 to " + std::to_string(WEFT_MAX_WORKERS));
  }
  if (config.max_pods == 0 || config.max_pods > 65536) {
    return bad_flag("--max-pods", std::to_string(config.max_pods), "1 to 65536");
  }
  if (auto limits = check_limits(config, raw); !limits) return limits;
  if (auto egress = check_egress(config, raw); !egress) return egress;
  if (auto enrolment = check_enrolment(config, raw); !enrolment) return enrolment;
  if (config.max_destinations == 0) return bad_flag("--max-destinations", "0", "at least 1");
  constexpr const char* kLevels[] = {"error", "warn", "info", "debug", "trace", "off"};
  if (std::find(std::begin(kLevels), std::end(kLevels), config.log_level) == std::end(kLevels)) {
    return bad_flag("--log-level", config.log_level, "error, warn, info, debug, trace or off");
  }
  if (raw.log_format != "text" && raw.log_format != "json")
    return bad_flag("--log-format", raw.log_format, "text or json");
  config.log_format = raw.log_format == "json" ? log::Format::kJson : log::Format::kText;
  for (auto [flag, ms, least, into] :
       {std::tuple{"--drain-timeout-ms", raw.drain_timeout_ms, 0, &config.drain_timeout},
        {"--handover-timeout-ms", raw.handover_timeout_ms, 0, &config.handover_timeout},
        {"--reconcile-interval-ms", raw.reconcile_interval_ms, 100, &config.reconcile_interval}}) {
    if (ms < least || ms > kDayMs) {
      return bad_flag(flag, std::to_string(ms), std::to_string(least) + " to " + std::to_string(kDayMs));
    }
    *into = milliseconds(ms);
  }
  auto seccomp = hardening::parse_seccomp_mode(raw.seccomp);
  if (!seccomp) return fail(ErrorCode::kInvalid, "--seccomp: " + seccomp.error().context);
  config.seccomp = *seccomp;
  if (!config.crl.empty() && config.crl.front() != '/') return bad_flag("--crl", config.crl, "an absolute path");
  config.certificate_lifetime = seconds(raw.certificate_lifetime_s);
  return settle_istiod(config,
                       {.ca_dir = !raw.ca_dir->empty(), .certificate_lifetime = !raw.certificate_lifetime->empty()});
}

}  // namespace

std::uint32_t default_workers() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) < 0) return 1;
  return std::clamp(static_cast<std::uint32_t>(CPU_COUNT(&set)), 1U, kDefaultWorkersMax);
}

Result<std::variant<Config, Shown>> parse_config(int argc, const char* const* argv) {
  Config config;
  Raw raw;
  config.workers = default_workers();
  CLI::App app{
      "weft-agent: the node agent of Weft. Captures the mesh pods of this node and carries their traffic in mTLS.\n"
      "Ends with 0 after SIGTERM or SIGINT, with 1 when it cannot start or cannot go on."};
  app.name("weft-agent");
  add_options(app, config, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return std::variant<Config, Shown>(Shown{app.help()});
  } catch (const CLI::CallForVersion&) {
    return std::variant<Config, Shown>(Shown{app.version() + "\n"});
  } catch (const CLI::ParseError& e) {
    return fail(ErrorCode::kInvalid, std::string(e.what()) + " (see weft-agent --help)");
  }
  if (auto checked = check(config, raw); !checked) return Failure(checked.error());
  return std::variant<Config, Shown>(std::move(config));
}

}  // namespace weft::agent
