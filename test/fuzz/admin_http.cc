// SPDX-License-Identifier: Apache-2.0
/// Requests to the admin API, one a line: `METHOD PATH?QUERY`, with a `!` before it where the peer is not on loopback.
#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "agent/admin/admin_api.h"
#include "agent/control/local_config.h"
#include "test/fuzz/fuzz.h"
#include "tunnel/base/log.h"

namespace weft::fuzz {
namespace {

using admin::HttpRequest;
using admin::HttpResponse;
using nlohmann::json;

constexpr const char* kMesh = R"(
workloads:
- {name: web, namespace: shop, workloadIps: [10.0.0.5, "fd00::5"], protocol: HBONE, node: n1, services: {shop/web.shop.svc: {80: 8080}}}
- {name: web2, namespace: shop, workloadIps: [10.0.1.6], protocol: HBONE, node: n2, services: {shop/web.shop.svc: {80: 8081}}, authorizationPolicies: [shop/gone]}
- {name: plain, namespace: other, workloadIps: [10.0.0.9], node: n1}
- {name: out, namespace: shop, hostname: example.test, services: {shop/ext.test: {443: 443}}}
- {name: host, namespace: shop, workloadIps: [10.0.0.1], networkMode: HostNetwork, node: n1}
- {name: way, namespace: shop, workloadIps: [10.0.2.2], protocol: HBONE, node: n2, waypoint: {destination: shop/way.shop.svc}}
services:
- {name: web, namespace: shop, hostname: web.shop.svc, vips: [/10.96.0.1, "/fd00:96::1"], ports: {80: 8080}}
- {name: way, namespace: shop, hostname: way.shop.svc, vips: [/10.96.0.2], ports: {15008: 15008}, waypoint: {destination: shop/way.shop.svc}}
- {name: headless, namespace: shop, hostname: headless.shop.svc, ports: {80: 0}}
- {name: range, namespace: other, hostname: range.other.svc, cidrVips: [/10.97.0.0/16], ports: {80: 80}, loadBalancer: {mode: Passthrough}}
- {name: ext, namespace: shop, hostname: ext.test, vips: [/10.96.0.9], ports: {443: 443}}
policies:
- {name: deny, namespace: shop, scope: Namespace, action: Deny, rules: [[[{principals: [{Prefix: cluster.local/ns/bad}], destinationPorts: [8080]}]]]}
- {name: dry, namespace: shop, scope: Global, action: Deny, dryRun: true, rules: [[[{notPrincipals: [{Presence: []}]}]]]}
)";

std::shared_ptr<const state::State> mesh() {
  static const auto made = state::State::build(control::parse_local_config("mesh.yaml", kMesh).value()).value();
  return made;
}

std::vector<agent::PodStatus> pods() {
  agent::PodStatus web;
  web.registration.key = {"c1", "eth0"};
  web.registration.pod_namespace = "shop";
  web.registration.pod_name = "web";
  web.registration.addresses = {IpAddress::parse("10.0.0.5").value(), IpAddress::parse("fd00::5").value()};
  web.registration.host_ifindex = 4;
  web.registration.workload_uid = "Kubernetes//Pod/shop/web";
  web.registration.enrolled = true;
  web.state = "enrolled";
  web.inbound = "check";
  web.traffic = bpf::PodTraffic{.packets_out = 3, .drops = {{"no plaintext into this pod", 4}}};
  agent::PodStatus plain;
  plain.registration.pod_namespace = "other";
  plain.registration.pod_name = "plain";
  plain.registration.addresses = {IpAddress::parse("10.0.0.9").value()};
  plain.state = "wired";
  plain.inbound = "pass";
  plain.reason = "workload other/plain has protocol TCP";
  plain.observation = {.problems = {"the rule is gone"}, .uncaptured = {"net1"}, .rerouted = {}};
  return {web, plain};
}

/// Longer waits than an agent keeps a thread for must not come through; the answer follows from the question.
Result<agent::EventAnswer> events(const agent::EventQuery& query) {
  require(query.wait >= milliseconds(0) && query.wait <= agent::EventLog::kMaxWait, "a query waits within bounds");
  switch (query.after.value_or(0) % 5) {
    case 1:
      return fail(ErrorCode::kDenied, "follow the events: 4 others do so already, no more can");
    case 2:
      return fail(ErrorCode::kUnavailable, "follow the events: the agent stops");
    case 3:
      return fail(ErrorCode::kInternal, "follow the events: read the ring");
    default:
      break;
  }
  agent::LoggedEvent event{.sequence = query.after.value_or(0) + 1, .time = {}, .pod = "shop/web", .event = {}};
  event.event.source = {IpAddress::parse("10.0.9.9").value(), 40000};
  return agent::EventAnswer{.next = event.sequence, .lost = 0, .events = {event}};
}

struct Agent {
  int quits = 0;
  admin::HttpRoutes routes;
};

Agent& agent_under_test() {
  static Agent one;
  if (!one.routes.empty()) return one;
  auto sources = std::make_shared<admin::AdminSources>();
  sources->node = "n1";
  sources->workers = 2;
  sources->state = mesh;
  sources->captures_all = [] { return false; };
  sources->certificates = [] { return std::vector<std::shared_ptr<const hbone::TlsIdentity>>(); };
  sources->certificate_status = [] { return std::vector<agent::CertManager::Status>(); };
  sources->connections = [] { return std::vector<proxy::ConnectionInfo>(1); };
  sources->generations = [] { return std::vector<agent::Generation>(1); };
  sources->inherited_metrics = [] { return nlohmann::json::object(); };
  sources->plaintext = [](const std::string& pod,
                          bool /*end*/) -> Result<std::vector<std::pair<std::string, agent::PlainConnection>>> {
    if (!pod.empty()) return fail(ErrorCode::kNotFound, "no pod " + excerpt(pod) + " of this node is in the mesh");
    return std::vector<std::pair<std::string, agent::PlainConnection>>(1);
  };
  sources->not_ready = [] { return std::vector<std::string>{"no certificate yet"}; };
  sources->source_status = [] { return std::string("file mesh.yaml"); };
  sources->quit = [] { ++agent_under_test().quits; };
  sources->events = events;
  sources->registry = std::make_shared<prometheus::Registry>();
  sources->metrics = {.counters =
                          [] {
                            return Result<std::vector<bpf::Counter>>({{"guard", "drop", "a VLAN tag", 3}});
                          },
                      .pods = pods,
                      .registration_requests = [] { return std::uint64_t{5}; },
                      .registration_errors = [] { return std::uint64_t{2}; },
                      .reconciled =
                          [] {
                            return std::map<std::string, std::uint64_t>{{"adopted", 4}};
                          },
                      .unknown_attachments = [] { return std::vector<std::string>(); },
                      .certificates = sources->certificate_status,
                      .certificate_counts = [] { return agent::CertManager::Counts{.issued = 8, .failed = 3}; },
                      .ca = [] { return agent::CaStatus(); },
                      .limits = std::make_shared<proxy::Limits>(),
                      .resources = [] { return agent::ResourceStatus{.fds = 123, .fd_limit = 4096, .memory = {}}; },
                      .version = "1.2.3"};
  one.routes = admin::admin_routes(sources);
  return one;
}

/// As the server's library does it.
std::string decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && std::isxdigit(static_cast<unsigned char>(text[i + 1])) != 0 &&
        std::isxdigit(static_cast<unsigned char>(text[i + 2])) != 0) {
      out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

HttpRequest request_of(std::string_view line) {
  HttpRequest request;
  request.from_loopback = !line.starts_with('!');
  if (!request.from_loopback) line.remove_prefix(1);
  request.method = line.substr(0, line.find(' '));
  line.remove_prefix(std::min(line.size(), request.method.size() + 1));
  const std::string_view path = line.substr(0, line.find('?'));
  request.path = decoded(path);
  line.remove_prefix(std::min(line.size(), path.size() + 1));
  while (!line.empty()) {
    const std::string_view pair = line.substr(0, line.find('&'));
    line.remove_prefix(std::min(line.size(), pair.size() + 1));
    const auto equals = std::min(pair.find('='), pair.size());
    request.query.emplace(decoded(pair.substr(0, equals)), decoded(pair.substr(std::min(equals + 1, pair.size()))));
  }
  return request;
}

void check_explanation(const json& body) {
  for (const char* key :
       {"source", "destination", "captured", "capture", "encrypted", "outcome", "endpoints", "notes"}) {
    require(body.contains(key), "an explanation has its members", key);
  }
  const std::string outcome = body["outcome"];
  require(outcome == "allowed" || outcome == "refused" || outcome == "mixed", "an explanation has an outcome", outcome);
  require(!body["endpoints"].empty() || body.contains("refusal"), "an explanation ends somewhere", body.dump());
  require(!body["encrypted"].get<bool>() || body["captured"].get<bool>(), "only what is captured is encrypted",
          body.dump());
}

void check(const HttpRequest& request, const HttpResponse& response) {
  constexpr std::array kKnown = {200, 400, 403, 404, 429, 500, 503};
  require(std::ranges::find(kKnown, response.status) != kKnown.end(), "a status that is documented");
  require(response.body.ends_with('\n'), "a body ends with its line", response.body);
  require(response.body.size() < (64U << 10), "a body is bounded", request.path);
  if (response.content_type == "application/json") {
    require(response.status == 200, "errors are told in text");
    const json body = json::parse(response.body, nullptr, false);
    require(!body.is_discarded(), "a body of JSON is JSON", response.body);
    if (request.path == "/explain") check_explanation(body);
  } else if (response.status != 200 && response.status != 503) {
    require_text(std::string_view(response.body).substr(0, response.body.size() - 1));
  }
}

void ask(const HttpRequest& request) {
  Agent& agent = agent_under_test();
  const auto route = agent.routes.find({request.method, request.path});
  if (route == agent.routes.end()) return;
  const std::string level = log::level();
  const int quits = agent.quits;
  const HttpResponse response = route->second(request);
  check(request, response);
  const bool changes = request.method == "POST" && request.from_loopback && response.status == 200;
  require(request.from_loopback || (request.method != "POST" && request.path != "/events") || response.status == 403,
          "changes are taken from loopback only", request.path);
  require(agent.quits == quits + (changes && request.path == "/quitquitquit" ? 1 : 0), "the agent ends when it is told",
          request.path);
  require(log::level() == level || (changes && request.path == "/logging"), "the level changes when it is told",
          request.path);
}

}  // namespace

void one_input(std::string_view input) {
  while (!input.empty()) ask(request_of(take_line(input)));
  if (auto quiet = log::set_level("off"); !quiet) std::abort();
}

}  // namespace weft::fuzz
