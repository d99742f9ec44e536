// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tunnel/hbone/tunnel.h"

namespace weft::hbone {

/// What makes two streams able to share a tunnel. `pod_slot` stands for the source (its identity and address),
/// `workload_uid` and `expected` for whom the tunnel is proven to reach: a reused address inherits nothing.
struct PoolKey {
  std::uint32_t pod_slot = 0;
  std::string workload_uid;
  Endpoint gateway;
  std::vector<std::string> expected;  ///< acceptable URI SANs of the server, sorted
  auto operator<=>(const PoolKey&) const = default;
};

/// Waits for a tunnel. Exactly one of the two is called, unless the request was cancelled.
class TunnelRequest {
 public:
  virtual ~TunnelRequest() = default;
  /// Start the stream now, within the call.
  virtual void on_tunnel(Tunnel& tunnel) = 0;
  virtual void on_no_tunnel(TunnelPhase phase, const std::string& why) = 0;
};

/// The client tunnels of one worker. At most min(100, the peer's limit) streams a tunnel, one handshake at a time per
/// key, a tunnel without streams is closed after `idle_timeout`. A request that finds a dial without an answer for
/// kStuckAfter has another one made beside it: TCP's own next attempt may be many seconds away when the peer is back.
/// One thread.
class Pool final : private TunnelOwner {
 public:
  static constexpr milliseconds kStuckAfter{500};
  static constexpr std::size_t kDialsAtOnce = 4;  ///< of a key

  /// Makes the connecting socket for a tunnel, in the pod's netns and tagged.
  using Dial = std::function<Result<Fd>()>;

  Pool(TunnelContext context, milliseconds connect_timeout, milliseconds idle_timeout);
  ~Pool() override;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Gives `request` a tunnel, now or later. `identity` and `dial` are used only when a new tunnel is needed.
  void request(const PoolKey& key, std::shared_ptr<const TlsIdentity> identity, Dial dial, TunnelRequest& request);
  /// The request's owner goes away: it hears no more.
  void cancel(TunnelRequest& request);
  /// Cuts a pod's tunnels and refuses what waits.
  void close_pod(std::uint32_t pod_slot, const std::string& why);
  /// From now on a tunnel closes as soon as it has no streams.
  void drain();

  [[nodiscard]] std::size_t tunnels() const { return tunnels_; }

 private:
  struct Member;
  struct Waiting {
    TunnelRequest* request;
    std::shared_ptr<const TlsIdentity> identity;
    Dial dial;
    SteadyTime since;
  };
  struct Group {
    std::list<std::unique_ptr<Member>> members;
    std::list<Waiting> waiting;
    std::size_t dialling = 0;  ///< handshakes under way: more than one where the first ones are stuck
  };

  void serve(const PoolKey& key);
  void dial(const PoolKey& key, Group& group);
  [[nodiscard]] static Member* with_room(Group& group);
  [[nodiscard]] bool is_stuck(const Group& group) const;
  static void give_up_stuck(Group& group);
  void on_dial_failed(const PoolKey& key, TunnelPhase phase, const std::string& why);
  void update_idle(Member& member);
  Member* member_of(Tunnel& tunnel);
  void forget_if_empty(const PoolKey& key);
  void refuse_waiting(const PoolKey& key, TunnelPhase phase, const std::string& why);

  void on_tunnel_open(Tunnel& tunnel) override;
  void on_tunnel_request(Tunnel& /*tunnel*/, std::int32_t /*stream_id*/, const H2Headers& /*headers*/) override {}
  void on_tunnel_bad_request(Tunnel& /*tunnel*/, std::string_view /*reason*/) override {}
  void on_tunnel_changed(Tunnel& tunnel) override;
  void on_tunnel_closed(Tunnel& tunnel, TunnelPhase phase, const std::string& why) override;

  TunnelContext context_;
  milliseconds connect_timeout_;
  milliseconds idle_timeout_;
  std::map<PoolKey, Group> groups_;
  std::map<const Tunnel*, Member*> by_tunnel_;
  std::size_t tunnels_ = 0;
  bool draining_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace weft::hbone
