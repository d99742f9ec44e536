// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/connections.h"

#include <chrono>

#include "tunnel/proxy/context.h"
#include "tunnel/telemetry/access_log.h"

namespace weft::proxy {

Connection::Connection(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Charge charge)
    : worker_(worker), pod_(std::move(pod)), charge_(std::move(charge)) {
  result_.started = worker_.loop.now();
}

void Connection::opened() {
  metrics_ = worker_.metrics.opened(result_);
  count_decision();
}

void Connection::count_decision() {
  if (!result_.decision || counted_decision_ == result_.decision->allowed) return;
  counted_decision_ = result_.decision->allowed;
  worker_.metrics.decided(*result_.decision);
}

void Connection::count_bytes() {
  if (!metrics_) return;
  const Bytes carried = bytes();
  telemetry::ConnectionMetrics::bytes(*metrics_, carried.sent - counted_.sent, carried.received - counted_.received);
  counted_ = carried;
}

void Connection::count_socket() { socket_ = worker_.metrics.socket(result_.reporter); }

void Connection::finish(telemetry::ResponseFlag flag, const std::string& why) {
  if (finished_) return;
  finished_ = true;
  result_.ended = worker_.loop.now();
  result_.flag = flag;
  result_.error = why;
  const Bytes carried = bytes();
  result_.bytes_sent = carried.sent;
  result_.bytes_received = carried.received;
  count_bytes();
  count_decision();
  worker_.metrics.closed(metrics_, result_);
  const bool served = metrics_ != nullptr || why.empty() ||
                      (result_.reporter == telemetry::Reporter::kSource && flag != telemetry::ResponseFlag::kOverflow);
  if (served) {
    telemetry::log_access(result_);
  } else {
    worker_.refusals.write(*pod_, result_);
  }
  charge_ = {};
  worker_.connections.remove(*this);
}

ConnectionInfo Connection::info() const {
  ConnectionInfo info;
  info.pod = pod_->namespace_name + "/" + pod_->name;
  info.direction = direction();
  info.source = result_.source.endpoint;
  info.destination = result_.destination.endpoint;
  info.hbone = result_.hbone;
  if (result_.source.identity) info.source_identity = result_.source.identity->to_uri();
  if (result_.destination.identity) info.destination_identity = result_.destination.identity->to_uri();
  if (result_.service) info.service = result_.service->key();
  if (const hbone::Tunnel* carrier = tunnel(); carrier != nullptr && carrier->open()) {
    info.peer_serial = carrier->peer_certificate().serial;
    info.peer_valid_until = carrier->peer_certificate().not_after;
  }
  const Bytes carried = bytes();
  info.bytes_sent = carried.sent;
  info.bytes_received = carried.received;
  info.age_seconds = std::chrono::duration<double>(worker_.loop.now() - result_.started).count();
  return info;
}

state::WorkloadPtr Connection::own_workload() const {
  return worker_.state ? worker_.state->workload_by_uid(pod_->workload_uid) : nullptr;
}

Connection& Connections::add(std::unique_ptr<Connection> connection) {
  Connection& added = *connection;
  live_.emplace(&added, std::move(connection));
  if (!count_timer_.armed()) count_timer_.arm(kCountInterval, [this] { count(); });
  return added;
}

/// The timer ends with the last connection that it finds gone: connections that come and go do not arm it each time.
void Connections::count() {
  if (live_.empty()) return;
  for (const auto& [connection, owned] : live_) connection->count_bytes();
  count_timer_.arm(kCountInterval, [this] { count(); });
}

void Connections::remove(Connection& connection) {
  auto node = live_.extract(&connection);
  if (!node.empty()) loop_.defer_delete(std::move(node.mapped()));
}

void Connections::for_each(const std::function<void(Connection&)>& visit) {
  std::vector<Connection*> now;
  now.reserve(live_.size());
  for (const auto& [connection, owned] : live_) now.push_back(connection);
  for (Connection* connection : now) {
    if (live_.contains(connection)) visit(*connection);
  }
}

}  // namespace weft::proxy
