// SPDX-License-Identifier: Apache-2.0
#include "test/interop/ztunnel.h"

#include <unistd.h>

#include <cstdlib>
#include <regex>

namespace weft::test {
namespace {

using nlohmann::json;

constexpr milliseconds kStartDeadline{20'000};
constexpr const char* kCaAddress = "127.0.0.1:15012";

/// ztunnel's own packets carry 0x539. A connection that it opens to the application with the client's address is marked
/// 0x111, and what the application answers on it is routed back to ztunnel by the table 100.
constexpr const char* kCapture = R"(
table inet ztunnel {
  chain mark_in {
    type filter hook prerouting priority mangle;
    meta mark & 0xfff == 0x539 ct mark set 0x111
  }
  chain mark_out {
    type route hook output priority mangle;
    ct mark & 0xfff == 0x111 meta mark set ct mark
  }
  chain inbound {
    type nat hook prerouting priority dstnat;
    ip daddr 127.0.0.1 accept
    ip6 daddr ::1 accept
    tcp dport != 15008 meta mark & 0xfff != 0x539 redirect to :15006
  }
  chain outbound {
    type nat hook output priority -100;
    meta mark & 0xfff == 0x111 accept
    oifname "lo" accept
    meta l4proto tcp meta mark & 0xfff != 0x539 redirect to :15001
  }
}
)";

/// JSON as ztunnel's reader of YAML wants it: a port as a key has no quotes, and a string match is a tagged value
/// (!Exact "x"), not a map of one entry.
std::string as_ztunnel_spells(const std::string& text) {
  static const std::regex port(R"re("([0-9]+)":)re");
  static const std::regex match(R"re(\{\s*"(Exact|Prefix|Suffix|Presence)":\s*("[^"]*"|\[\])\s*\})re");
  return std::regex_replace(std::regex_replace(text, port, "$1:"), match, "!$1 $2");
}

}  // namespace

std::string Ztunnel::executable() {
  const char* path = std::getenv("WEFT_ZTUNNEL");
  return path != nullptr && ::access(path, X_OK) == 0 ? path : "";
}

Ztunnel::Ztunnel(const Mesh& mesh, const Pod& pod) : mesh_(&mesh), pod_(&pod) {
  must_run({"nft", "-f", "-"}, {.netns = &pod.netns(), .environment = {}, .input = kCapture});
  for (const char* family : {"-4", "-6"}) {
    pod.netns().ip(std::string(family) + " rule add fwmark 0x111/0xfff lookup 100");
    pod.netns().ip(std::string(family) + " route add local default dev lo table 100");
  }
}

void Ztunnel::start(const Options& options) {
  ended_logs_ = log();
  ztunnel_.reset();
  ca_.reset();
  std::vector<std::string> ca{program("weft-test-ca"), "--ca-dir", mesh_->ca_dir(), "--listen", kCaAddress};
  if (!options.identity.empty()) ca.insert(ca.end(), {"--identity", options.identity});
  ca_ = std::make_unique<Process>(pod_->start(ca));
  if (!ca_->wait_for_output("serving ", kStartDeadline)) {
    throw TestError("weft-test-ca of " + pod_->name() + " does not listen: " + ca_->err());
  }
  ztunnel_ = std::make_unique<Process>(
      Process::start({executable(), "proxy", "ztunnel"},
                     {.netns = &pod_->netns(), .environment = environment(write_configuration(options)), .input = {}}));
  const Endpoint readiness{*IpAddress::parse("127.0.0.1"), 15021};
  const bool ready = eventually(kStartDeadline, [&] {
    return !ztunnel_->running() || http_get(pod_->netns(), readiness, "/healthz/ready").has_value();
  });
  if (!ready || !ztunnel_->running()) {
    throw TestError("the ztunnel of " + pod_->name() + (ready ? " ended" : " is not ready") + ":\n" + log());
  }
}

std::string Ztunnel::log() const { return ended_logs_ + (ztunnel_ ? ztunnel_->out() + ztunnel_->err() : ""); }

std::string Ztunnel::write_configuration(const Options& options) const {
  json configuration = json::parse(read_file(mesh_->config_path()));
  // Optional for weft alone.
  for (json& policy : configuration.at("policies")) policy.emplace("dryRun", false);
  if (options.configure) options.configure(configuration);
  return mesh_->folder().write("ztunnel-" + pod_->name() + ".yaml", as_ztunnel_spells(configuration.dump(2)));
}

std::vector<std::string> Ztunnel::environment(const std::string& configuration) const {
  const std::string identity = pod_->identity();
  return {"PROXY_MODE=dedicated",
          "PROXY_WORKLOAD_INFO=" + pod_->namespace_name() + "/" + pod_->name() + "/" +
              identity.substr(identity.rfind('/') + 1),
          "LOCAL_XDS_PATH=" + configuration,
          "XDS_ADDRESS=",
          std::string("CA_ADDRESS=https://") + kCaAddress,
          "ALT_CA_HOSTNAME=localhost",
          "CA_ROOT_CA=" + mesh_->ca_dir() + "/root.pem",
          "NODE_NAME=" + pod_->node().name(),
          "PACKET_MARK=1337",
          "ENABLE_ORIG_SRC=true",
          "ZTUNNEL_WORKER_THREADS=2",
          R"(PROXY_CONFIG={"proxyMetadata":{"DNS_CAPTURE":"false"}})",
          "RUST_LOG=info,ztunnel::proxy=debug"};
}

}  // namespace weft::test
