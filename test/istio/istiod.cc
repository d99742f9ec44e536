// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <cstdlib>

#include "test/istio/cluster.h"

namespace weft::test {
namespace {

constexpr milliseconds kStartDeadline{60'000};

/// Istio's defaults but for HBONE, which proxies take only where they are told so, and namespaces whose ServiceEntries
/// are their own.
constexpr const char* kMeshConfig = R"(trustDomain: cluster.local
rootNamespace: istio-system
defaultConfig:
  discoveryAddress: istiod.istio-system.svc:15012
  proxyMetadata:
    ISTIO_META_ENABLE_HBONE: "true"
serviceEntryVisibility:
  policies:
  - matchingRules:
    - namespaceSelector:
        matchLabels:
          service-entries: own
    visibility: NAMESPACE
)";

std::string kubeconfig(const kube::ApiConfig& api) {
  const kube::Json config = {
      {"apiVersion", "v1"},
      {"kind", "Config"},
      {"clusters",
       {{{"name", "test"}, {"cluster", {{"server", api.server}, {"certificate-authority", api.root_file}}}}}},
      {"users", {{{"name", "admin"}, {"user", {{"tokenFile", api.token_file}}}}}},
      {"contexts", {{{"name", "test"}, {"context", {{"cluster", "test"}, {"user", "admin"}}}}}},
      {"current-context", "test"}};
  return config.dump(2);
}

}  // namespace

Istiod::Istiod(const KubeApi& api, const Netns& netns, IpAddress address, const ScratchDir& folder,
               const std::vector<std::string>& environment)
    : netns_(&netns), address_(address) {
  const std::string home = folder.path() + "/istiod";
  // It writes below where it was started.
  if (::mkdir(home.c_str(), 0700) != 0) throw TestError("make " + home + ": failed");
  const auto at = [&](int port) { return Endpoint{address_, static_cast<std::uint16_t>(port)}.to_string(); };
  command_ = {"env",
              "--chdir=" + home,
              "PILOT_ENABLE_AMBIENT=true",
              "CA_TRUSTED_NODE_ACCOUNTS=istio-system/ztunnel",
              "POD_NAME=istiod",
              "POD_NAMESPACE=istio-system",
              "SERVICE_ACCOUNT=istiod",
              "REVISION=default",
              "CLUSTER_ID=Kubernetes",
              "PILOT_CERT_PROVIDER=istiod"};
  command_.insert(command_.end(), environment.begin(), environment.end());
  for (const std::string& argument : {std::string(std::getenv("WEFT_ISTIOD")),
                                      std::string("discovery"),
                                      std::string("--kubeconfig"),
                                      folder.write("kubeconfig", kubeconfig(api.config())),
                                      std::string("--meshConfig"),
                                      folder.write("istiod-mesh.yaml", kMeshConfig),
                                      std::string("--httpAddr"),
                                      at(kDebugPort),
                                      std::string("--grpcAddr"),
                                      at(kPlainPort),
                                      std::string("--secureGRPCAddr"),
                                      at(kXdsPort),
                                      std::string("--httpsAddr"),
                                      at(15017),
                                      std::string("--monitoringAddr"),
                                      at(15014),
                                      std::string("--ctrlz_port"),
                                      std::string("0"),
                                      std::string("--domain"),
                                      std::string("cluster.local")}) {
    command_.push_back(argument);
  }
}

void Istiod::start() {
  if (process_) ended_logs_ += process_->out() + process_->err();
  process_ = std::make_unique<Process>(Process::start(command_, {.netns = netns_, .environment = {}, .input = {}}));
  const bool ready = eventually(kStartDeadline, [this] {
    return !process_->running() || http_get(*netns_, {address_, kDebugPort}, "/ready").has_value();
  });
  if (!ready || !process_->running()) throw TestError("istiod does not become ready:\n" + log());
}

void Istiod::kill() { process_->kill(); }

std::string Istiod::debug(const std::string& path) const {
  auto body = http_get(*netns_, {address_, kDebugPort}, path);
  if (!body) throw TestError("GET " + path + " from istiod: no answer");
  return *body;
}

std::string Istiod::log() const { return ended_logs_ + (process_ ? process_->out() + process_->err() : ""); }

}  // namespace weft::test
