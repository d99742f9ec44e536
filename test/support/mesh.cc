// SPDX-License-Identifier: Apache-2.0
#include "test/support/mesh.h"

#include <sys/stat.h>

#include <algorithm>

namespace weft::test {
namespace {

using nlohmann::json;
constexpr milliseconds kApplyDeadline{10'000};

IpAddress address(const std::string& text) {
  const auto parsed = IpAddress::parse(text);
  if (!parsed) throw TestError(parsed.error().message());
  return *parsed;
}

void make_folder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0) throw TestError("make " + path + ": failed");
}

/// No duplicate address detection on interfaces to come: it holds ADD for two seconds, and ptp does not wait for the
/// one of the node's end, so that for up to two more the pod's first neighbour solicitation meets a gateway without an
/// address.
void skip_address_detection(const Netns& netns) {
  netns.sysctl("net/ipv6/conf/all/accept_dad", "0");
  netns.sysctl("net/ipv6/conf/default/accept_dad", "0");
}

}  // namespace

std::string Mesh::Service::hostname() const {
  return more.value("hostname", name + "." + namespace_name + ".svc.cluster.local");
}

Mesh::Mesh(MeshOptions options) : options_(std::move(options)) {
  must_run({program("weftctl"), "ca", "init", ca_dir()});
  for (int i = 1; i <= options_.nodes; ++i) {
    make_folder(folder_.path() + "/node" + std::to_string(i));
    folder_.mount_bpffs("node" + std::to_string(i) + "/bpf");
    // As /run is.
    folder_.mount_tmpfs("node" + std::to_string(i) + "/run");
    nodes_.emplace_back(new Node(*this, i));
  }
  wire_nodes();
  apply();
  if (!options_.start_agents) return;
  for (auto& node : nodes_) node->start_agent();
}

Mesh::~Mesh() = default;

void Mesh::wire_nodes() {
  for (auto& node : nodes_) {
    skip_address_detection(node->netns());
    node->netns().sysctl("net/ipv4/ip_forward", "1");
    node->netns().sysctl("net/ipv6/conf/all/forwarding", "1");
    if (options_.felix) node->felix_ = std::make_unique<FakeFelix>(node->netns(), *options_.felix);
  }
  if (nodes_.size() < 2) return;
  Node& a = *nodes_[0];
  Node& b = *nodes_[1];
  connect_veth(a.netns(), Node::kWire, b.netns(), Node::kWire);
  if (options_.mtu != 0) {
    for (const Node* end : {&a, &b}) end->netns().ip("link set dev wire mtu " + std::to_string(options_.mtu));
  }
  for (const auto& [here, there] : {std::pair{&a, &b}, std::pair{&b, &a}}) {
    const std::string far = std::to_string(there->index());
    here->netns().ip("addr add " + here->address_v4().to_string() + "/24 dev wire");
    here->netns().ip("addr add " + here->address_v6().to_string() + "/64 dev wire nodad");
    here->netns().ip("route add 10.71." + far + ".0/24 via " + there->address_v4().to_string());
    here->netns().ip("route add fd71:0:0:" + far + "::/64 via " + there->address_v6().to_string());
    // Proxy ARP answers for the gateway of Calico's pods only where the node itself would know a way to it.
    if (options_.primary == Primary::kCalico) {
      here->netns().ip("route add default via " + there->address_v4().to_string());
    }
  }
}

Pod& Mesh::plan_pod(int node_index, const std::string& namespace_name, const std::string& name, PodOptions options) {
  Node& on = node(node_index);
  const std::string short_name = "p" + std::to_string(++pods_planned_);
  pods_.emplace_back(new Pod(on, namespace_name, name, std::move(options), short_name));
  Pod& pod = *pods_.back();
  // .1 is the gateway.
  const int number = pod.options_.number != 0 ? pod.options_.number : ++on.pods_made_ + 1;
  pod.v4_ = on.next_pod_address(false, number);
  pod.v6_ = on.next_pod_address(true, number);
  pod.container_id_ = "weftt" + std::to_string(pods_planned_);
  skip_address_detection(pod.netns());
  for (const auto& [path, value] : pod.options_.sysctls) pod.netns_.sysctl(path, value);
  write_conflist(pod);
  if (pod.options_.enrolled) apply();
  return pod;
}

Pod& Mesh::add_pod(int node_index, const std::string& namespace_name, const std::string& name, PodOptions options) {
  Pod& pod = plan_pod(node_index, namespace_name, name, std::move(options));
  const Finished added = chain("add", pod);
  if (!added.ok()) {
    throw TestError("ADD of " + namespace_name + "/" + name + ": " + added.out + added.err + "\nthe agent's log:\n" +
                    pod.node().log());
  }
  pod.host_interface_ = pod.node().host_side(pod);
  if (const FakeFelix* felix = pod.node().felix()) felix->add_endpoint(pod.host_interface_);
  return pod;
}

Finished Mesh::chain(const std::string& verb, Pod& pod) { return pod.node().chain(verb, pod); }

void Mesh::set_enrolled(Pod& pod, bool enrolled) {
  pod.options_.enrolled = enrolled;
  apply();
}

void Mesh::remove_pod(Pod& pod) {
  const Finished removed = chain("del", pod);
  if (!removed.ok()) throw TestError("DEL of " + pod.name() + ": " + removed.out + removed.err);
  if (const FakeFelix* felix = pod.node().felix(); felix != nullptr && !pod.host_interface_.empty()) {
    felix->remove_endpoint(pod.host_interface_);
  }
  for (auto& service : services_) std::erase(service.backends, &pod);
  std::erase_if(pods_, [&](const auto& owned) { return owned.get() == &pod; });
  apply();
}

std::pair<IpAddress, IpAddress> Mesh::add_service(const std::string& namespace_name, const std::string& name,
                                                  std::uint16_t port, std::uint16_t target_port,
                                                  const std::vector<Pod*>& backends, const json& more) {
  const std::string number = std::to_string(services_.size() + 1);
  services_.push_back({.namespace_name = namespace_name,
                       .name = name,
                       .port = port,
                       .target_port = target_port,
                       .backends = backends,
                       .v4 = address("10.96.0." + number),
                       .v6 = address("fd96::" + number),
                       .more = more});
  apply();
  return {services_.back().v4, services_.back().v6};
}

void Mesh::change_service(const std::string& namespace_name, const std::string& name, const json& more,
                          const std::vector<int>& order) {
  const auto found = std::ranges::find_if(
      services_, [&](const Service& s) { return s.namespace_name == namespace_name && s.name == name; });
  if (found == services_.end()) throw TestError("there is no service " + namespace_name + "/" + name);
  found->more = more;
  apply(order);
}

void Mesh::change_workload(Pod& pod, const json& more, const std::vector<int>& order) {
  pod.options_.workload = more;
  apply(order);
}

void Mesh::set_workload(const json& workload) { set_workloads({workload}); }

void Mesh::set_workloads(const std::vector<json>& workloads) {
  for (const auto& workload : workloads) workloads_[workload.at("uid").get<std::string>()] = workload;
  apply();
}

void Mesh::set_policy(const json& policy) {
  policies_[policy.at("namespace").get<std::string>() + "/" + policy.at("name").get<std::string>()] = policy;
  apply();
}

void Mesh::set_policies(const std::vector<json>& policies) {
  policies_.clear();
  for (const auto& policy : policies) {
    policies_[policy.at("namespace").get<std::string>() + "/" + policy.at("name").get<std::string>()] = policy;
  }
  apply();
}

void Mesh::remove_policy(const std::string& namespace_name, const std::string& name) {
  policies_.erase(namespace_name + "/" + name);
  apply();
}

json Mesh::workload(const Pod& pod) const {
  json entry = {{"uid", "weftt//Pod/" + pod.namespace_ + "/" + pod.name_},
                {"name", pod.name_},
                {"namespace", pod.namespace_},
                {"serviceAccount", pod.options_.service_account},
                {"trustDomain", "cluster.local"},
                {"workloadIps", {pod.v4_.to_string(), pod.v6_.to_string()}},
                {"protocol", "HBONE"},
                {"node", pod.node_->name()},
                {"network", ""},
                {"workloadName", pod.name_},
                {"canonicalName", pod.name_},
                {"services", json::object()}};
  for (const auto& service : services_) {
    if (std::find(service.backends.begin(), service.backends.end(), &pod) == service.backends.end()) continue;
    entry["services"][service.namespace_name + "/" + service.hostname()] = {
        {std::to_string(service.port), service.target_port}};
  }
  // Selector-scoped policies apply to the workloads that list them.
  entry["authorizationPolicies"] = json::array();
  for (const auto& [key, policy] : policies_) {
    if (policy.value("scope", "") == "WorkloadSelector" && policy.at("namespace") == pod.namespace_) {
      entry["authorizationPolicies"].push_back(key);
    }
  }
  entry.update(pod.options_.workload);
  return entry;
}

json Mesh::configuration() const {
  json result = {{"workloads", json::array()}, {"services", json::array()}, {"policies", json::array()}};
  for (const auto& pod : pods_) {
    if (pod->options_.enrolled) result["workloads"].push_back(workload(*pod));
  }
  for (const auto& [uid, entry] : workloads_) result["workloads"].push_back(entry);
  for (const auto& service : services_) {
    json entry = {{"name", service.name},
                  {"namespace", service.namespace_name},
                  {"hostname", service.hostname()},
                  {"vips", {"/" + service.v4.to_string(), "/" + service.v6.to_string()}},
                  {"ports", {{std::to_string(service.port), service.target_port}}}};
    entry.update(service.more);
    result["services"].push_back(entry);
  }
  for (const auto& [key, policy] : policies_) result["policies"].push_back(policy);
  result["policies"].push_back({{"name", "version-" + std::to_string(version_)},
                                {"namespace", "weft-test"},
                                {"scope", "WorkloadSelector"},
                                {"action", "Allow"},
                                {"rules", json::array()}});
  return result;
}

void Mesh::apply(const std::vector<int>& order) {
  if (!options_.local) return;
  ++version_;
  const std::string text = configuration().dump(2) + "\n";
  const std::string mark = "\"version-" + std::to_string(version_) + "\"";
  const auto has_it = [&](const Node& node) {
    const auto dump = http_get(node.netns(), {address("127.0.0.1"), 15000}, "/config_dump");
    return dump && dump->find(mark) != std::string::npos;
  };
  // All at once where no order is asked for.
  if (order.empty()) {
    for (const auto& node : nodes_) folder_.write("mesh" + std::to_string(node->index()) + ".yaml", text);
  }
  std::vector<int> indexes = order;
  for (const auto& node : nodes_) {
    if (order.empty()) indexes.push_back(node->index());
  }
  for (const int index : indexes) {
    if (!order.empty()) folder_.write("mesh" + std::to_string(index) + ".yaml", text);
    if (!node(index).has_agent()) continue;
    if (!eventually(kApplyDeadline, [&] { return has_it(node(index)); }))
      throw TestError(node(index).name() + " did not take the configuration; its log:\n" + node(index).log());
  }
}

void Mesh::set_protocol(const std::vector<Pod*>& pods, bool hbone, const std::vector<int>& order) {
  for (Pod* pod : pods) pod->options_.workload["protocol"] = hbone ? "HBONE" : "TCP";
  apply(order);
}

}  // namespace weft::test
