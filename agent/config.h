// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "agent/hardening/syscalls.h"
#include "agent/kube/api_config.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"
#include "tunnel/base/log.h"
#include "tunnel/state/egress.h"

namespace weft::agent {

/// How the Kubernetes API enrols this node's pods.
struct KubernetesConfig {
  kube::ApiConfig api;
  std::vector<std::string> exclude_namespaces = {"kube-system"};
};

/// istiod, where the configuration or the certificates come from it, and what the agent is to it.
struct IstiodConfig {
  std::string xds_address;  ///< HOST:PORT; empty: the configuration is a file
  std::string ca_address;   ///< HOST:PORT; empty: the CA is a directory
  std::string root = "/var/run/secrets/istio/root-cert.pem";
  std::string token = "/var/run/secrets/tokens/istio-token";
  std::string server_name = "istiod.istio-system.svc";
  std::string pod_name, pod_namespace, instance_ip;
  bool on_demand = false;  ///< it tells what it is asked for, not the whole mesh
};

/// What weft-agent was started with: flags, or WEFT_* in the environment, of which the flag wins.
struct Config {
  std::string local_config;  ///< empty: istiod has the configuration
  IstiodConfig istiod;
  std::string node;
  std::string socket = "/run/weft/agent.sock";
  std::string bpf_root = "/sys/fs/bpf/weft";
  std::string ca_dir = "/etc/weft/ca";
  std::string crl;                     ///< empty: crl.pem in ca_dir
  seconds certificate_lifetime{3600};  ///< of istiod's CA a day, unless told otherwise
  std::string run_dir = "/run/weft";
  Endpoint admin, metrics, ready;
  std::uint32_t workers = 1;
  std::uint32_t max_pods = 512;
  std::uint32_t max_destinations = 65536;
  std::uint64_t max_connections = 0;          ///< 0: as many as descriptors and memory allow
  std::uint64_t max_connections_per_pod = 0;  ///< 0: as many as are left to all others
  std::uint64_t memory_limit = 0;             ///< bytes; 0: that of the cgroup
  std::string cluster_id = "Kubernetes";
  std::string network;
  std::string cluster_domain = "cluster.local";
  bool dns_capture = false;  ///< of pods whose annotations do not say
  state::EgressPolicy egress;
  std::string resolv_conf = "/etc/resolv.conf";  ///< names the DNS servers for workloads that are names
  std::optional<KubernetesConfig> kubernetes;    ///< empty: the mesh's configuration says which pods are in it
  std::string log_level = "info";
  log::Format log_format = log::Format::kText;
  std::string cni_conf_dir = "/etc/cni/net.d";         ///< empty: pods that are older than Weft are not taken up
  std::string cni_cache_dir = "/var/lib/cni/results";  ///< where libcni remembers what it set up
  milliseconds reconcile_interval{60'000};
  hardening::SeccompMode seccomp = hardening::SeccompMode::kEnforce;
  milliseconds drain_timeout{5'000};  ///< how long connections may live on after a signal to stop
  milliseconds handover_timeout{0};   ///< the same after another agent has taken over; 0: until they end
};

/// The text of --help or --version, which end the process well.
struct Shown {
  std::string text;
};

/// Reads the command line and the environment. Pure but for getenv. Errors: kInvalid naming the flag, what was found
/// and what was expected.
Result<std::variant<Config, Shown>> parse_config(int argc, const char* const* argv);

/// The cores that this process may use, at most 4.
[[nodiscard]] std::uint32_t default_workers();

}  // namespace weft::agent
