// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tunnel/hbone/pool.h"
#include "tunnel/proxy/connections.h"
#include "tunnel/proxy/pump.h"
#include "tunnel/state/state.h"

namespace weft::proxy {

/// A connection that an application of the pod opened and that capture brought here. Its phases in order:
/// own workload known (and, on demand, the destination told) -> destination chosen -> (a name) its address -> (mesh)
/// certificate -> tunnel -> CONNECT answered
/// -> copy, or (not mesh) -> dialled as it is -> copy. The listener's netns says whose it is, never an address. An
/// attempt that fails before a byte of the application has gone anywhere is made once more, at another endpoint where
/// the service has one; what the peer says it has not even looked at is asked again, and so is, for a second or two, a
/// waypoint that cannot serve the service: it may hear of it later than we did.
class Outbound final : public Connection, private StreamPump::Events, private hbone::TunnelRequest {
 public:
  /// `original` is where the application wanted to go, `source` its own end.
  Outbound(WorkerContext& worker, std::shared_ptr<const PodContext> pod, Fd accepted, const Endpoint& source,
           const Endpoint& original, Charge charge);
  ~Outbound() override;

  /// Call once, after it was added to the worker's connections.
  void start();

  void on_snapshot() override;
  void on_certificates() override;
  void on_names() override;
  [[nodiscard]] const hbone::Tunnel* tunnel() const override { return stream_ ? stream_->tunnel() : nullptr; }
  void cut(telemetry::ResponseFlag flag, const std::string& why) override;

 private:
  enum class State : std::uint8_t {
    kWorkload,     ///< waits for the pod's own workload, and for what the control plane says of the destination
    kResolve,      ///< waits for the addresses of the endpoint's name
    kCertificate,  ///< waits for a certificate of the pod's identity
    kTunnel,       ///< waits for a tunnel
    kAnswer,       ///< CONNECT is sent
    kDial,         ///< the direct connection is under way
    kAgain,        ///< another attempt follows
    kCopy,
  };

  [[nodiscard]] Bytes bytes() const override;
  [[nodiscard]] const char* direction() const override;
  void advance();
  void waited_too_long();
  bool is_told(const state::Workload& own, const IpAddress& address);
  bool choose_destination(const state::WorkloadPtr& own);
  bool take_destination(const state::Workload& own);
  bool resolve(const state::Workload& own);
  bool has_other_address();
  void request_tunnel(const state::Workload& own);
  void dial_direct();
  bool dial_took_long();
  /// What may be done about an attempt that failed.
  enum class Again : std::uint8_t {
    kNo,
    kElsewhere,   ///< another endpoint of the service
    kAnywhere,    ///< that, or the same once more by another tunnel
    kLater,       ///< another endpoint, or the same after a pause
    kUnlookedAt,  ///< the same, by another tunnel: the peer has not looked at the request
  };
  void attempt_failed(telemetry::ResponseFlag flag, const std::string& why, Again again);
  bool may_try_again(Again again);
  bool may_try_at_once(Again again);
  [[nodiscard]] bool is_overtaken() const;
  /// Begins what went wrong on the way to a waypoint: "waypoint shop/way: ". Empty where there is none.
  [[nodiscard]] std::string to_waypoint() const;
  /// From the choice of the endpoint on, in a coming turn.
  void begin_again();
  void take_back_application();
  void end(telemetry::ResponseFlag flag, const std::string& why);

  // hbone::TunnelRequest
  void on_tunnel(hbone::Tunnel& tunnel) override;
  void on_no_tunnel(hbone::TunnelPhase phase, const std::string& why) override;
  // StreamPump::Events and PumpOwner
  void on_response(const hbone::H2Headers& headers) override;
  void on_app_connected(const Error* /*error*/) override {}
  void on_stream_lost(std::uint32_t error_code, const hbone::Tunnel::Ending* tunnel) override;
  void on_pump_finished() override;
  void on_pump_broken(const std::string& why) override;

  State state_ = State::kWorkload;
  Fd accepted_;  ///< until a pump takes it
  Endpoint original_;
  state::Destination destination_;
  /// Of all attempts: another one goes to another endpoint, and never by another waypoint.
  const std::uint64_t number_;
  bool in_pool_ = false;
  std::unique_ptr<StreamPump> stream_;
  std::unique_ptr<SocketPump> direct_;
  /// The pumps of attempts that failed: they may be on the call stack.
  std::vector<std::unique_ptr<StreamPump>> spent_streams_;
  std::unique_ptr<SocketPump> spent_direct_;
  /// The endpoint that is a name, where this attempt's is.
  struct Named {
    state::WorkloadPtr endpoint;
    std::string hostname;
    IpAddress address;  ///< of it, the one that is dialled
  };
  std::optional<Named> named_;
  std::string untold_;        ///< what the control plane was asked for and has not told yet
  state::WorkloadPtr avoid_;  ///< the endpoint that failed
  IpAddress avoid_address_;   ///< the address of a name that failed
  bool tried_again_ = false;
  bool asked_again_ = false;   ///< dial_took_long() has said so
  SteadyTime dialled_;         ///< when dial_direct() did
  int unlooked_at_ = 0;        ///< attempts that the peer did not look at
  milliseconds pause_{0};      ///< before the attempt that follows
  std::uint8_t pauses_ = 0;    ///< that were made
  std::string first_failure_;  ///< of the attempt before this one
  loop::Timer timer_;
};

}  // namespace weft::proxy
