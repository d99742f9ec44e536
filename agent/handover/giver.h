// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/admin/http_server.h"
#include "agent/enrolment.h"
#include "agent/events.h"
#include "agent/handover/predecessors.h"
#include "agent/handover/server.h"
#include "agent/reconcile/reconciler.h"
#include "agent/registration_server.h"
#include "tunnel/proxy/limits.h"

namespace weft::agent {

/// What of an agent takes part in a handover. Borrowed; outlives the HandoverServer.
struct HandoverParts {
  Generation self;  ///< without its load
  std::string socket_path;
  WorkerSet* workers = nullptr;
  Enrolment* enrolment = nullptr;
  Reconciler* reconciler = nullptr;
  RegistrationServer* registration = nullptr;
  EventLog* events = nullptr;
  Predecessors* predecessors = nullptr;
  std::shared_ptr<prometheus::Registry> registry;
  std::shared_ptr<const proxy::Limits> limits;
  std::vector<admin::HttpServer*> servers;
  std::function<void()> retired;  ///< called on the server's thread when this agent has its connections only
};

/// As Estate names the socket of weft-cni.
[[nodiscard]] std::string registration_name(const std::string& socket_path);

/// The agent that another one takes over from.
class HandoverGiver final : public HandoverOwner {
 public:
  explicit HandoverGiver(HandoverParts parts) : parts_(std::move(parts)) {}
  [[nodiscard]] Welcome welcome() override;
  /// Requests, reconciliation and enrolment come to a rest first, so that the time in which nobody accepts is short.
  Result<Estate> hold() override;
  void go_on() override;
  void retire() override;
  [[nodiscard]] nlohmann::json answer(const nlohmann::json& ask) override;
  [[nodiscard]] Generation self() const;
  /// What this agent alone has counted.
  [[nodiscard]] nlohmann::json metrics() const;

 private:
  const HandoverParts parts_;
};

}  // namespace weft::agent
