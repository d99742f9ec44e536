// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/giver.h"

#include "agent/admin/limit_metrics.h"
#include "agent/handover/metrics_merge.h"

namespace weft::agent {
namespace {

using nlohmann::json;

constexpr milliseconds kWorkerTime{1'000};

Result<NamedSocket> named(std::string name, Fd copy) {
  if (!copy) return fail(ErrorCode::kUnavailable, "duplicate the socket of " + name + " (out of file descriptors?)");
  return NamedSocket{std::move(name), std::move(copy)};
}

}  // namespace

std::string registration_name(const std::string& socket_path) { return "registration " + socket_path; }

Generation HandoverGiver::self() const {
  Generation generation = parts_.self;
  generation.load = parts_.workers->load(kWorkerTime);
  return generation;
}

json HandoverGiver::metrics() const {
  auto families = parts_.registry->Collect();
  admin::add_pod_limit_metrics(families, *parts_.limits);
  return metrics_json(families);
}

Welcome HandoverGiver::welcome() { return {.generation = self(), .identities = parts_.enrolment->identities()}; }

Result<Estate> HandoverGiver::hold() {
  Estate estate;
  auto registration = named(registration_name(parts_.socket_path), parts_.registration->listener());
  if (!registration) return Failure(registration.error());
  estate.sockets.push_back(std::move(*registration));
  for (const auto* server : parts_.servers) {
    auto socket = named(server->name(), server->listener());
    if (!socket) return Failure(socket.error());
    estate.sockets.push_back(std::move(*socket));
  }
  parts_.registration->hold();
  parts_.reconciler->stop();
  parts_.enrolment->hold();
  estate.predecessors = parts_.predecessors->hand_on();
  estate.ended_metrics = parts_.predecessors->ended_metrics();
  auto listeners = parts_.workers->hold(kWorkerTime);
  if (!listeners) {
    go_on();
    return Failure(listeners.error());
  }
  estate.listeners = std::move(*listeners);
  return estate;
}

void HandoverGiver::go_on() {
  parts_.workers->go_on();
  parts_.enrolment->go_on();
  parts_.reconciler->start();
  parts_.registration->go_on();
}

void HandoverGiver::retire() {
  parts_.events->stop();
  for (auto* server : parts_.servers) server->abandon();
  // At once: whoever comes after a successor that dies must find the path free.
  parts_.registration->abandon();
  parts_.registration->stop();
  parts_.workers->drain();
  parts_.enrolment->retire();
  parts_.predecessors->let_go();
  parts_.retired();
}

json HandoverGiver::answer(const json& ask) {
  const std::string what = ask.value("ask", "");
  json answer = json::object();
  if (what == "status") {
    answer = to_json(self());
  } else if (what == "connections") {
    json list = json::array();
    for (const auto& connection : parts_.workers->connections(kWorkerTime)) list.push_back(to_json(connection));
    answer["connections"] = std::move(list);
  } else if (what == "metrics") {
    answer["metrics"] = metrics();
  } else if (what == "forget") {
    parts_.enrolment->forget_slot(ask.value("slot", std::uint32_t{0xffffffff}));
  }
  answer["number"] = ask.value("number", std::uint64_t{0});
  return answer;
}

}  // namespace weft::agent
