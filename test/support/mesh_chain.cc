// SPDX-License-Identifier: Apache-2.0
/// The configuration lists of pods and the runs of their chains.
#include "test/support/mesh.h"

namespace weft::test {
namespace {

using nlohmann::json;

/// Bits and bits a second: shaped, but not so that a test could notice.
constexpr std::uint32_t kRate = 4'000'000'000;
constexpr std::uint32_t kBurst = 1'000'000'000;
/// The capability that hands over a pod's annotations.
constexpr const char* kAnnotations = "io.kubernetes.cri.pod-annotations";

/// The entries before weft-cni; each address is asked for, so that the mesh's configuration can name it before ADD.
json primary_plugins(Primary primary, const json& ipam, const json& args) {
  const json bridge = {{"type", "bridge"},    {"bridge", "cni0"}, {"isGateway", true},
                       {"hairpinMode", true}, {"ipam", ipam},     {"args", args}};
  switch (primary) {
    case Primary::kBridge:
      return {bridge};
    case Primary::kBridgePortmapBandwidth:
      return {bridge,
              {{"type", "portmap"}, {"capabilities", {{"portMappings", true}}}},
              {{"type", "bandwidth"},
               {"ingressRate", kRate},
               {"ingressBurst", kBurst},
               {"egressRate", kRate},
               {"egressBurst", kBurst}}};
    case Primary::kCalico:
      return {{{"type", "weft-fakecalico"}, {"ipam", ipam}, {"args", args}}};
    case Primary::kMacvlan:
      return {{{"type", "macvlan"}, {"master", Node::kWire}, {"ipam", ipam}, {"args", args}}};
    case Primary::kPtp:
      break;
  }
  return {{{"type", "ptp"}, {"ipMasq", false}, {"ipam", ipam}, {"args", args}}};
}

}  // namespace

void Mesh::write_conflist(Pod& pod) {
  const Node& on = pod.node();
  const auto subnet = [&](bool v6) {
    const std::string text =
        v6 ? "fd71:0:0:" + std::to_string(on.index()) + "::/64" : "10.71." + std::to_string(on.index()) + ".0/24";
    return json::array({{{"subnet", text}}});
  };
  const json ipam = {{"type", "host-local"},
                     {"dataDir", on.folder_ + "/ipam"},
                     {"ranges", {subnet(false), subnet(true)}},
                     {"routes", {{{"dst", "0.0.0.0/0"}}, {{"dst", "::/0"}}}}};
  const json args = {{"cni", {{"ips", {pod.v4_.to_string(), pod.v6_.to_string()}}}}};
  const Primary primary = pod.options_.primary.value_or(options_.primary);
  json plugins = primary_plugins(primary, ipam, args);
  if (options_.mtu != 0) plugins.front()["mtu"] = options_.mtu;
  if (pod.options_.weft_cni) {
    json weft = {{"type", "weft-cni"}, {"agentSocket", on.socket()}, {"bpfRoot", on.bpf_root()}, {"logLevel", "debug"}};
    if (!pod.options_.annotations.empty()) weft["capabilities"] = {{kAnnotations, true}};
    weft.update(pod.options_.weft_conf);
    plugins.push_back(weft);
  }
  const json conflist = {{"cniVersion", primary == Primary::kBridge ? "0.3.1" : "1.0.0"},
                         {"name", "weftt-" + on.name()},
                         {"plugins", plugins}};
  pod.conflist_ = folder_.write(on.name() + "/" + pod.container_id_ + ".conflist", conflist.dump(2));
}

Finished Node::chain(const std::string& verb, const Pod& pod) const {
  json capability_args = json::object();
  if (pod.options_.host_port != 0) {
    capability_args["portMappings"] = {
        {{"hostPort", pod.options_.host_port}, {"containerPort", Pod::kPort}, {"protocol", "tcp"}}};
  }
  if (!pod.options_.annotations.empty()) capability_args[kAnnotations] = pod.options_.annotations;
  const SpawnOptions options{.netns = &netns_,
                             .environment = {"CNI_PATH=" + std::string(program("")) + ":/usr/lib/cni:/opt/cni/bin",
                                             "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.namespace_name() +
                                                 ";K8S_POD_NAME=" + pod.name() + ";K8S_POD_UID=" +
                                                 (pod.options_.uid.empty() ? pod.container_id() : pod.options_.uid) +
                                                 ";K8S_POD_INFRA_CONTAINER_ID=" + pod.container_id(),
                                             "CAP_ARGS=" + capability_args.dump()},
                             .input = {}};
  return run({program("weft-chain"), "--cache", folder_ + "/cache", verb, pod.conflist_, pod.netns().path(),
              pod.container_id(), "eth0"},
             options);
}

std::string Node::host_side(const Pod& pod) const {
  const json inside = json::parse(pod.netns().ip("-j -d link show dev eth0")).at(0);
  if (inside.at("linkinfo").at("info_kind") != "veth") return {};
  for (const json& link : json::parse(netns_.ip("-j link show"))) {
    if (link.at("ifindex") == inside.at("link_index")) return link.at("ifname");
  }
  throw TestError("the other end of eth0 of " + pod.name() + " is not on " + name());
}

}  // namespace weft::test
