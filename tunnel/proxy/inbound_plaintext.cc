// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/inbound_plaintext.h"

#include "tunnel/proxy/context.h"
#include "tunnel/proxy/inbound_policy.h"

namespace weft::proxy {

using telemetry::ResponseFlag;

InboundPlaintext::InboundPlaintext(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Fd accepted,
                                   const Endpoint& source, const Endpoint& application, Charge charge)
    : Connection(worker, std::move(pod), std::move(charge)),
      accepted_(std::move(accepted)),
      pump_(*this, worker.scratch, worker.loop),
      timer_(worker.loop) {
  result_.reporter = telemetry::Reporter::kDestination;
  result_.source.endpoint = source;
  result_.destination.endpoint = application;
}

void InboundPlaintext::start() {
  auto left = pump_.left().open(worker_.loop, std::move(accepted_), false, pump_.left_events());
  if (!left) return cut(ResponseFlag::kConnect, left.error().message());
  if (!allowed()) return cut(ResponseFlag::kDeny, result_.error);
  auto fd = dial_application(worker_, *pod_, result_.source.endpoint.address, result_.destination.endpoint);
  if (!fd) return cut(ResponseFlag::kConnect, fd.error().message());
  pump_.on_right_connected([this](const Error* error) { on_connected(error); });
  auto right = pump_.right().open(worker_.loop, std::move(*fd), true, pump_.right_events());
  if (!right) return cut(ResponseFlag::kConnect, right.error().message());
  timer_.arm(worker_.config.connect_timeout, [this] {
    cut(ResponseFlag::kConnect, "connect " + result_.destination.endpoint.to_string() + ": timed out");
  });
}

bool InboundPlaintext::allowed() { return allow_inbound(worker_, *pod_, result_.destination.endpoint, result_); }

void InboundPlaintext::on_connected(const Error* error) {
  timer_.cancel();
  if (error != nullptr) {
    return cut(ResponseFlag::kConnect, "connect " + result_.destination.endpoint.to_string() + ": " + error->message());
  }
  if (!allowed()) return cut(ResponseFlag::kDeny, result_.error);
  opened();
  pump_.start();
}

void InboundPlaintext::on_snapshot() {
  if (!allowed()) cut(ResponseFlag::kDeny, result_.error);
}

void InboundPlaintext::cut(ResponseFlag flag, const std::string& why) {
  if (finished()) return;
  timer_.cancel();
  pump_.cut();
  finish(flag, why);
}

void InboundPlaintext::on_pump_finished() { cut(ResponseFlag::kNone, ""); }

void InboundPlaintext::on_pump_broken(const std::string& why) { cut(ResponseFlag::kNone, why); }

}  // namespace weft::proxy
