// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/admin_api.h"

#include <prometheus/text_serializer.h>

#include <map>

#include "agent/admin/certificate_dump.h"
#include "agent/admin/certificate_metrics.h"
#include "agent/admin/config_dump.h"
#include "agent/admin/explain_view.h"
#include "agent/admin/limit_metrics.h"
#include "agent/admin/mesh_views.h"
#include "agent/handover/metrics_merge.h"
#include "tunnel/base/log.h"
#include "tunnel/base/rfc3339.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using Sources = std::shared_ptr<const AdminSources>;

HttpResponse json_response(const json& body) {
  return HttpResponse::json(body.dump(2, ' ', false, json::error_handler_t::replace));
}

HttpResponse config_dump_of(const AdminSources& sources) {
  const auto state = sources.state();
  return json_response(config_dump(state.get(), sources.certificates(), sources.metrics.pods(), sources.connections()));
}

template <class List>
HttpResponse list_of(const List& items) {
  json list = json::array();
  for (const auto& item : items) list.push_back(to_json(item));
  return json_response(list);
}

HttpResponse connections_of(const AdminSources& sources) {
  json list = json::array();
  for (const auto& connection : sources.connections()) list.push_back(agent::to_json(connection));
  return json_response(list);
}

HttpResponse counters_of(const AdminSources& sources) {
  auto counters = sources.metrics.counters();
  if (!counters) return HttpResponse::text(500, "read the capture counters: " + counters.error().message());
  json list = json::array();
  for (const auto& c : *counters) {
    list.push_back({{"program", c.program}, {"verdict", c.verdict}, {"reason", c.reason}, {"packets", c.packets}});
  }
  return json_response(list);
}

HttpResponse plaintext_of(const AdminSources& sources, const HttpRequest& request, bool end) {
  const auto pod = request.query.find("pod");
  auto found = sources.plaintext(pod == request.query.end() ? "" : pod->second, end);
  if (!found) {
    return HttpResponse::text(found.error().code == ErrorCode::kNotFound ? 404 : 500, found.error().message());
  }
  json list = json::array();
  for (const auto& [name, connection] : *found) {
    list.push_back({{"pod", name},
                    {"direction", connection.inbound ? "inbound" : "outbound"},
                    {"application", connection.application.to_string()},
                    {"peer", connection.peer.to_string()},
                    {"expired", end}});
  }
  return json_response(list);
}

json generations_of(const std::vector<agent::Generation>& generations) {
  json list = json::array();
  for (const auto& generation : generations) {
    list.push_back(agent::to_json(generation));
    list.back()["started"] = rfc3339(generation.started);
  }
  return list;
}

json outbound_view(const state::EgressPolicy& policy) {
  json exempt = json::array();
  for (const auto& range : policy.exempt) exempt.push_back(range.to_string());
  return {{"mode", policy.mode()}, {"exempt", exempt}};
}

HttpResponse status_of(const AdminSources& sources) {
  const auto missing = sources.not_ready();
  const auto state = sources.state();
  const auto resources = sources.metrics.resources();
  std::map<std::string, int> pods;
  for (const auto& pod : sources.metrics.pods()) ++pods[pod.state];
  const auto generations = sources.generations();
  std::size_t connections = 0;
  for (const auto& generation : generations) connections += generation.load.connections;
  std::map<std::string, int> certificates;
  for (const auto& one : sources.certificate_status()) ++certificates[state_of(one, Clock::real().wall_now())];
  return json_response({{"version", sources.metrics.version},
                        {"node", sources.node},
                        {"ready", missing.empty()},
                        {"missing", missing},
                        {"workers", sources.workers},
                        {"outboundTrafficPolicy", outbound_view(sources.egress)},
                        {"logLevel", log::level()},
                        {"source", sources.source_status()},
                        {"pods", pods},
                        {"workloads", state ? state->workload_count() : 0},
                        {"services", state ? state->service_count() : 0},
                        {"policies", state ? state->policies().size() : 0},
                        {"certificates", sources.certificates().size()},
                        {"certificateStates", certificates},
                        {"ca", to_json(sources.metrics.ca())},
                        {"connections", connections},
                        {"generations", generations_of(generations)},
                        {"openFds", resources.fds},
                        {"limits", limits_view(*sources.metrics.limits, resources)}});
}

HttpResponse ready_of(const AdminSources& sources) {
  const auto missing = sources.not_ready();
  if (missing.empty()) return HttpResponse::text(200, "ready");
  std::string body = "not ready";
  for (const auto& reason : missing) body += "\n" + reason;
  return HttpResponse::text(503, std::move(body));
}

HttpResponse metrics_of(const AdminSources& sources) {
  auto families = sources.registry->Collect();
  add_pod_limit_metrics(families, *sources.metrics.limits);
  const auto inherited = agent::understood(
      "inherited metrics", [&] { return agent::add_metrics(families, sources.inherited_metrics()), true; });
  if (!inherited) log::warn("metrics are incomplete error={}", log::quote(inherited.error().message()));
  for (auto& family : agent_metrics(sources.metrics)) families.push_back(std::move(family));
  return {.status = 200,
          .content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = prometheus::TextSerializer().Serialize(families)};
}

HttpResponse logging(const HttpRequest& request, const std::string& level_at_start) {
  const auto level = request.query.find("level");
  if (level == request.query.end()) return HttpResponse::text(200, "level=" + log::level());
  auto set = log::set_level(level->second == "reset" ? level_at_start : level->second);
  if (!set) return HttpResponse::text(400, set.error().message());
  log::info("log level changed level={}", log::level());
  return HttpResponse::text(200, "level=" + log::level());
}

/// Changes are for processes of this machine: the admin address may be bound to more than loopback for reading.
HttpHandler from_loopback(HttpHandler handler) {
  return [handler = std::move(handler)](const HttpRequest& request) {
    if (!request.from_loopback) return HttpResponse::text(403, request.path + ": changes are taken from loopback only");
    return handler(request);
  };
}

HttpResponse certificates_of(const AdminSources& sources) {
  return json_response(
      certificates_view(sources.certificate_status(), sources.certificates(), Clock::real().wall_now()));
}

/// A view of the snapshot, which there may not be yet.
HttpHandler view(Sources sources, json (*make)(const state::State&)) {
  return [sources = std::move(sources), make](const HttpRequest&) {
    const auto state = sources->state();
    return json_response(make(state ? *state : *state::State::empty()));
  };
}

HttpResponse explain_of(const AdminSources& sources, const HttpRequest& request) {
  const auto from = request.query.find("from");
  const auto to = request.query.find("to");
  if (from == request.query.end() || to == request.query.end()) {
    return HttpResponse::text(400, "expected ?from=NAMESPACE/POD&to=DESTINATION:PORT");
  }
  const auto state = sources.state();
  if (!state) return HttpResponse::text(503, "no configuration yet: " + sources.source_status());
  const auto pods = sources.metrics.pods();
  auto explained = agent::explain({.state = *state,
                                   .pods = pods,
                                   .node = sources.node,
                                   .network = sources.network,
                                   .egress = sources.egress,
                                   .captures_all = sources.captures_all(),
                                   .on_demand = sources.on_demand},
                                  from->second, to->second);
  if (explained) return json_response(to_json(*explained));
  return HttpResponse::text(explained.error().code == ErrorCode::kNotFound ? 404 : 400, explained.error().message());
}

HttpHandler answer(Sources sources, HttpResponse (*make)(const AdminSources&)) {
  return [sources = std::move(sources), make](const HttpRequest&) { return make(*sources); };
}

}  // namespace

HttpRoutes metrics_routes(const Sources& sources) { return {{{"GET", "/metrics"}, answer(sources, metrics_of)}}; }

HttpRoutes ready_routes(const Sources& sources) { return {{{"GET", "/healthz/ready"}, answer(sources, ready_of)}}; }

HttpRoutes admin_routes(const Sources& sources) {
  HttpRoutes routes = metrics_routes(sources);
  routes.merge(ready_routes(sources));
  routes[{"GET", "/config_dump"}] = answer(sources, config_dump_of);
  routes[{"GET", "/counters"}] = answer(sources, counters_of);
  routes[{"GET", "/status"}] = answer(sources, status_of);
  routes[{"GET", "/pods"}] = [sources](const HttpRequest&) { return list_of(sources->metrics.pods()); };
  routes[{"GET", "/workloads"}] = view(sources, workloads_view);
  routes[{"GET", "/services"}] = view(sources, services_view);
  routes[{"GET", "/policies"}] = view(sources, policies_view);
  routes[{"GET", "/certificates"}] = answer(sources, certificates_of);
  routes[{"GET", "/explain"}] = [sources](const HttpRequest& request) { return explain_of(*sources, request); };
  routes[{"GET", "/connections"}] = answer(sources, connections_of);
  routes[{"GET", "/connections/plaintext"}] = [sources](const HttpRequest& r) {
    return plaintext_of(*sources, r, false);
  };
  routes[{"POST", "/connections/plaintext"}] =
      from_loopback([sources](const HttpRequest& r) { return plaintext_of(*sources, r, true); });
  routes[{"GET", "/events"}] =
      from_loopback([sources](const HttpRequest& r) { return events_response(r, sources->events); });
  routes[{"POST", "/logging"}] =
      from_loopback([level = log::level()](const HttpRequest& r) { return logging(r, level); });
  routes[{"POST", "/quitquitquit"}] = from_loopback([sources](const HttpRequest&) {
    log::info("stop asked for through the admin API");
    sources->quit();
    return HttpResponse::text(200, "shutting down");
  });
  return routes;
}

}  // namespace weft::admin
