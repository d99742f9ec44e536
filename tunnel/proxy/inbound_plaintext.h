// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/proxy/connections.h"
#include "tunnel/proxy/pump.h"

namespace weft::proxy {

/// A plaintext connection into a pod to which policy applies: it has no identity, and meets the same policies as a
/// CONNECT, before and after the connect and while it lives.
class InboundPlaintext final : public Connection, private PumpOwner {
 public:
  /// `application` is what the client dialled, the pod's own address.
  InboundPlaintext(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Fd accepted, const Endpoint& source,
                   const Endpoint& application, Charge charge);

  /// Call once, after it was added to the worker's connections.
  void start();

  void on_snapshot() override;
  void cut(telemetry::ResponseFlag flag, const std::string& why) override;

 private:
  [[nodiscard]] Bytes bytes() const override { return {pump_.left_to_right(), pump_.right_to_left()}; }
  [[nodiscard]] const char* direction() const override { return "inbound-plaintext"; }
  bool allowed();
  void on_connected(const Error* error);
  void on_pump_finished() override;
  void on_pump_broken(const std::string& why) override;

  Fd accepted_;
  SocketPump pump_;
  loop::Timer timer_;
};

}  // namespace weft::proxy
