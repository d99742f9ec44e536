// SPDX-License-Identifier: Apache-2.0
#include "test/netns/explain_fixture.h"

#include <algorithm>

namespace weft::test {
namespace {

using nlohmann::json;
constexpr std::uint16_t kOtherPort = 9090;

}  // namespace

std::unique_ptr<Mesh> ExplainMesh::mesh_;
std::vector<Pod*> ExplainMesh::pods_;
std::vector<IpAddress> ExplainMesh::vips_;
std::vector<std::unique_ptr<Capture>> ExplainMesh::captures_;
std::size_t ExplainMesh::log_before_[2];

Pod* ExplainMesh::add(int node, const char* namespace_name, const char* name, PodOptions options) {
  options.service_account = name;
  Pod& pod = mesh_->add_pod(node, namespace_name, name, options);
  pod.serve();
  pod.serve(kOtherPort);
  pods_.push_back(&pod);
  captures_.push_back(std::make_unique<Capture>(pod.node().netns(), pod.host_interface(), 4096));
  return &pod;
}

void ExplainMesh::SetUpTestSuite() {
  if (!is_root()) return;
  mesh_ = std::make_unique<Mesh>(MeshOptions{.agent_arguments = {"--reconcile-interval-ms", "1000"}});
  add(1, "shop", "client", {});
  Pod* web1 = add(1, "shop", "web1", {});
  Pod* web2 = add(2, "shop", "web2", {.workload = {{"capacity", 3}}});
  Pod* sick = add(2, "shop", "sick", {.workload = {{"status", "Unhealthy"}}});
  Pod* db = add(2, "bank", "db", {});
  Pod* haunted = add(1, "bank", "haunted", {.workload = {{"authorizationPolicies", {"bank/ghost"}}}});
  Pod* tcp = add(2, "legacy", "tcp", {.workload = {{"protocol", "TCP"}}});
  add(1, "legacy", "unlisted", {.enrolled = false});
  add(2, "outer", "unwired", {.enrolled = false, .weft_conf = {{"excludeNamespaces", {"outer"}}}});
  Pod* way = add(2, "shop", "way", {});
  // Which ports a service has is the waypoint's affair.
  for (const std::uint16_t port : {std::uint16_t{80}, std::uint16_t{81}}) way->serve(port);
  add(2, "bank", "tucked", {.workload = {{"waypoint", {{"destination", "shop/way.shop.svc.cluster.local"}}}}});
  const auto serve = [](const char* namespace_name, const char* name, std::uint16_t target,
                        const std::vector<Pod*>& backends, const json& more = json::object()) {
    const auto [v4, v6] = mesh_->add_service(namespace_name, name, 80, target, backends, more);
    vips_.insert(vips_.end(), {v4, v6});
  };
  serve("shop", "web", Pod::kPort, {web1, web2, sick});
  serve("bank", "db", kOtherPort, {db, haunted});
  serve("shop", "private", Pod::kPort, {web1}, {{"visibility", "Namespace"}});
  serve("legacy", "mixed", Pod::kPort, {web1, tcp});
  serve("shop", "none", Pod::kPort, {sick});
  serve("shop", "way", 80, {way});
  serve("shop", "behind", Pod::kPort, {web1, web2},
        {{"waypoint", {{"destination", "shop/way.shop.svc.cluster.local"}}}});
  serve("bank", "lost", Pod::kPort, {db}, {{"waypoint", {{"destination", "shop/gone.shop.svc.cluster.local"}}}});
  const auto weighted = [](const char* destination, int weight) {
    return json{{"destination", {{"destination", destination}}}, {"weight", weight}};
  };
  serve("bank", "shared", Pod::kPort, {db},
        {{"weightedWaypoints",
          {weighted("shop/way.shop.svc.cluster.local", 3), weighted("shop/gone.shop.svc.cluster.local", 1)}}});
  serve("ext", "api", Pod::kPort, {tcp}, {{"hostname", "api.example.com"}});
}

ConnectionCase ExplainMesh::random_case(Dice& dice, std::size_t number) {
  ConnectionCase c;
  c.name = "case-" + std::to_string(number) + "-end";
  c.source = dice.pick(pods_);
  const bool captured = c.source->namespace_name() == "shop" || c.source->namespace_name() == "bank";
  // Nothing here answers for the VIPs but the mesh.
  if (captured && dice.percent(45)) {
    c.to = {dice.pick(vips_), static_cast<std::uint16_t>(dice.percent(15) ? 81 : 80)};
    return c;
  }
  const Pod* destination = dice.pick(pods_);
  c.to.address = dice.percent(50) ? destination->address_v4() : destination->address_v6();
  const bool enrolled = destination->namespace_name() == "shop" || destination->namespace_name() == "bank";
  c.to.port = dice.percent(50) ? Pod::kPort : kOtherPort;
  if (enrolled && c.source != destination && dice.percent(6)) c.to.port = dice.percent(50) ? 15008 : 15001;
  if (c.to.port == 15001 && !captured) c.to.port = 15008;  // without a tunnel it is a port that nobody listens on
  return c;
}

void ExplainMesh::ask(ConnectionCase& c) {
  const bool unwired = c.source->name() == "unwired";
  const std::string from =
      unwired ? c.source_address(c.to.address).to_string() : c.source->namespace_name() + "/" + c.source->name();
  const Finished answer = run({program("weftctl"), "explain", from, c.to.to_string(), "-o", "json"},
                              {.netns = &c.source->node().netns(), .environment = {}, .input = {}});
  if (answer.status != 0 && answer.status != kExitRefused) throw TestError(c.name + ": " + answer.out + answer.err);
  c.exit = answer.status;
  c.said = json::parse(answer.out);
}

void ExplainMesh::run_group(std::vector<ConnectionCase>& cases) {
  for (auto& capture : captures_) capture->clear();
  for (int i = 0; i < 2; ++i) log_before_[i] = mesh_->node(i + 1).log().size();
  for (auto& c : cases) ask(c);
  std::vector<Process> clients;
  for (const auto& c : cases) {
    clients.push_back(c.source->start({program("weft-testapp"), "get", c.to.to_string(), "--marker", c.name,
                                       "--connect-timeout", "2", "--timeout", "8"}));
  }
  for (std::size_t i = 0; i < cases.size(); ++i) cases[i].really = clients[i].finish(milliseconds(30'000));
}

bool ExplainMesh::seen_in_the_clear(const std::string& text) {
  return std::ranges::any_of(captures_, [&](const auto& capture) { return capture->contains(text); });
}

bool ExplainMesh::is_logged(const ConnectionCase& c, const json& endpoint) {
  const Endpoint target = Endpoint::parse(endpoint.at("target").get<std::string>()).value();
  const bool encrypted = endpoint.at("encrypted");
  const bool allowed = endpoint.at("allowed");
  std::string rule = endpoint.value("policy", "");
  if (rule.empty() && !allowed) rule = "no_allow_matched";
  std::string dry_runs;
  for (const auto& key : endpoint.value("dryRun", json::array())) {
    dry_runs += (dry_runs.empty() ? "" : ",") + key.get<std::string>();
  }
  std::string source = Endpoint{c.source_address(target.address), 0}.to_string();
  source.pop_back();  // any port
  std::vector<std::string> words{"connection complete", "direction=inbound", "src.addr=" + source,
                                 std::string(encrypted ? "dst.hbone_addr=" : "dst.addr=") + target.to_string() + " "};
  if (!allowed) words.push_back(endpoint.at("reason").get<std::string>());
  // What must stand in the line with this value, or must not stand there at all.
  const std::vector<std::pair<std::string, std::string>> fields{{"src.identity", encrypted ? c.source->identity() : ""},
                                                                {"response_flags", allowed ? "" : "DENY"},
                                                                {"policy", rule},
                                                                {"dry_run", dry_runs}};
  for (int i = 0; i < 2; ++i) {
    for (const auto& line : log_lines(mesh_->node(i + 1).log(), log_before_[i], words)) {
      if (std::ranges::all_of(fields, [&](const auto& entry) { return field(line, entry.first) == entry.second; })) {
        return true;
      }
    }
  }
  return false;
}

Finished ExplainMesh::weftctl(int node, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program("weftctl"));
  return run(arguments, {.netns = &mesh_->node(node).netns(), .environment = {}, .input = {}});
}

}  // namespace weft::test
