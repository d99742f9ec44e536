// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "tunnel/hbone/tunnel.h"
#include "tunnel/loop/start_queue.h"
#include "tunnel/proxy/connections.h"
#include "tunnel/proxy/inbound_target.h"
#include "tunnel/proxy/pump.h"
#include "tunnel/state/policy.h"

namespace weft::proxy {

struct PodState;

/// One CONNECT into a pod: checked against policy before and after the connect to the application, and at every change
/// of the snapshot while it lives; registered before the first check, so that no change slips between.
class Inbound final : public Connection, private StreamPump::Events {
 public:
  Inbound(WorkerContext& worker, std::shared_ptr<const PodContext> pod, hbone::Tunnel& tunnel, std::int32_t stream_id,
          const hbone::H2Headers& headers, Charge charge);

  /// Call once, after it was added to the worker's connections. What it takes to serve it waits for its turn.
  void queue(loop::StartQueue& starts);

  void on_snapshot() override;
  [[nodiscard]] const hbone::Tunnel* tunnel() const override { return pump_.tunnel(); }
  void cut(telemetry::ResponseFlag flag, const std::string& why) override;

 private:
  [[nodiscard]] Bytes bytes() const override;
  [[nodiscard]] const char* direction() const override { return "inbound"; }
  void start();
  /// True when the request names what may be reached here. Otherwise it is refused, or waits for another snapshot.
  bool check_request();
  /// Begins the connection to the application, or to its tunnel.
  Result<Fd> dial();
  /// Tells the application's tunnel whose connection this is, and where to.
  Result<void> introduce();
  /// True when policy allows it now; sets `result_` otherwise.
  bool allowed();
  void refuse(int status, telemetry::ResponseFlag flag, const std::string& why);
  void end(telemetry::ResponseFlag flag, const std::string& why);

  void on_response(const hbone::H2Headers& /*headers*/) override {}
  void on_app_connected(const Error* error) override;
  void on_stream_lost(std::uint32_t error_code, const hbone::Tunnel::Ending* tunnel) override;
  void on_pump_finished() override;
  void on_pump_broken(const std::string& why) override;

  hbone::Tunnel* tunnel_;  ///< until the request is answered or its stream is gone
  std::int32_t stream_id_;
  hbone::H2Headers headers_;
  InboundTarget target_;
  bool answered_ = false;
  bool waiting_ = false;  ///< for a snapshot by which it may be asked for here
  SteadyTime received_;
  StreamPump pump_;
  loop::Timer timer_;
  std::unique_ptr<loop::StartTask> turn_;  ///< until it has started
};

/// The server tunnels of one worker: mutual TLS with each pod's own certificate, CONNECT streams to its application.
/// One thread.
class InboundTunnels final : private hbone::TunnelOwner {
 public:
  explicit InboundTunnels(WorkerContext& worker);
  ~InboundTunnels() override;

  /// A connection accepted by the pod's HBONE listener.
  void accept(std::shared_ptr<const PodContext> pod, Fd fd, const Endpoint& peer, Charge charge);
  /// Cuts a pod's tunnels.
  void close_pod(std::uint32_t slot, const std::string& why);
  /// The certificates or the snapshot changed: handshakes that waited go on.
  void go_on();
  /// The tunnels that are open now; those that `visit` ends are no matter.
  void for_each_open(const std::function<void(hbone::Tunnel&)>& visit);
  /// GOAWAY on all, or on those of one pod: they end with their last stream.
  void drain();
  void drain_pod(std::uint32_t slot);
  /// Tunnels, and connections that wait to become one.
  [[nodiscard]] std::size_t size() const { return tunnels_.size() + waiting_.size(); }

 private:
  struct Waiting;
  struct Served {
    std::shared_ptr<const PodContext> pod;
    std::shared_ptr<PodState> state;
    Charge charge;
    std::unique_ptr<hbone::Tunnel> tunnel;
    Endpoint peer;
    std::uint64_t number = 0;  ///< counts tunnels
    bool opened = false;
    std::unique_ptr<loop::Timer> idle;  ///< ends a tunnel that nobody uses
    telemetry::OpenSocket counted;
  };
  /// Of one pod: what its peers have under way.
  struct Load {
    std::map<std::uint64_t, hbone::Tunnel*> handshakes;  ///< by age
    std::map<IpAddress, std::size_t> handshakes_by_source, tunnels_by_source;
  };

  void serve(std::shared_ptr<const PodContext> pod, Fd fd, const Endpoint& peer, Charge charge,
             std::shared_ptr<const hbone::TlsIdentity> identity);
  /// True where another tunnel of this source may begin.
  bool within_limits(const PodContext& pod, const Endpoint& peer);
  void refuse_stream(const Served& served, std::int32_t stream_id, Shed reason);
  void count_limit(const PodContext& pod, const Endpoint& peer, const char* kind);
  void handshake_over(const Served& served);
  void update_idle(Served& served);

  void on_tunnel_open(hbone::Tunnel& tunnel) override;
  void on_tunnel_request(hbone::Tunnel& tunnel, std::int32_t stream_id, const hbone::H2Headers& headers) override;
  void on_tunnel_bad_request(hbone::Tunnel& tunnel, std::string_view reason) override;
  void on_tunnel_changed(hbone::Tunnel& tunnel) override;
  void on_tunnel_closed(hbone::Tunnel& tunnel, hbone::TunnelPhase phase, const std::string& why) override;

  WorkerContext& worker_;
  std::map<const hbone::Tunnel*, Served> tunnels_;
  std::map<std::uint32_t, Load> loads_;  ///< by slot
  std::uint64_t tunnels_made_ = 0;
  SteadyTime limit_logged_;
  std::map<std::uint64_t, std::unique_ptr<Waiting>> waiting_;  ///< accepted, but without a certificate yet
  std::uint64_t next_waiting_ = 0;
};

}  // namespace weft::proxy
