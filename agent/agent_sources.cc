// SPDX-License-Identifier: Apache-2.0
// Where the configuration and the certificates come from: the mesh's own files, or istiod.
#include <unistd.h>

#include <map>
#include <string_view>

#include "agent/agent_impl.h"
#include "agent/control/local_file.h"
#include "agent/control/xds_source.h"

namespace weft::agent {
namespace {

IstiodAddress istiod_at(const Config& config, const std::string& address) {
  return {.address = address,
          .root_file = config.istiod.root,
          .server_name = config.istiod.server_name,
          .token_file = config.istiod.token,
          .cluster_id = config.cluster_id};
}

/// What the environment adds to the node's metadata: all of ISTIO_META_*.
std::map<std::string, std::string> metadata_of_environment() {
  constexpr std::string_view kPrefix = "ISTIO_META_";
  std::map<std::string, std::string> out;
  for (char** one = environ; one != nullptr && *one != nullptr; ++one) {
    const std::string_view text = *one;
    const auto equals = text.find('=');
    if (!text.starts_with(kPrefix) || equals == std::string_view::npos || equals <= kPrefix.size()) continue;
    out.emplace(text.substr(kPrefix.size(), equals - kPrefix.size()), text.substr(equals + 1));
  }
  return out;
}

}  // namespace

Result<void> Agent::Impl::open_ca() {
  if (!config.istiod.ca_address.empty()) {
    istiod_ca = std::make_unique<CaClient>(CaClient::Options{.istiod = istiod_at(config, config.istiod.ca_address),
                                                             .lifetime = config.certificate_lifetime});
    return {};
  }
  auto opened =
      LocalCa::open({.directory = config.ca_dir, .crl_file = config.crl, .lifetime = config.certificate_lifetime});
  if (!opened) return Failure(opened.error());
  ca = std::move(*opened);
  return {};
}

CertificateSource& Agent::Impl::certificate_source() const {
  if (istiod_ca) return *istiod_ca;
  return *ca;
}

CaStatus Agent::Impl::ca_status() const { return istiod_ca ? istiod_ca->status() : ca->status(); }

std::unique_ptr<control::Source> Agent::Impl::make_source() const {
  if (config.istiod.xds_address.empty()) return std::make_unique<control::LocalFile>(config.local_config);
  control::XdsOptions options{.istiod = istiod_at(config, config.istiod.xds_address),
                              .node = {.pod_name = config.istiod.pod_name,
                                       .pod_namespace = config.istiod.pod_namespace,
                                       .instance_ip = config.istiod.instance_ip,
                                       .node_name = config.node,
                                       .metadata = metadata_of_environment()}};
  // Certificates that could not be had while it was away need not wait for their next try.
  options.connected = [this] { cert_manager->retry(); };
  options.demand = demand;
  return std::make_unique<control::XdsSource>(std::move(options), std::make_shared<control::XdsMetrics>(registry));
}

}  // namespace weft::agent
