// SPDX-License-Identifier: Apache-2.0
#include "agent/config_istiod.h"

#include <CLI/CLI.hpp>
#include <charconv>

#include "tunnel/state/names.h"

namespace weft::agent {
namespace {

constexpr seconds kIstiodLifetime{86'400};

/// HOST:PORT, where HOST is a name, an IPv4 address, or an IPv6 address in brackets.
bool is_host_and_port(const std::string& text) {
  if (const auto endpoint = Endpoint::parse(text)) return endpoint->port != 0;
  const auto colon = text.rfind(':');
  if (colon == std::string::npos || !state::is_host_name(text.substr(0, colon))) return false;
  std::uint16_t port = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
  return error == std::errc() && stop == end && port != 0;
}

Result<void> check_sources(const Config& config, const GivenFlags& given) {
  const auto& istiod = config.istiod;
  if (config.local_config.empty() == istiod.xds_address.empty()) {
    return fail(ErrorCode::kInvalid,
                istiod.xds_address.empty()
                    ? "--local-config or --xds-address: one of them is required: a file, or istiod's HOST:PORT"
                    : "--local-config and --xds-address: only one of them can say what the mesh is");
  }
  if (!istiod.ca_address.empty() && given.ca_dir)
    return fail(ErrorCode::kInvalid, "--ca-address and --ca-dir: only one CA can issue the certificates");
  return {};
}

Result<void> check_istiod(const Config& config) {
  const auto& istiod = config.istiod;
  for (auto [flag, text] : {std::pair{"--xds-address", &istiod.xds_address}, {"--ca-address", &istiod.ca_address}}) {
    if (!text->empty() && !is_host_and_port(*text))
      return bad_flag(flag, *text, "HOST:PORT, such as istiod.istio-system.svc:15012");
  }
  for (auto [flag, text] : {std::pair{"--xds-root", &istiod.root}, {"--xds-token", &istiod.token}}) {
    if (text->empty() || text->front() != '/') return bad_flag(flag, *text, "an absolute path");
  }
  if (!state::is_host_name(istiod.server_name))
    return bad_flag("--xds-server-name", istiod.server_name, "a name that istiod's certificate has");
  if (!istiod.ca_address.empty() && !config.crl.empty())
    return bad_flag("--crl", config.crl, "none: revocation lists are those of a CA in --ca-dir");
  return {};
}

/// What needs the names and addresses of the whole mesh cannot be had without it.
Result<void> check_on_demand(const Config& config) {
  if (!config.istiod.on_demand) return {};
  const auto without = [](const char* flag) { return std::string("none, or ") + flag; };
  if (config.istiod.xds_address.empty())
    return bad_flag("--xds-on-demand", "true", without("an --xds-address: a file is always there as a whole"));
  if (config.egress.registry_only)
    return bad_flag("--xds-on-demand", "true",
                    without("--outbound-traffic-policy allow-any: the registry is the whole mesh"));
  if (config.dns_capture)
    return bad_flag("--xds-on-demand", "true", without("no --dns-capture: istiod is not asked by hostname"));
  return {};
}

/// istiod looks the agent up by these, and closes the stream where they do not fit.
Result<void> check_node(const IstiodConfig& istiod) {
  for (auto [flag, text] : {std::pair{"--pod-name", &istiod.pod_name}, {"--pod-namespace", &istiod.pod_namespace}}) {
    if (text->empty() || text->find_first_of("~/") != std::string::npos)
      return bad_flag(flag, *text, "the name that Kubernetes has for it (needed with --xds-address)");
  }
  if (!IpAddress::parse(istiod.instance_ip))
    return bad_flag("--instance-ip", istiod.instance_ip,
                    "the IP address of the agent's pod (needed with --xds-address)");
  return {};
}

}  // namespace

void add_istiod_options(CLI::App& app, IstiodConfig& config) {
  const auto option = [&app](const char* flag, std::string& value, const char* environment, const char* help) {
    app.add_option(flag, value, help)->envname(environment)->capture_default_str();
  };
  option("--xds-address", config.xds_address, "WEFT_XDS_ADDRESS",
         "HOST:PORT of istiod, which then says what the mesh is, in the place of --local-config");
  option("--ca-address", config.ca_address, "WEFT_CA_ADDRESS",
         "HOST:PORT of istiod's CA; default: that of --xds-address, unless there is a --ca-dir");
  option("--xds-root", config.root, "WEFT_XDS_ROOT", "what istiod's certificate is verified against, PEM");
  option("--xds-token", config.token, "WEFT_XDS_TOKEN",
         "the agent's service account token for istiod, with the audience istio-ca; read again for each call");
  option("--xds-server-name", config.server_name, "WEFT_XDS_SERVER_NAME",
         "the name that istiod's certificate must have");
  option("--pod-name", config.pod_name, "WEFT_POD_NAME", "the agent's own pod");
  option("--pod-namespace", config.pod_namespace, "WEFT_POD_NAMESPACE", "its namespace");
  option("--instance-ip", config.instance_ip, "WEFT_INSTANCE_IP", "its address");
  app.add_flag(
         "--xds-on-demand", config.on_demand,
         "ask istiod for the workloads and services that this node's pods connect to, instead of having the whole "
         "mesh from it; every connection of a mesh pod then goes through the agent")
      ->envname("WEFT_XDS_ON_DEMAND");
}

Result<void> settle_istiod(Config& config, const GivenFlags& given) {
  auto& istiod = config.istiod;
  if (auto sources = check_sources(config, given); !sources) return sources;
  if (auto on_demand = check_on_demand(config); !on_demand) return on_demand;
  if (istiod.ca_address.empty() && !given.ca_dir) istiod.ca_address = istiod.xds_address;
  if (istiod.xds_address.empty() && istiod.ca_address.empty()) return {};
  if (auto checked = check_istiod(config); !checked) return checked;
  if (!istiod.ca_address.empty() && !given.certificate_lifetime) config.certificate_lifetime = kIstiodLifetime;
  return istiod.xds_address.empty() ? Result<void>() : check_node(istiod);
}

}  // namespace weft::agent
