// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "tunnel/telemetry/connection_result.h"

namespace weft::telemetry::test {

/// A connection of a web pod to the db service over a tunnel, as its source reports it: 100 bytes there, 2000 back, 1.5
/// s.
inline ConnectionResult sample() {
  auto web = std::make_shared<state::Workload>();
  web->name = "web-7d4b";
  web->namespace_name = "shop";
  web->workload_name = "web";
  web->canonical_name = "web-app";
  web->canonical_revision = "v1";
  web->cluster_id = "Kubernetes";
  web->locality = {"eu", "eu-1", ""};
  auto db = std::make_shared<state::Workload>(*web);
  db->name = "db-0";
  db->workload_name = "db";
  db->canonical_name = "db-app";
  db->canonical_revision = "v2";
  db->locality = {};
  auto service = std::make_shared<state::Service>();
  service->name = "db";
  service->namespace_name = "shop";
  service->hostname = "db.shop.svc.cluster.local";
  ConnectionResult out;
  out.source = {Endpoint::parse("10.0.0.1:40000").value(), web, state::Identity{"cluster.local", "shop", "web"}};
  out.destination = {Endpoint::parse("10.0.0.2:5432").value(), db, state::Identity{"cluster.local", "shop", "db"}};
  out.service = service;
  out.hbone = Endpoint::parse("10.0.0.2:15008").value();
  out.mutual_tls = true;
  out.bytes_sent = 100;
  out.bytes_received = 2000;
  out.ended = out.started + milliseconds(1500);
  return out;
}

}  // namespace weft::telemetry::test
